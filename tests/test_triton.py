"""What Triton twins have to give beyond the case grid: bytes, bits, exact sums, no copy; and the tests' own summary."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastcam import ops
from fastcam.ops import OPS
from fastcam.ops.blur_images import factor
from fastcam.ops.dispatch import INTERPRETED, TRITON
from tests.case import normal

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not TRITON, reason="Triton has no wheel for this system")


@pytest.fixture(autouse=True)
def triton(device):
    """Every call on the Triton twin, which needs a GPU or its interpreter."""
    if device.type == "cpu" and not INTERPRETED:
        pytest.skip("a GPU is there: run with --device cuda")
    with ops.use("triton"):
        yield


@pytest.mark.parametrize("alpha", [0.1, 0.5, 2 / 3])
def test_overlay_gives_every_byte_of_the_reference(alpha, device):
    """Each color of a picture under each level of a map, and maps between two levels, where one bit decides."""
    bytes_ = torch.arange(256, dtype=torch.uint8, device=device)
    images = bytes_[:, None].expand(256, 256)[None, ..., None].repeat(1, 1, 1, 3)
    levels = torch.arange(256, device=device) / 255
    ties = (torch.arange(255, device=device) + 0.5) / 255
    between = torch.stack([ties, ties.nextafter(levels[1:]), ties.nextafter(levels[:-1])])
    colormap = torch.stack([bytes_, bytes_.flip(0), bytes_.roll(77)], 1)
    for pictures, m in ((images, levels.expand(1, 256, 256)), (images[:, :3, :255], between[None])):
        assert torch.equal(
            ops.overlay(pictures, m, colormap, alpha), ops.overlay.reference(pictures, m, colormap, alpha)
        )


@pytest.mark.parametrize(("channels", "targets"), [(255, 1), (256, 8), (257, 3), (1030, 1)])
def test_weighted_sum_of_integers_is_exact(channels, targets, device):
    """Across chunks of channels, positions and padded targets, of which nothing may be lost or counted twice."""
    generator = torch.Generator().manual_seed(0)
    a, w = (
        torch.randint(-9, 10, shape, generator=generator).float().to(device)
        for shape in ((2, channels, 5, 13), (2, targets, channels))
    )
    expected = torch.einsum("btc,bchw->bthw", w.double(), a.double()).float()
    views = {
        "plain": (a, w),
        "channels_last": (a.contiguous(memory_format=torch.channels_last), w),
        "turned": (a.transpose(2, 3).contiguous().transpose(2, 3), w.transpose(1, 2).contiguous().transpose(1, 2)),
        "wide": (torch.cat([a, a], 3)[..., :13], w.repeat(1, 1, 2)[..., channels:]),
    }
    for name, (activations, weights) in views.items():
        assert torch.equal(ops.weighted_sum(activations, weights), expected), name


def test_weighted_sum_of_an_image_does_not_depend_on_its_batch(device):
    a, w = normal((5, 600, 7, 7), torch.float32, device), normal((5, 2, 600), torch.float32, device, 1)
    alone = torch.cat([ops.weighted_sum(a[i : i + 1], w[i : i + 1]) for i in range(5)])
    assert torch.equal(ops.weighted_sum(a, w), alone)


def test_weighted_sum_leaves_many_targets_and_float64():
    a = torch.rand(1, 4, 3, 3)
    assert (
        ops.weighted_sum.why_not("triton", a.contiguous(memory_format=torch.channels_last), torch.rand(1, 8, 4)) is None
    )
    assert "more than 8 targets" in ops.weighted_sum.why_not("triton", a, torch.rand(1, 9, 4))
    assert "float64" in ops.weighted_sum.why_not("triton", a, torch.rand(1, 1, 4).double())


def test_energy_is_summed_in_float64_over_all_tiles(device):
    """2^24 and 4999 ones: float32 would lose all of them."""
    m = torch.ones(2, 50, 100, device=device)
    m[0, 49, 99], m[1, 0, 0] = 2.0**24, float("nan")
    boxes = torch.tensor([[[0.0, 0, 100, 50], [0, 0, 9, 9]], [[1, 0, 100, 50], [0, 1, 5, 5]]], device=device)
    inside, total = ops.energy_in_boxes(m, boxes)
    assert inside.tolist() == [2.0**24 + 4999, 5000 - 46]  # of the first column, the box holds 4 pixels
    assert total[0] == inside[0]
    assert total[1].isnan()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blur_of_points_is_the_kernel_itself(layout, device, close):
    """A point in a corner and one inside: the rows above, and the channels beside, stay as they are."""
    x = torch.zeros(1, 3, 40, 30, device=device)
    x[0, 0, 0, 0], x[0, 2, 20, 15] = 1, 2
    got = ops.blur_images(x.contiguous(memory_format=layout), 11, 5.0)
    assert got.is_contiguous(memory_format=layout)
    taps = torch.tensor(factor(11, 5.0), dtype=torch.float64)
    expected = torch.zeros(x.shape, dtype=torch.float64)
    expected[0, 0, :6, :6] = taps[5:, None] * taps[5:]
    expected[0, 2, 15:26, 10:21] = 2 * taps[:, None] * taps
    close(got, expected)
    assert torch.equal(got.cpu() != 0, expected != 0)


def test_16_bits_are_rounded_once(device):
    """Between the two passes nothing is: the result is the float32 one, rounded."""
    x = normal((1, 3, 40, 33), torch.float16, device)
    assert torch.equal(ops.blur_images(x), ops.blur_images(x.float()).half())


def test_a_gpu_would_take_what_the_interpreter_takes():
    rows = {row["op"]: row for row in ops.support() if row["backend"] == "triton"}
    twins = {op for op in OPS if "triton" in OPS[op].twins}
    assert {"weighted_sum", "energy_in_boxes", "blur_images", "overlay"} < twins
    for op, row in rows.items():
        assert ("no triton twin" in row["reason"]) == (op not in twins)


@pytest.mark.parametrize(
    ("selected", "expected"),
    [
        ("float64 and float32-overlay and ties", "ops: 1 reference (1 case), 1 cpu twin (1 case), 1 triton twin"),
        ("test_forcing_is_undone", None),
    ],
    ids=["some", "none"],
)
def test_the_summary_counts_what_ran(selected, expected):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/test_ops.py", "-k", selected],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line for line in run.stdout.splitlines() if line.startswith("ops: ")]
    assert [line.startswith(expected) for line in lines] == ([True] if expected else [])
