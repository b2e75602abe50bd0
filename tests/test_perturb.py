"""Ranks, perturbed images and the blur against NumPy, SciPy and RISE's evaluation, which is written anew here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from torch.nn.functional import conv2d, interpolate

from fastcam import ops
from fastcam.ops import native
from fastcam.ops.blur_images import factor
from tests.case import normal
from tests.test_ops import ISAS

PATHS = ["reference", *ISAS]


@pytest.fixture(params=PATHS)
def path(request):
    """Every op on the reference, then on the kernels of each instruction set."""
    isa = request.param if request.param in ISAS else native.build_info()["isa"]
    with native.use_isa(isa), ops.use("cpu" if request.param in ISAS else "reference"):
        yield request.param


def maps(kind, size=(224, 224)):
    if kind == "noise":
        return normal((2, *size), torch.float32, "cpu")
    m = interpolate(normal((2, 1, 7, 7), torch.float32, "cpu").relu(), size, mode="bilinear")[:, 0]
    return (m * 9).floor() if kind == "plateaus" else m


def numpy_ranks(m):
    order = np.argsort(-m.reshape(len(m), -1).numpy(), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], 1)
    return torch.from_numpy(ranks).int().view(m.shape)


@pytest.mark.parametrize("kind", ["noise", "smooth", "plateaus"])
def test_ranks_equal_numpys_stable_argsort(kind, dtype, path):
    m = maps(kind).to(dtype)
    assert torch.equal(ops.rank_pixels(m), numpy_ranks(m.float()))


def test_ranks_do_not_depend_on_what_was_ranked_before(path):
    """Sizes below and above what a thread keeps its scratch for, in turns."""
    for size in ((7, 7), (260, 256), (100, 30), (250, 260), (9, 9)):
        assert torch.equal(ops.rank_pixels(maps("noise", size)), numpy_ranks(maps("noise", size)))


def test_ranks_of_a_known_map(path):
    nan, inf = float("nan"), float("inf")
    m = torch.tensor([[[-0.0, nan, 0.0, 2.0], [-inf, 2.0, inf, -nan], [1e-45, -1e-45, 3e38, -3e38]]])
    assert ops.rank_pixels(m).tolist() == [[[5, 10, 6, 2], [9, 3, 0, 11], [4, 7, 1, 8]]]
    assert torch.equal(ops.rank_pixels(torch.zeros(1, 3, 5)), torch.arange(15).int().view(1, 3, 5))


def rise_states(start, finish, saliency, step):
    """The images RISE classifies: `step` more pixels of `finish` at a time, the most salient first."""
    states, current = [start.copy()], start.copy()
    order = np.flip(np.argsort(saliency.reshape(-1)))
    for first in range(0, len(order), step):
        chosen = order[first : first + step]
        current.reshape(3, -1)[:, chosen] = finish.reshape(3, -1)[:, chosen]
        states.append(current.copy())
    return torch.from_numpy(np.stack(states))


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("mode", ["deletion", "insertion"])
def test_steps_equal_rises_loop(mode, rows, path):
    size = (28, 20)
    x, m = normal((1, 3, *size), torch.float32, "cpu"), maps("noise", size)[:1]
    step, total = rows * size[1], size[0] * size[1]
    other = torch.zeros(1, 3, 1, 1).expand_as(x) if mode == "deletion" else ops.blur_images(x)
    start, finish = (x, other) if mode == "deletion" else (other, x)
    counts = [min(i * step, total) for i in range(-(-total // step) + 1)]
    assert torch.equal(
        ops.perturb_steps(start, finish, ops.rank_pixels(m), counts),
        rise_states(start[0].numpy(), finish[0].numpy(), m[0].numpy(), step),
    )


def test_patches_are_blocks_of_pixels(path):
    x, m = normal((1, 3, 28, 42), torch.float32, "cpu"), maps("noise", (4, 6))[:1]
    states = ops.perturb_steps(x, torch.zeros_like(x), ops.rank_pixels(m), range(25))
    order = m.flatten().argsort(descending=True)
    expected = x[0].clone()
    for i, state in enumerate(states):
        assert torch.equal(state, expected)
        if i < 24:
            y, column = divmod(int(order[i]), 6)
            expected[:, y * 7 : y * 7 + 7, column * 7 : column * 7 + 7] = 0


def test_fractions_change_that_share_of_the_pixels(path):
    x, fractions = torch.ones(2, 3, 30, 50), [0.0, 0.01, 0.25, 0.5, 1.0]
    counts = (torch.tensor(fractions) * 1500).round().long()
    out = ops.perturb_steps(x, torch.zeros_like(x), ops.rank_pixels(maps("smooth", (30, 50))), counts)
    assert (1 - out.mean((1, 2, 3))).tolist() == pytest.approx(fractions * 2, abs=1e-7)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_any_slice_of_the_steps_is_that_slice_of_all(path, last):
    x, y = (normal((2, 3, 19, 23), torch.bfloat16, "cpu", seed) for seed in (1, 2))
    layout = torch.channels_last if last else torch.contiguous_format
    ranks, counts = ops.rank_pixels(maps("noise", (19, 23))), list(range(0, 437, 23))
    whole = ops.perturb_steps(x, y, ranks, counts).unflatten(0, (2, -1))
    buffer = torch.empty(2 * 7, 3, 19, 23, dtype=torch.bfloat16, memory_format=layout)
    for start in range(0, len(counts), 7):
        some = counts[start : start + 7]
        out = ops.perturb_steps(x, y, ranks, torch.tensor(some), buffer[: 2 * len(some)])
        assert torch.equal(out.unflatten(0, (2, -1)), whole[:, start : start + 7])


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32, torch.float64])
def test_more_pixels_than_16_bits_count(order, kind, path):
    """The kernel keeps the ranks of a band as wide as the elements, around the steps it writes."""
    x, y = (normal((1, 1, 300, 400), kind, "cpu", seed) for seed in (1, 2))
    ranks = ops.rank_pixels(maps("noise", (300, 400))[:1])
    counts = torch.tensor([0, 1, 32767, 32768, 65534, 65535, 65536, 98303, 120000])
    counts = {"rising": counts, "falling": counts.flip(0), "mixed": counts.view(3, 3).T.flatten()}[order]
    for count, row in zip(counts, ops.perturb_steps(x, y, ranks, counts), strict=True):
        assert torch.equal(row, torch.where(ranks < count, y[0], x[0]))


def test_threads_share_steps_bands_and_rows():
    x, y = (normal((1, 3, 120, 130), torch.float32, "cpu", seed) for seed in (1, 2))
    m = maps("smooth", (120, 130))[:1].expand(5, -1, -1)
    ranks, counts = ops.rank_pixels.reference(m), [0, 15600, 30, 7000, 800]
    steps, blurred = ops.perturb_steps.reference(x, y, ranks[:1], counts), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 16):
            torch.set_num_threads(threads)
            with ops.use("cpu"):
                assert torch.equal(ops.rank_pixels(m), ranks)
                assert torch.equal(ops.perturb_steps(x, y, ranks[:1], counts), steps)
                blurred.append(ops.blur_images(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, blurred[0]) for one in blurred)


def test_a_constant_is_never_written_out(dtype, monkeypatch):
    """What goes to the kernel still repeats one value a channel, also where its dtype changes."""
    calls = []
    monkeypatch.setattr(native, "call", lambda name, *args: calls.append((name, args)))
    x, ranks = torch.zeros(2, 3, 8, 9, dtype=dtype), torch.zeros(2, 8, 9, dtype=torch.int32)
    with ops.use("cpu"):
        ops.perturb_steps(x, torch.ones(1, 3, 1, 1).expand_as(x), ranks, [1])
    ((name, arguments),) = calls
    assert name == "perturb_steps"
    assert arguments[1] == (216, 72, 9, 1)
    assert arguments[3] == (0, 1, 0, 0)


@pytest.mark.parametrize(("size", "sigma"), [(11, 5.0), (1, 2.0), (3, 0.3), (5, 9.0), (31, 5.0), (101, 3.0)])
def test_factor_equals_scipys_filter_of_an_impulse(size, sigma):
    impulse = np.zeros(size)
    impulse[size // 2] = 1
    assert np.abs(np.array(factor(size, sigma)) - gaussian_filter1d(impulse, sigma)).max() < 1e-15
    assert factor(size, sigma) == factor(size, sigma)[::-1]
    assert sum(factor(size, sigma)) == pytest.approx(1, abs=1e-14)


def test_factor_of_rise_is_nearly_flat():
    half = [0.08796, 0.0889, 0.09047, 0.09219, 0.09349, 0.09398]
    assert factor(11, 5.0) == pytest.approx(half + half[-2::-1], abs=6e-6)


def test_blur_equals_rises_convolution(path, close):
    x = normal((2, 3, 40, 33), torch.float32, "cpu")
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = torch.zeros(3, 3, 11, 11, dtype=torch.float64)
    kernel[range(3), range(3)] = torch.from_numpy(gaussian_filter(impulse, 5))
    close(ops.blur_images(x), conv2d(x.double(), kernel, padding=5))


def test_blur_keeps_layout_and_float32_under_autocast(close):
    x = normal((1, 3, 20, 20), torch.float32, "cpu").contiguous(memory_format=torch.channels_last)
    assert ops.blur_images(x).is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(ops.blur_images.reference(x), ops.blur_images(x.double()))


X, RANKS = torch.ones(2, 3, 8, 9), torch.zeros(2, 8, 9, dtype=torch.int32)
WRONG = {
    "maps_axes": (ops.rank_pixels, (X,), ValueError, r"must have axes \(N h w\)"),
    "maps_integers": (ops.rank_pixels, (RANKS,), TypeError, r"use .float\(\)"),
    "others_shape": (ops.perturb_steps, (X, X[:, :, :1, :1], RANKS, [1]), ValueError, r"use .expand\(\)"),
    "ranks_dtype": (ops.perturb_steps, (X, X, RANKS.long(), [1]), TypeError, "ranks must be an int32 tensor"),
    "ranks_list": (ops.perturb_steps, (X, X, [[0]], [1]), TypeError, "got <class 'list'>"),
    "ranks_axes": (ops.perturb_steps, (X, X, RANKS[0], [1]), ValueError, r"ranks must have axes \(N h w\)"),
    "ranks_batch": (ops.perturb_steps, (X, X, RANKS[:1], [1]), ValueError, "ranks' batch is 1, expected 2"),
    "ranks_large": (
        ops.perturb_steps,
        (X, X, RANKS.repeat(1, 2, 1), [1]),
        ValueError,
        r"ranks has \(16, 9\) cells, more than the pixels \(8, 9\)",
    ),
    "counts_empty": (ops.perturb_steps, (X, X, RANKS, []), ValueError, r"at least one step, got shape \(0,\)"),
    "counts_axes": (ops.perturb_steps, (X, X, RANKS, 3), ValueError, r"one axis \(S\)"),
    "counts_floats": (ops.perturb_steps, (X, X, RANKS, [0.5]), TypeError, r"use .round\(\).long\(\)"),
    "counts_words": (ops.perturb_steps, (X, X, RANKS, ["all"]), TypeError, "counts must be integers"),
    "counts_negative": (ops.perturb_steps, (X, X, RANKS, [1, -2]), ValueError, "at least 0, got -2"),
    "counts_device": (
        ops.perturb_steps,
        (X, X, RANKS, torch.ones(1, dtype=torch.long, device="meta")),
        ValueError,
        r"on meta, expected cpu; move it with .cpu\(\)",
    ),
    "out_shape": (ops.perturb_steps, (X, X, RANKS, [1, 2], X), ValueError, r"expected \(4, 3, 8, 9\)"),
    "size_even": (ops.blur_images, (X, 10), ValueError, "odd number of pixels, got 10"),
    "size_float": (ops.blur_images, (X, 11.0), ValueError, "odd number of pixels, got 11.0"),
    "sigma_zero": (ops.blur_images, (X, 11, 0.0), ValueError, "positive number of pixels, got 0.0"),
    "sigma_nan": (ops.blur_images, (X, 11, float("nan")), ValueError, "positive number of pixels, got nan"),
}


@pytest.mark.parametrize(("op", "arguments", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_say_what_was_expected(op, arguments, error, message, path):
    with pytest.raises(error, match=message):
        op(*arguments)
