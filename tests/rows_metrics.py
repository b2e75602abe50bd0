"""What the formulas of the metrics and what libraries give for the same maps, row by row.

`AGREEMENTS` lists where a library computes the same; `KNOWN_DIFFERENCES` where it does not, with the reason, and
the formula with that one change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from skimage.metrics import structural_similarity
from sklearn.metrics import average_precision_score
from torch import Tensor
from torchmetrics.functional import image as torchmetrics
from torchvision.ops import box_iou

from tests import formulas_boxes as boxes
from tests import formulas_localization as localization
from tests import formulas_metrics as formulas
from tests import formulas_perturb as perturb
from tests import peers_metrics as peers
from tests.formulas_metrics import values
from tests.peers_metrics import TARGETS, grad_cam, maps, masks, pictures, quantus_metric, score, scores

NONE = torch.zeros(3, *peers.SIZE)
PERCENTS = [20, 40, 60, 80]
OUTSIDE = maps() - masks().double()
STEPS = peers.level(maps(), 64).clamp(max=63 / 64)
CONSTANT = torch.full_like(maps(), 0.1)
NOISY = torch.stack([maps(11), maps(12), maps(13)])
HALF_ZERO = (maps() - 0.5).clamp(min=0)
ONE_ZERO = maps() * torch.tensor([1.0, 0.0])[:, None, None]
ONE_EMPTY = masks() & torch.tensor([True, False])[:, None, None]
TWO_PEAKS = maps().masked_fill(torch.zeros(2, *peers.SIZE).index_fill(1, torch.tensor([0, 6]), 1) > 0, 1.0)


def each(function: Callable[..., float], a: Tensor, b: Tensor) -> Tensor:
    return torch.tensor([float(function(p.numpy(), q.numpy())) for p, q in zip(a, b, strict=True)])


def drop(name: str, softmax: bool = True) -> Tensor:
    """One value of the drop protocol for each image."""
    return formulas.drop_protocol(lambda image: scores(image, softmax=softmax), pictures(), maps(), TARGETS)[name]


def absolute_drop(softmax: bool = True) -> Tensor:
    return formulas.column([max(0.0, value) for value in values(drop("before", softmax) - drop("after", softmax))])


def summary(name: str, key: str, logits: bool = False) -> Tensor:
    return torch.tensor(peers.torchcam_summary(name, maps(), logits=logits)[key])


def column(function: Callable[[int], object]) -> Tensor:
    """One value, or one curve, for each of the two images."""
    return torch.tensor([function(n) for n in range(2)], dtype=torch.float64)


def deleted(step: int, channels: int = 3) -> Tensor:
    x = pictures(channels)
    return column(lambda n: perturb.deletion(score(n, channels), x[n], values(maps()[n]), step))


def inserted(step: int) -> Tensor:
    return column(lambda n: perturb.insertion(score(n), pictures()[n], values(maps()[n]), step))


def mean(x: Tensor) -> Tensor:
    return x.mean()


def torchcam_area(which: int) -> Tensor:
    def area(n: int) -> float:
        curves = perturb.torchcam_curves(score(n), pictures()[n], values(maps()[n]))
        return perturb.trapezoid(curves[0], curves[which])

    return column(area).mean()


def road_combined(selected: Callable[..., list[list[bool]]], shares: list) -> Tensor:
    most, least = (peers.our_road(selected, order, shares) for order in ("morf", "lerf"))
    return column(lambda n: perturb.road_combined(most[n], least[n]))


def quiet(name: str, answer: Tensor, *args: object) -> Tensor:
    with peers.silent_noise():
        return grad_cam(name, answer, *args)


def quantus(name: str, answer: Tensor, channels: int = 3, **options: object) -> Tensor:
    return torch.tensor(np.array(quantus_metric(name, answer, channels, normalise=False, **options))).double()


def segmented(name: str, answer: Tensor, objects: Tensor) -> Tensor:
    return quantus(name, answer, s_batch=objects[:, None].numpy())


def inside(answer: Tensor, objects: Tensor) -> Tensor:
    """Energy in a mask, through one box for each of its pixels."""
    pixels = [[[x, y, x + 1, y + 1] for y, x in one.nonzero().tolist()] for one in objects]
    most = max(map(len, pixels))
    padded = [own + [[math.nan] * 4] * (most - len(own)) for own in pixels]
    return localization.energy_pointing_game(answer, torch.tensor(padded))


def precision(answer: Tensor, objects: Tensor) -> Tensor:
    return torch.tensor(average_precision_score(objects.flatten().numpy(), answer.flatten().numpy()))


def similarity(**options: object) -> Tensor:
    return each(lambda p, q: structural_similarity(p, q, **options), maps(), maps(11))


class Row(NamedTuple):
    metric: str
    who: str
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    reason: str = ""
    corrected: Callable[[], Tensor] | None = None

    def __str__(self) -> str:
        return f"{self.metric}-{self.who}".replace(" ", "_")


WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}

AGREEMENTS = [
    Row("average_drop", "torchcam", lambda: mean(drop("average_drop")),
        lambda: summary("ClassificationMetric", "avg_drop")),
    Row("increase_in_confidence", "torchcam", lambda: mean(drop("increase_in_confidence")),
        lambda: summary("ClassificationMetric", "conf_increase")),
    Row("increase_in_confidence", "pytorch-grad-cam", lambda: drop("increase_in_confidence"),
        lambda: grad_cam("IncreaseInConfidence", maps())),
    Row("after - before", "pytorch-grad-cam", lambda: drop("after") - drop("before"),
        lambda: grad_cam("CamMultImageConfidenceChange", maps())),
    Row("pearson", "scipy", lambda: formulas.pearson(maps(), maps(11)),
        lambda: each(lambda p, q: stats.pearsonr(p.ravel(), q.ravel())[0], maps(), maps(11))),
    Row("spearman", "scipy", lambda: formulas.spearman(maps(), maps(11)),
        lambda: each(lambda p, q: stats.spearmanr(p.ravel(), q.ravel())[0], maps(), maps(11))),
    Row("spearman", "scipy, ties", lambda: formulas.spearman(HALF_ZERO, maps(11).round(decimals=1)),
        lambda: each(lambda p, q: stats.spearmanr(p.ravel(), q.ravel())[0], HALF_ZERO, maps(11).round(decimals=1))),
    Row("ssim", "scikit-image", lambda: formulas.ssim(maps(), maps(11)), lambda: similarity(**WANG)),
    Row("coherency", "pytorch-grad-cam", lambda: formulas.coherency(maps(), maps(11)),
        lambda: peers.grad_cam_coherency(maps(), maps(11))),
    Row("complexity", "pytorch-grad-cam", lambda: formulas.complexity(maps()),
        lambda: torch.from_numpy(peers.arcc.Complexity()(maps().numpy()))),
    Row("sparseness", "Quantus", lambda: formulas.sparseness(maps()), lambda: quantus("Sparseness", maps())),
    Row("max_sensitivity", "captum", lambda: formulas.max_sensitivity(maps(), NOISY),
        lambda: peers.captum_sensitivity(maps(), NOISY)),
    Row("max_sensitivity", "Quantus", lambda: formulas.max_sensitivity(maps(), NOISY),
        lambda: peers.quantus_sensitivity(maps(), NOISY)),
    Row("energy_pointing_game", "Quantus", lambda: inside(maps(), masks()),
        lambda: segmented("RelevanceMassAccuracy", maps(), masks())),
    Row("pointing_game", "Quantus", lambda: localization.pointing_game(maps() + masks(), masks=masks()),
        lambda: segmented("PointingGame", maps() + masks(), masks())),
    Row("pointing_game", "Quantus, missed", lambda: localization.pointing_game(OUTSIDE, masks=masks()),
        lambda: segmented("PointingGame", OUTSIDE, masks())),
    Row("deletion", "torchcam", lambda: torchcam_area(1),
        lambda: summary("DeletionInsertionMetric", "deletion_auc")),
    Row("insertion", "torchcam", lambda: torchcam_area(2),
        lambda: summary("DeletionInsertionMetric", "insertion_auc")),
    Row("road", "pytorch-grad-cam", lambda: road_combined(perturb.removed_by_percentile, PERCENTS),
        lambda: quiet("ROADCombined", maps(), PERCENTS)),
    Row("pxap", "scikit-learn", lambda: torch.tensor(localization.pxap(maps(), masks(), levels=50)),
        lambda: precision(peers.level(maps(), 50).clamp(max=0.98), masks())),
]  # fmt: skip


KNOWN_DIFFERENCES = [
    Row("average_drop", "torchcam", lambda: mean(drop("average_drop")),
        lambda: summary("ClassificationMetric", "avg_drop", logits=True),
        "logits unless `logits_fn` is a softmax",
        lambda: mean(absolute_drop(False) / (drop("before", False) + 1e-7))),
    Row("average_drop", "pytorch-grad-cam", lambda: drop("average_drop"),
        lambda: grad_cam("DropInConfidence", maps()), "not divided by the score before",
        absolute_drop),
    Row("coherency", "pytorch-grad-cam", lambda: formulas.coherency(CONSTANT, maps()),
        lambda: peers.grad_cam_coherency(CONSTANT, maps()),
        "1e-8 under the covariance makes a constant map uncorrelated, so 1/2",
        lambda: torch.tensor([0.5, 0.5])),
    Row("complexity", "Quantus", lambda: formulas.complexity(maps()), lambda: quantus("Complexity", maps()),
        "the entropy of the map, another thing under this name",
        lambda: each(lambda p, q: stats.entropy(p.ravel()), maps(), maps())),
    Row("sparseness", "Quantus", lambda: formulas.sparseness(1e-6 * maps()),
        lambda: quantus("Sparseness", 1e-6 * maps()), "1e-7 is added to each value",
        lambda: formulas.sparseness(1e-6 * maps() + 1e-7)),
    Row("max_sensitivity", "captum", lambda: formulas.max_sensitivity(ONE_ZERO, NOISY),
        lambda: peers.captum_sensitivity(ONE_ZERO, NOISY), "a zero map is divided by 1",
        lambda: torch.stack([formulas.max_sensitivity(ONE_ZERO, NOISY)[0], NOISY[:, 1].norm(dim=(1, 2)).max()])),
    Row("max_sensitivity", "Quantus", lambda: formulas.max_sensitivity(ONE_ZERO, NOISY),
        lambda: peers.quantus_sensitivity(ONE_ZERO, NOISY), "a zero map is divided by 0",
        lambda: torch.stack([formulas.max_sensitivity(ONE_ZERO, NOISY)[0], torch.tensor(math.inf)])),
    Row("energy_pointing_game", "Quantus", lambda: inside(maps(), ONE_EMPTY),
        lambda: segmented("RelevanceMassAccuracy", maps(), ONE_EMPTY), "NaN for an empty mask",
        lambda: torch.stack([inside(maps(), ONE_EMPTY)[0], torch.tensor(math.nan)])),
    Row("energy_pointing_game", "Quantus, zero map", lambda: inside(ONE_ZERO, masks()),
        lambda: segmented("RelevanceMassAccuracy", ONE_ZERO, masks()), "0 / 0 is NaN",
        lambda: torch.stack([inside(ONE_ZERO, masks())[0], torch.tensor(math.nan)])),
    Row("pointing_game", "Quantus", lambda: localization.pointing_game(TWO_PEAKS, masks=masks()),
        lambda: segmented("PointingGame", TWO_PEAKS, masks()), "any of several maxima may hit, not the first alone",
        lambda: (masks() & (TWO_PEAKS == 1)).any((1, 2))),
    Row("pointing_game", "Quantus, empty mask", lambda: localization.pointing_game(maps(), masks=ONE_EMPTY),
        lambda: segmented("PointingGame", maps(), ONE_EMPTY),
        "the NaN meant for an empty mask is put into an array of booleans, which makes it a hit",
        lambda: torch.tensor([0.0, 1.0])),
    Row("deletion", "Quantus PixelFlipping", lambda: deleted(28, 1)[:, :-1],
        lambda: quantus("PixelFlipping", maps(), 1, features_in_step=28, perturb_baseline=0.0, softmax=True),
        "the score of the whole image is not on the curve", lambda: deleted(28, 1)[:, 1:]),
    Row("deletion", "Quantus PixelFlipping, RGB", lambda: deleted(28)[:, 1:],
        lambda: quantus("PixelFlipping", maps(), features_in_step=28, perturb_baseline=0.0, softmax=True)[:, :9],
        "a step flips single channels of pixels, in the order an unstable sort leaves them"),
    Row("deletion", "torchcam", lambda: mean(formulas.auc(deleted(13))),
        lambda: summary("DeletionInsertionMetric", "deletion_auc"),
        "areas over the true fractions; the shorter last step is as long as the others in RISE's",
        lambda: torchcam_area(1)),
    Row("insertion", "torchcam",
        lambda: mean(formulas.auc(inserted(13))),
        lambda: summary("DeletionInsertionMetric", "insertion_auc"),
        "starts from zeros and not from the blurred image", lambda: torchcam_area(2)),
    Row("road", "pytorch-grad-cam",
        lambda: column(lambda n: peers.our_road(perturb.removed_by_rank, "morf", [0.2])[n][0]),
        lambda: quiet("ROADMostRelevantFirst", maps(), 80) + drop("before"),
        "keeps what is under the percentile: here 51 pixels are removed, not int(0.2 x 252) = 50",
        lambda: column(lambda n: peers.our_road(perturb.removed_by_percentile, "morf", [80])[n][0])),
    Row("road", "pytorch-grad-cam, ties",
        lambda: column(lambda n: perturb.road(score(n), pictures()[n],
                                              perturb.removed_by_rank(values(HALF_ZERO[n]), 0.7), NONE)),
        lambda: quiet("ROADMostRelevantFirst", HALF_ZERO, 30) + drop("before"),
        "no pixel is under a percentile that equals the minimum: all are removed and the system is singular",
        lambda: column(lambda n: score(n)(0 * pictures()[n]))),
    Row("road", "Quantus",
        lambda: column(lambda n: perturb.road(score(n, 1), pictures(1)[n],
                                              perturb.removed_by_rank(values(maps()[n]), 0.4), NONE[:1])).mean(),
        lambda: torch.tensor(quantus_metric("ROAD", maps(), 1, percentages=[40], noise=0.0, targets=[0, 0])[40]),
        "the share of images still classified as before, not a probability",
        lambda: column(lambda n: perturb.road(lambda x: float(formulas.first_largest(scores(x, 1)) == 0),
                                              pictures(1)[n], perturb.removed_by_rank(values(maps()[n]), 0.4),
                                              NONE[:1])).mean()),
    Row("ssim", "torchmetrics", lambda: formulas.ssim(maps(), maps(11)),
        lambda: torchmetrics.structural_similarity_index_measure(
            maps()[:, None], maps(11)[:, None], data_range=1.0, reduction="none"),
        "windows over the border count, on the reflected map",
        lambda: formulas.ssim(*(torch.nn.functional.pad(m[:, None], (5, 5, 5, 5), "reflect")[:, 0]
                                for m in (maps(), maps(11))))),
    Row("ssim", "scikit-image", lambda: formulas.ssim(maps(), maps(11)), lambda: similarity(data_range=1.0),
        "flat 7 x 7 windows and the sample covariance are its defaults"),
    Row("ssim", "Adebayo et al.", lambda: formulas.ssim(maps(), maps(11)),
        lambda: similarity(gaussian_weights=True, data_range=2.0),
        "the range of floats was [-1, 1] to scikit-image, and the covariance is the sample's"),
    Row("pxap", "scikit-learn", lambda: torch.tensor(localization.pxap(STEPS, masks(), levels=4)),
        lambda: precision(STEPS, masks()), "a threshold at every value and not at every level",
        lambda: torch.tensor(localization.pxap(STEPS, masks(), levels=64))),
    Row("box_iou", "torchvision", lambda: boxes.box_iou(torch.zeros(1, 4), torch.zeros(1, 4)),
        lambda: box_iou(torch.zeros(1, 4), torch.zeros(1, 4))[0], "two empty boxes are 0 / 0",
        lambda: torch.tensor([math.nan])),
]  # fmt: skip
