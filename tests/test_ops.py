"""Every op on every backend: the reference against loops, each twin against the reference."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from fastcam import ops
from fastcam.ops import OPS, native
from fastcam.ops.dispatch import INTERPRETED
from tests import loops_ops
from tests.cases import CASES

GRID = [(op, name) for op, names in CASES.items() for name in names]
IDS = [f"{op}-{name}" for op, name in GRID]
FLOAT_OPS = [op for op in OPS if op not in {"overlay", "component_boxes", "components", "rank_pixels"}]


def available_isas():
    found = []
    for isa in ("plain", "avx2", "avx512"):
        try:
            with native.use_isa(isa):
                found.append(native.build_info()["isa"])
        except ValueError:
            continue
    return found


# torch computes resize positions in float32, the kernels in double, and they blend maps moved to zero.
# Measured worst cases of the reference: 3.5e-6 at 40 to 100 rows, 6.1e-5 for a range of 0.6 at 64.
REFERENCE_SCALE = {"large": 2, "offset": 40}

SLOW = {"many_channels", "long_rows", "large"}  # in Triton's interpreter
ISAS = available_isas()


def scale(backend, name, dtype):
    """Of the tolerance."""
    if backend == "reference":
        return REFERENCE_SCALE.get(name, 1)
    # Triton's interpreter cuts float32 off to bfloat16, where a GPU rounds: a whole unit in the last place, not half.
    return 2 if backend == "triton" and INTERPRETED and dtype == torch.bfloat16 else 1


def tensors(result):
    return result if isinstance(result, tuple) else (result,)


def double(arguments):
    """The same call in float64, with an output of its own."""
    return {
        k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v
        for k, v in arguments.items()
        if k != "out"
    }


def test_every_op_has_cases_and_twins():
    assert set(CASES) == set(OPS)
    assert native.missing is None
    assert all("cpu" in op.twins for op in OPS.values())
    assert "plain" in ISAS


@pytest.mark.parametrize(("op", "name"), GRID, ids=IDS)
def test_reference_equals_loops(op, name, device, close):
    arguments = double(CASES[op][name](torch.float64, device))
    plain = {k: v.cpu().numpy() if isinstance(v, Tensor) else v for k, v in arguments.items()}
    for got, want in zip(
        tensors(OPS[op].reference(**arguments)), tensors(getattr(loops_ops, op)(**plain)), strict=True
    ):
        if got.dtype == torch.float64:
            close(got, torch.from_numpy(want))
        else:
            assert torch.equal(got.cpu(), torch.from_numpy(want))


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton", "cuda"])
@pytest.mark.parametrize(("op", "name"), GRID, ids=IDS)
def test_backend_equals_float64(op, name, backend, device, dtype, close, record_property):
    arguments = CASES[op][name](dtype, device)
    reason = OPS[op].why_not(backend, **arguments)
    if reason:
        with ops.use(backend), pytest.raises(RuntimeError) as error:
            OPS[op](**arguments)
        assert str(error.value) == f"{op} cannot run on backend {backend}: {reason}"
        return
    if backend == "triton" and INTERPRETED and name in SLOW and dtype != torch.float32:
        pytest.skip("the interpreter runs one program at a time; float32 goes the same way")
    record_property("ran", [backend, op])  # for the summary
    exact = arguments if op == "overlay" else double(arguments)
    expected = tensors(OPS[op].reference(**exact))
    for isa in ISAS if backend == "cpu" else [native.build_info()["isa"]]:
        with native.use_isa(isa), ops.use(backend):
            actual = tensors(OPS[op](**arguments))
        for got, want in zip(actual, expected, strict=True):
            if got.is_floating_point():
                close(got, want, scale(backend, name, dtype))
            else:
                assert torch.equal(got, want)
        if "out" in arguments:
            assert actual[0] is arguments["out"]


@pytest.mark.parametrize(("op", "name"), GRID, ids=IDS)
def test_bits_do_not_depend_on_instructions_or_threads(op, name, dtype):
    arguments = CASES[op][name](dtype)
    reason = OPS[op].why_not("cpu", **arguments)
    if reason:
        with ops.use("cpu"), pytest.raises(RuntimeError, match=re.escape(reason)):
            OPS[op](**arguments)
        return
    threads, results = torch.get_num_threads(), []
    try:
        for isa in ISAS:
            for count in (1, 2):
                torch.set_num_threads(count)
                with native.use_isa(isa), ops.use("cpu"):
                    results.append([t.clone() for t in tensors(OPS[op](**arguments))])
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for got, want in zip(result, results[0], strict=True):
            assert torch.equal(
                got.nan_to_num(7) if got.is_floating_point() else got,
                want.nan_to_num(7) if want.is_floating_point() else want,
            )


def test_threads_share_large_work(close):
    a, x = torch.rand(2, 9, 7, 7), torch.rand(2, 3, 120, 130)
    expected, constant = ops.mask_images.reference(a.double(), x.double(), 0, 9)
    for threads in (1, 2, 3, 16):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for stop in (1, 2, 9):
                out, flags = ops.mask_images(a, x, 0, stop)
                close(out, expected.unflatten(0, (2, 9))[:, :stop].flatten(0, 1))
                assert torch.equal(flags, constant[:, :stop])
        finally:
            torch.set_num_threads(before)


def test_half_rounding_is_exact_for_every_bit_pattern():
    """Every float16 value, and the ties between them, through the store of each instruction set."""
    half = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    half = half[half.isfinite()]
    values = torch.cat(
        [
            half,
            half * (1 + 2**-12),
            half * (1 + 2**-11),
            half * (1 - 2**-12),
            torch.tensor([65520.0, -1e9, 1e-9]),
        ]
    )
    for dtype in (torch.float16, torch.bfloat16):
        out = torch.empty(1, len(values), 1, 1, dtype=dtype)
        for isa in ISAS:
            with native.use_isa(isa), ops.use("cpu"):
                ops.mask_cells(values[None, :, None, None], 0, 1, out=out)
            assert torch.equal(out.flatten(), values.to(dtype)), isa


@pytest.mark.parametrize("dtype_in", [torch.float16, torch.bfloat16])
def test_half_loading_is_exact_for_every_bit_pattern(dtype_in):
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype_in)
    values = values[values.isfinite()]
    for isa in ISAS:
        with native.use_isa(isa), ops.use("cpu"):
            got = ops.weighted_sum(values.view(1, 1, 1, -1), torch.ones(1, 1, 1))
        assert torch.equal(got.flatten(), values.float()), isa


@pytest.mark.parametrize("op", FLOAT_OPS)
def test_gradients_come_from_the_reference(op):
    arguments = double(CASES[op]["odd"](torch.float64))
    names = [k for k, v in arguments.items() if isinstance(v, Tensor) and v.is_floating_point()]
    for k in names:
        arguments[k].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *values: tensors(OPS[op](**(arguments | dict(zip(names, values, strict=True)))))[0],
        [arguments[k] for k in names],
        fast_mode=True,
    )
    single = {k: v.detach().float().requires_grad_() if k in names else v for k, v in arguments.items()}
    assert OPS[op].why_not("cpu", **single) == "only the reference is differentiable"
    assert tensors(OPS[op](**single))[0].requires_grad
    with torch.no_grad():
        assert OPS[op].why_not("cpu", **single) is None


def test_weighted_sum_says_when_torch_is_faster():
    a = torch.rand(1, 4, 3, 3)
    assert "more than 8 targets" in ops.weighted_sum.why_not("cpu", a, torch.rand(1, 9, 4))
    assert ops.weighted_sum.why_not("cpu", a, torch.rand(1, 8, 4)) is None
    last = a.contiguous(memory_format=torch.channels_last)
    assert "not contiguous" in ops.weighted_sum.why_not("cpu", last, torch.rand(1, 1, 4))
    assert "float64" in ops.weighted_sum.why_not("cpu", a.double(), torch.rand(1, 1, 4))


def test_autocast_and_compile_keep_float32(close):
    a, w = torch.rand(1, 300, 3, 3), torch.rand(1, 20, 300)
    exact = ops.weighted_sum.reference(a.double(), w.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(ops.weighted_sum(a, w), exact)
    close(torch.compile(ops.weighted_sum, backend="eager", fullgraph=True)(a, w[:, :1]), exact[:, :1])


def test_masks_stay_exact_on_a_large_offset(close):
    """A range of 1 on an offset of 4096: the kernel moves the map to zero before it interpolates."""
    cells, x = torch.rand(1, 2, 7, 7) + 4096, torch.ones(1, 1, 50, 50)
    for normalize in ("after", "before"):
        with ops.use("cpu"):
            got = ops.mask_images(cells, x, 0, 2, normalize=normalize)[0]
        close(got, ops.mask_images.reference(cells.double(), x.double(), 0, 2, normalize=normalize)[0])
    with ops.use("cpu"):
        got = ops.resize_normalize(cells[0], (50, 50))
    close(got, ops.resize_normalize.reference(cells[0].double(), (50, 50)))
    assert 0 <= got.min() < 1e-6
    assert got.max() <= 1


@pytest.mark.parametrize("value", [0.1, -3.7, 1e-30, 3e38])
def test_constant_maps_are_flagged_and_zero(value):
    a = torch.full((1, 2, 5, 3), value)
    a[0, 1, 2, 2] = 0
    for backend in ("reference", "cpu"):
        for normalize in ("after", "before", "never"):
            with ops.use(backend):
                out, constant = ops.mask_images(a, torch.ones(1, 1, 31, 17), 0, 2, normalize=normalize)
            assert constant.tolist() == [[True, False]]
            assert normalize == "never" or not out[0].any()


def test_forcing_is_undone_and_checked():
    a, w = torch.rand(1, 2, 3, 3), torch.rand(1, 1, 2)
    with pytest.raises(RuntimeError, match="no cuda twin"), ops.use("cuda"), ops.use(None), ops.use("cuda"):
        ops.weighted_sum(a, w)
    ops.weighted_sum(a, w)
    with pytest.raises(ValueError, match="unknown backend 'gpu'"), ops.use("gpu"):
        pass
    with pytest.raises(ValueError, match="unknown backend"):
        ops.weighted_sum.why_not("gpu", a, w)
    with pytest.raises(ValueError, match="instruction set 'mmx'"), native.use_isa("mmx"):
        pass


def test_support_lists_every_op_on_every_backend():
    rows = ops.support()
    assert {(r["op"], r["backend"]) for r in rows} == {(o, b) for o in OPS for b in ops.BACKENDS}
    assert all(r["available"] == (r["reason"] == "") for r in rows)
    assert all(r["available"] for r in rows if r["backend"] in ("reference", "cpu"))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"FASTCAM_ISA": "plain"}, "plain"),
        ({"FASTCAM_BACKEND": "cuda"}, "no cuda twin in this build"),
        ({"FASTCAM_BACKEND": "gpu"}, "unknown backend 'gpu'"),
        ({"FASTCAM_ISA": "mmx"}, "instruction set 'mmx' is not in this build"),
    ],
    ids=["isa", "backend", "bad_backend", "bad_isa"],
)
def test_environment_forces_a_process(variables, expected):
    code = (
        "import torch, fastcam.ops as o; o.mask_channels(torch.ones(1, 1, 1, 1), 0, 1); "
        "print(o.native.build_info()['isa'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert expected in (run.stdout if expected == "plain" else run.stderr)
