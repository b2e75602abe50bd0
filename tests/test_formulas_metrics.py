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
