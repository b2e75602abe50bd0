"""Which fields of a protocol, and so which protocols, change which metric: measured, against what the registry says."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import pytest
import torch
from torch.nn.functional import interpolate

from fastcam import CAM, ops
from fastcam.metrics import METRICS, PROTOCOLS, Evaluation, Protocol
from fastcam.metrics.registry import find
from tests import small

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (24, 32)
COUNT = 24
QUICK = {"sensitivity_samples": 2, "randomization_steps": 2, "tolerance": 2.0, "steps": 8}
# Other values for each field, with what must be set besides for it to have a say.
OTHER = {
    "score": [{"score": "logit"}],
    "classes": [{"classes": "target"}],
    "masking": [{"masking": "before"}],
    "upsample": [{"upsample": "bicubic"}, {"upsample": "pillow"}],
    "rescale": [{"rescale": False}, {"rescale": False, "thresholds": 7}],
    "grid": [{"grid": "layer"}, {"grid": "layer", "patch": 8}],
    "drop": [{"drop": "absolute"}, {"drop": "guarded"}],
    "adcc": [{"adcc": "images"}],
    "steps": [{"steps": 5}],
    "patch": [{"patch": 8}],
    "auc": [{"auc": "points"}, {"auc": "fractions", "steps": 5}],
    "insertion_first": [{"insertion_first": "one"}],
    "insertion_start": [{"insertion_start": "zero"}, {"insertion_start": "mean"}, {"insertion_start": "black"}],
    "deletion_end": [{"deletion_end": "blur"}, {"deletion_end": "mean"}, {"deletion_end": "black"}],
    "road_percentiles": [{"road_percentiles": (0.3, 0.6)}],
    "road_noise": [{"road_noise": 0.3}],
    "threshold": [{"threshold": 0.5}, {"threshold": 0.8}],
    "connectivity": [{"connectivity": 4}],
    "thresholds": [{"thresholds": 7}],
    "ious": [{"ious": (0.4,)}],
    "quantize": [{"quantize": True}],
    "plus_one": [{"plus_one": True}],
    "edges": [{"edges": "inclusive"}],
    "tolerance": [{"tolerance": 0.0}],
    "by_class": [{"by_class": False}],
    "sensitivity_radius": [{"sensitivity_radius": 0.3}],
    "sensitivity_samples": [{"sensitivity_samples": 4}],
    "randomization_steps": [{"randomization_steps": 3}],
    "similarity": [{"similarity": "ssim"}],
    "resize": [{"resize": "warp"}, {"resize": "warp-crop"}],
}
BLACK = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
# Two pixels whose values differ by rounding change places: of 48 curves three move, the most by 2.6e-3.
ORDER = 5e-3
RANKED = ("deletion", "insertion", "road", "randomization")
# Scaling these maps again moves thresholds by less than a hundredth: their boxes may move, and no hit come or go.
HITS = {"localization_accuracy", "max_box_acc", "max_box_acc_v2"}


def pictures():
    generator = torch.Generator().manual_seed(3)
    coarse, fine = (torch.rand(COUNT, 3, *size, generator=generator) for size in ((4, 5), SIZE))
    return (interpolate(coarse, SIZE, mode="bilinear") + 0.15 * fine - 0.5) * 4


@cache
def model():
    """The small network, unsure of nothing and of no two pictures alike."""
    net = small.network()
    with torch.no_grad():
        net[3].weight *= 30
    return net


@cache
def truth():
    """Labels, half of them the predicted ones, boxes and masks."""
    with torch.no_grad():
        labels = model()(pictures()).argmax(1)
    labels[::2] = (labels[::2] + 1) % 5
    maps = CAM(model(), "gradcam")(pictures(), target=labels)
    found = ops.component_boxes(maps, torch.tensor([0.2]))[0][:, 0].float()
    found[:, 2:] += 1
    # IoU on both sides of 0.5, so near to it and to one another that a small change makes or loses a hit; edges
    # between pixels, and within them.
    found[:, 2] = found[:, 0] + (found[:, 2] - found[:, 0]) * torch.linspace(0.45, 0.55, COUNT)
    found[::4] = found[::4].round()
    masks = torch.zeros(COUNT, *SIZE, dtype=torch.bool)
    masks[:, 4:16, 6:20] = True
    return {"target": labels, "boxes": list(found[:, None]), "masks": masks}


@cache
def numbers(protocol="paper", options=(), corner=False):
    """Each metric's values of every method: of each image, and of all."""
    cams = {name: CAM(model(), name, batch_size=8) for name in ("gradcam", "reciprocam")}
    chosen = QUICK | dict(options)
    found = values(Evaluation(cams, "all", protocol=protocol, options=chosen, num_classes=5, **BLACK))
    if not corner:
        return found
    local = [info.name for info in METRICS.values() if info.localizes]
    lines = values(Evaluation({"lines": diagonals}, local, score=model(), options=chosen, num_classes=5))
    return {name: torch.cat([one, lines[name]]) if name in local else one for name, one in found.items()}


