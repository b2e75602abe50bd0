"""Device and dtype of a run, and the one tolerance table."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before fastcam: Triton's kernels then run on the CPU, slowly
    os.environ.setdefault("FASTCAM_EMULATE", "1")  # and the CUDA kernels

# Largest error, as a share of the largest expected value (of 1 where that is smaller). The 16-bit dtypes are
# rounded once: half a unit in the last place. Measured worst cases of float32: 8.7e-7 for the reference
# (a sum of 600 terms), 2.2e-7 for the CPU kernels.
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.bfloat16: 2**-8,
    torch.float16: 2**-11,
}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in TOLERANCES}


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where the tests run: cpu (default), cuda, cuda:1, ...")
    parser.addoption("--dtype", default=None, choices=list(DTYPES), help="run dtype-generic tests in this one")


def pytest_generate_tests(metafunc):
    if "dtype" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--dtype")
        names = [chosen] if chosen else ["float32", "bfloat16", "float16"]
        metafunc.parametrize("dtype", [DTYPES[name] for name in names], ids=names)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    """As the last line: how many ops ran on each backend, in how many cases, and how where there was no GPU."""
    yield
    from fastcam.ops import dispatch  # not earlier: it reads the environment set above

    ran = {backend: [] for backend in ("reference", *reversed(dispatch.DEVICES))}
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for backend, op in [value for name, value in report.user_properties if name == "ran" and report.when == "call"]:
            ran[backend].append(op)
    said = []
    for backend, ops in ran.items():
        count, noun = len(set(ops)), "reference" if backend == "reference" else f"{backend} twin"
        how = {"triton": "interpreted, ", "cuda": "emulated, "}[backend] if dispatch.IMITATED.get(backend) else ""
        said += [f"{count} {noun}{'s' * (count > 1)} ({how}{len(ops)} case{'s' * (len(ops) > 1)})"] if ops else []
    if said:
        terminalreporter.write_line(f"ops: {', '.join(said)}")


@pytest.fixture
def device(request):
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def close():
    """Assert that tensors agree within the table's tolerance for the dtype of the first."""

    def check(actual, expected, scale=1.0):
        assert actual.shape == expected.shape
        got, want = actual.detach().double().cpu(), expected.detach().double().cpu()
        assert torch.equal(got.isnan(), want.isnan())
        want, got = want.nan_to_num(0), got.nan_to_num(0)
        limit = TOLERANCES[actual.dtype] * scale * max(1.0, want.abs().max().item())
        worst = (got - want).abs().max().item()
        assert worst <= limit, f"worst error {worst:.3g}, tolerance {limit:.3g}"

    return check


@pytest.fixture(scope="module")
def one_thread():
    """For networks so small that a second thread only costs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
