"""Where objects are said to be and pictures to lie: masks without boxes, and pictures far from their annotations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fastcam.datasets import open_dataset
from fastcam.metrics import METRICS, Evaluation
from tests import formulas_localization as formulas
from tests.cli_calls import fails, place, run, tiny  # noqa: F401
from tests.datasets_on_disk import coco, imagefolder, write_json, wsol
from tests.evaluate_calls import COUNT, QUICK, TINY, evaluate, make_data

pytestmark = pytest.mark.usefixtures("one_thread")

EITHER = ["energy_pointing_game", "pointing_game"]


def test_points_and_energy_take_boxes_or_masks():
    assert [name for name, info in METRICS.items() if "boxes or masks" in info.needs] == EITHER
    maps = torch.rand(3, 12, 14, generator=torch.Generator().manual_seed(3))
    masks = torch.zeros(3, 12, 14, dtype=torch.bool)
    masks[:2, 3:8, 2:9] = True
    score = lambda images: images.mean((2, 3))  # noqa: E731 - a class a channel
    evaluation = Evaluation({"m": lambda images, target: maps}, [*EITHER, "box_iou"], score=score)
    found = evaluation.update(torch.rand(3, 3, 12, 14), target=torch.zeros(3).long(), masks=masks)["m"]
    inside = (maps * masks).sum((1, 2)) / maps.sum((1, 2))
    torch.testing.assert_close(found["energy_pointing_game"][:2].float(), inside[:2])
    assert torch.equal(found["pointing_game"][:2], formulas.pointing_game(maps, None, 15, masks=masks)[:2])
    assert all(found[name].isnan().tolist() == [False, False, True] for name in EITHER)
    assert found["box_iou"].isnan().all()
    assert evaluation.counts() == {
        name: {"energy_pointing_game": 2, "pointing_game": 2, "box_iou": 0} for name in ("m", "center")
    }
    nothing = Evaluation({"m": lambda images, target: maps}, EITHER, score=score)
    found = nothing.update(torch.rand(3, 3, 12, 14), target=torch.zeros(3).long())["m"]
    assert all(found[name].isnan().all() for name in EITHER)


def test_the_command_measures_masks_without_boxes():
    square = [6, 4, 30, 4, 30, 36, 6, 36]
    make_data(**{f"n{n}": {"boxes": None, "objects": [{"polygons": [square]}]} for n in range(COUNT)})
    document = json.loads(Path("data/annotations.json").read_text())
    for entry in document["images"]:
        entry["objects"][0] |= {"class_ids": entry["class_ids"], "box": None}
    write_json(Path("data/annotations.json"), document)
    results, _ = evaluate("data", "--out", "o", metrics=",".join(EITHER))
    assert [results["values"]["gradcam"][name] for name in EITHER] == [COUNT, COUNT]
    assert all(0 < results["table"]["center"][name] <= 1 for name in EITHER)
    assert set(evaluate("data", "--out", "p", metrics="*pointing*,*box*")[0]["metrics"]) == set(EITHER)
    line = fails("evaluate", "data", *TINY, *QUICK, "--metrics", "box_iou", "--out", "q")
    assert "box_iou needs boxes" in line
    for entry in document["images"]:
        del entry["objects"]
    write_json(Path("data/annotations.json"), document)
    line = fails("evaluate", "data", *TINY, *QUICK, "--metrics", "pointing_game", "--out", "r")
    assert "pointing_game needs boxes or masks" in line


@pytest.mark.parametrize("build", [coco, wsol])
def test_pictures_that_lie_elsewhere(build):
    built = build(Path("data").absolute())
    pictures = Path("data/val" if build is coco else "data/dataset/PAINTED")
    pictures.rename("pictures")
    asked = ("evaluate", built, *TINY, *QUICK, "--metrics", "box_iou")
    assert "give --images, their folder" in fails(*asked)
    assert "--images is 'nowhere'; expected the folder" in fails(*asked, "--images", "nowhere")
    found = json.loads(run(*asked, "--images", "pictures", "--json").stdout)
    assert found["counts"]["evaluated"] == len(open_dataset(built, images="pictures").by_target())
    assert {one["lost"] for one in found["problems"]} == {"box"}  # those that the crop cuts away


def test_pictures_that_cannot_lie_elsewhere(tmp_path):
    with pytest.raises(ValueError, match="but imagefolder holds its own pictures; leave it out"):
        open_dataset(imagefolder(tmp_path / "a"), images=tmp_path)