def values(evaluation):
    rows, table = evaluation.update(pictures(), **truth()), evaluation.compute()
    return {
        name: torch.tensor([[*row[name].tolist(), table[method][name]] for method, row in rows.items() if name in row])
        for name in METRICS
    }


def diagonals(images, target):
    """Pixels that meet at corners alone, as no smooth map has them, from corner to corner of each box."""
    maps = torch.zeros(len(images), *SIZE)
    for one, (x0, y0, x1, y1) in zip(maps, torch.cat(truth()["boxes"]).round().int().tolist(), strict=True):
        side = min(x1 - x0, y1 - y0)
        for n in range(max(x1 - x0, y1 - y0)):
            one[min(y0 + n % (2 * side), SIZE[0] - 1), min(x0 + n, SIZE[1] - 1)] = 1
    return maps


def changed(found):
    """The metrics with other numbers than the paper's."""
    base = {name: one[: len(found[name])] for name, one in numbers().items()}
    limit = {name: ORDER if name in RANKED else 1e-6 for name in METRICS}
    return {name for name in METRICS if (found[name] - base[name]).nan_to_num(0).abs().max() > limit[name]}


def test_the_fields_are_all_there():
    names = {one.name for one in fields(Protocol)} - {"name", "source"}
    assert set(OTHER) == names
    assert {field for info in METRICS.values() for field in info.reads} == names - {"resize"}


@pytest.mark.parametrize("field", OTHER)
def test_a_field_changes_what_reads_it(field):
    readers = {name for name, info in METRICS.items() if field in info.reads}
    seen = set()
    for other in OTHER[field]:
        besides = {key: value for key, value in other.items() if key != field}
        corner = field == "connectivity"
        found, base = (numbers(options=tuple(one.items()), corner=corner) for one in (other, besides))
        for name in METRICS:
            limit = ORDER if name in RANKED and field == "rescale" else 1e-6
            if (found[name] - base[name]).nan_to_num(0).abs().max() > limit:
                seen.add(name)
    assert seen <= readers
    assert readers - seen <= (HITS if field == "rescale" else set())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_changes_what_it_is_listed_for(protocol):
    """For patches of 8 pixels where the protocol has larger ones: the pictures are small."""
    options = (("patch", 8),) if PROTOCOLS[protocol].patch else ()
    listed = {name for name, info in METRICS.items() if protocol in info.protocols}
    seen = changed(numbers(protocol, options))
    if protocol == "paper":
        assert (listed, seen) == (set(METRICS), set())
    else:
        assert seen <= listed
        assert listed - seen <= (HITS if protocol in ("adcc", "torchcam") else set())


def test_cheap_metrics_share_one_forward_under_the_map():
    cheap = {info.name for info in find("cheap")}
    assert {"adcc", "coherency", "average_drop", "win_rate", "box_iou", "pxap"} < cheap
    assert not cheap & {"deletion", "insertion", "road", "average_drop_in_deletion", "max_sensitivity", "randomization"}
    assert [info.name for info in find(["road", "Cheap"])] == [name for name in METRICS if name in {*cheap, "road"}]
    model_ = model()
    for name in sorted(cheap):
        cams = {one: CAM(model_, one) for one in ("gradcam", "reciprocam")}
        cams["gradcam"](pictures()[:1])  # learns the network, which takes forwards of its own
        evaluation = Evaluation(cams, [name])
        evaluation.update(pictures(), **truth())
        cost = evaluation.costs()
        assert cost[name]["forwards"] <= 2 + 1e-9, name  # of two methods, one each
    evaluation = Evaluation(CAM(model_, "gradcam"), "cheap")
    evaluation.update(pictures(), **truth())
    assert evaluation.costs()["total"]["forwards"] == 2  # f(x), and one under the map for all of them
    with pytest.raises(ValueError, match="nearest: cheap"):
        find("cheep")
