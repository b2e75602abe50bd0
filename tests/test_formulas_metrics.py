"""The formulas of the metrics against outside witnesses, and against answers worked out by hand.

The rows of `rows_metrics.py` say where a library computes the same and where not. Of a known difference the test
asks that it is there, and that the formula with that one change gives the library's value.
"""

from __future__ import annotations

import pytest
import torch

from tests import formulas_boxes as boxes
from tests import formulas_localization as localization
from tests import formulas_metrics as formulas
from tests.cases_known import CASES_METRICS, Known

for package in ("pytorch_grad_cam", "torchcam", "captum", "quantus", "cv2", "skimage", "sklearn", "torchmetrics"):
    pytest.importorskip(package)

from tests.peers_metrics import grad_cam, maps, quantus_metric  # noqa: E402 - it imports the packages asked for above
from tests.rows_metrics import AGREEMENTS, KNOWN_DIFFERENCES, Row  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

AGREE = 1e-6  # float32 of the peers, and torchcam's 1e-7 in a denominator
DIFFER = 1e-4


@pytest.mark.parametrize("case", CASES_METRICS, ids=str)
def test_known_answer(case: Known) -> None:
    module = next(m for m in (formulas, boxes, localization) if hasattr(m, case.function))
    got, want = getattr(module, case.function)(*case.args, **case.options), case.answer
    pairs = zip(got, want, strict=True) if isinstance(got, tuple) and isinstance(want, tuple) else [(got, want)]
    for pair in pairs:
        one, other = (torch.as_tensor(value).double() for value in pair)
        torch.testing.assert_close(one, other, rtol=0, atol=AGREE, equal_nan=True)


@pytest.mark.parametrize("row", AGREEMENTS, ids=str)
def test_agreement(row: Row) -> None:
    torch.testing.assert_close(row.ours().double(), row.theirs().double(), rtol=0, atol=AGREE)


@pytest.mark.parametrize("row", KNOWN_DIFFERENCES, ids=str)
def test_known_difference(row: Row) -> None:
    ours, theirs = row.ours().double(), row.theirs().double()
    assert ours.shape == theirs.shape
    assert not torch.allclose(ours, theirs, rtol=0, atol=DIFFER), f"{row.who} no longer differs: {row.reason}"
    if row.corrected is not None:
        torch.testing.assert_close(row.corrected().double(), theirs, rtol=0, atol=AGREE, equal_nan=True)


def test_what_quantus_cannot_do() -> None:
    with pytest.raises(IndexError):  # pixels of three channels index a mask of one
        quantus_metric("ROAD", maps(), 3, percentages=[20])
    with pytest.raises(AttributeError, match="trapz"):  # NumPy 2.4 has no trapz
        quantus_metric("PixelFlipping", maps(), features_in_step=28, return_auc_per_sample=True)


def test_roads_noise_is_drawn_without_a_seed() -> None:
    first, second = (grad_cam("ROADMostRelevantFirst", maps(), 50) for _ in range(2))
    assert (first - second).abs().max() > AGREE


# ReciproCAM (CVPR Workshops 2024), table 1, ImageNet: drop, coherency, complexity and the ADCC printed beside them.
PUBLISHED = [
    (66.42, 69.20, 15.65, 53.52), (32.88, 89.34, 26.33, 75.65), (36.72, 82.68, 28.09, 71.72),
    (26.13, 93.83, 20.27, 81.66), (21.51, 92.24, 27.48, 80.27), (32.99, 82.80, 22.24, 75.27),
    (8.61, 98.12, 42.05, 78.14), (15.69, 96.68, 32.90, 80.84), (12.03, 97.50, 35.62, 80.74),
]  # fmt: skip


@pytest.mark.parametrize("row", PUBLISHED, ids=str)
def test_published_adcc_is_the_harmonic_mean_of_the_means(row: tuple[float, ...]) -> None:
    drop, coherency, complexity, printed = (value / 100 for value in row)
    spread = torch.tensor([-0.01, 0.01], dtype=torch.float64)  # two images around each mean
    means = [spread + value for value in (drop, coherency, complexity)]
    assert formulas.adcc_of_means(*means) == pytest.approx(printed, abs=5e-4)  # the parts are rounded to 1e-4
    each = formulas.adcc(torch.tensor([0.0, 1]), torch.tensor([1.0, 1]), torch.tensor([0.0, 0])).mean().item()
    assert each != formulas.adcc_of_means(torch.tensor([0.0, 1]), torch.tensor([1.0, 1]), torch.tensor([0.0, 0]))


def test_masks_before_normalization_leave_black_and_after_it_the_mean_color() -> None:
    mean, std = [0.5, 0.25, 0.125], [0.25, 0.5, 0.125]
    color, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    pixels, m = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(2)), maps()[0, :4, :5]
    m = torch.where(m < 0.3, 0.0, m)
    normalized = (pixels - color) / spread
    after = formulas.masked(normalized, m)
    before = formulas.masked(normalized, m, mean, std)
    torch.testing.assert_close(before, (pixels * m - color) / spread, rtol=0, atol=1e-6)
    torch.testing.assert_close(after * spread + color, (pixels - color) * m + color, rtol=0, atol=1e-6)
    assert (m == 0).any()
    assert ((before * spread + color)[:, m == 0].abs() < 1e-7).all()
    assert ((after * spread + color)[:, m == 0] == color[:, :, 0]).all()


def test_drop_protocol_explains_the_predicted_class_unless_told() -> None:
    """Two classes: the sum of the image and its negative; of the inverse mask the score is the rest."""
    image, m = torch.tensor([[[[3.0, 1.0]]], [[[-3.0, -1.0]]]]), torch.tensor([[[1.0, 0.0]], [[0.5, 0.0]]])
    score = lambda x: [float(x.sum()), -float(x.sum())]  # noqa: E731
    got = formulas.drop_protocol(score, image, m)
    assert got["before"].tolist() == [4, 4]
    assert got["after"].tolist() == [3, 1.5]
    assert got["after_inverse"].tolist() == [1, 2.5]
    assert got["average_drop"].tolist() == [0.25, 0.625]
    assert got["average_drop_in_deletion"].tolist() == [0.75, 0.375]
    assert formulas.drop_protocol(score, image, m, [0, 0])["before"].tolist() == [4, -4]
