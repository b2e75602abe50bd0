"""A picture that lacks what others have, and a box of which the model sees nothing: listed, counted, and strict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastcam.datasets import open_dataset
from tests.cli_calls import fails, place, run, tiny  # noqa: F401
from tests.datasets_on_disk import (
    BUILDERS,
    CLASSES,
    annotations,
    coco,
    coco_document,
    ilsvrc,
    painted,
    shard,
    write_json,
    wsol,
)
from tests.evaluate_calls import COUNT, QUICK, TINY, evaluate, make_data

pytestmark = pytest.mark.usefixtures("one_thread")


def annotations_without(root):
    document = json.loads((annotations(root) / "annotations.json").read_text())
    del document["images"][1]["boxes"]
    write_json(root / "annotations.json", document)
    return root


def coco_without(root):
    document = coco_document()
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] != 101]
    coco(root)
    write_json(root / "annotations/instances_val.json", document)
    return root


def ilsvrc_without(root):
    """Pictures in folders of their class, so that one without XML has a class still."""
    ilsvrc(root)
    for one in painted():
        folder = root / "ILSVRC/Data/CLS-LOC/val" / CLASSES[one.label]
        folder.mkdir(exist_ok=True)
        (root / "ILSVRC/Data/CLS-LOC/val" / f"{one.name}.png").rename(folder / f"{one.name}.png")
    (root / "ILSVRC/Annotations/CLS-LOC/val/p1.xml").unlink()
    return root


def wsol_without(root):
    metadata = wsol(root)
    lines = (metadata / "localization.txt").read_text().splitlines(keepends=True)
    (metadata / "localization.txt").write_text("".join(line for line in lines if "p1" not in line))
    return metadata


def webdataset_without(root):
    files = {}
    for one in painted():
        files[f"{one.name}.png"] = one.png
        entry = {"label": one.label} | ({} if one.name == "p1" else {"boxes": one.boxes})
        files[f"{one.name}.json"] = json.dumps(entry).encode()
    return shard(root / "val.tar", files)


def parquet_without(root):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    rows = [
        {
            "image": {"bytes": one.png, "path": None},
            "label": one.label,
            "boxes": None if one.name == "p1" else one.boxes,
        }
        for one in painted()
    ]
    write_table(pyarrow.Table.from_pylist(rows), root / "val.parquet")
    return root / "val.parquet"


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (annotations_without, "its entry has no boxes and no objects"),
        (coco_without, "no annotation of this picture"),
        (ilsvrc_without, "no XML of the same name"),
        (wsol_without, "no line in localization.txt"),
        (webdataset_without, "its entry has no boxes and no objects"),
        (parquet_without, "its entry has no boxes and no objects"),
    ],
)
def test_a_picture_without_what_others_have(build, reason, tmp_path):
    data = open_dataset(build(tmp_path))
    (problem,) = data.problems
    assert (problem.lost, problem.reason) == ("box", f"{reason}, which others have")
    assert len(data) == 5
    (without,) = [sample for sample in data if not sample.boxes]
    assert problem.file == without.source.name
    assert "p1" in without.key or without.key.endswith("/1")


def test_an_annotation_of_no_picture_leaves_one_without(tmp_path):
    document = coco_document()
    document["annotations"][0]["image_id"] = 5
    coco(tmp_path)
    write_json(tmp_path / "annotations/instances_val.json", document)
    assert [(one.lost, one.reason) for one in open_dataset(tmp_path).problems] == [
        ("box", "annotation 0 is of no image or category listed here"),
        ("box", "no annotation of this picture, which others have"),
    ]


def test_a_data_set_without_boxes_lacks_none(tmp_path):
    for name in ("annotations", "ilsvrc", "wsol"):
        root = BUILDERS[name](tmp_path / name)
        if name == "annotations":
            document = json.loads((root / "annotations.json").read_text())
            for entry in document["images"]:
                del entry["boxes"]
            write_json(root / "annotations.json", document)
        if name == "ilsvrc":
            continue  # without XML it is a folder of pictures
        if name == "wsol":
            (root / "localization.txt").write_text("")
        assert open_dataset(root).problems == []
    assert open_dataset(BUILDERS["imagefolder"](tmp_path / "f")).problems == []


def test_an_empty_list_of_boxes_says_that_there_are_none(tmp_path):
    document = json.loads((annotations(tmp_path) / "annotations.json").read_text())
    document["images"][1]["boxes"] = []
    write_json(tmp_path / "annotations.json", document)
    assert open_dataset(tmp_path).problems == []
    document["images"][1]["boxes"] = {"x": 3}
    write_json(tmp_path / "annotations.json", document)
    (problem,) = open_dataset(tmp_path).problems
    assert (problem.lost, problem.reason) == ("box", "boxes is {'x': 3}; expected a list")


def test_a_picture_with_nothing_to_explain_is_lost_and_listed(tmp_path):
    data = open_dataset(coco_without(tmp_path)).by_target()
    (problem,) = data.problems
    assert (problem.lost, Path(problem.file).name) == ("sample", "p1.png")
    assert problem.reason == "neither a class nor an object, so nothing to explain"
    assert {sample.key.partition("@")[0] for sample in data} == {"p0.png", "p2.png", "p3.png", "p4.png"}
    mapped = open_dataset(tmp_path, class_index={CLASSES[0]: [3, 4]}).by_target()
    assert [Path(one.file).name for one in mapped.problems] == ["p1.png"]
    assert "pictures without a class to explain: 1" in mapped.notes  # p3, whose class the model does not have


# The command


CUT = {"n3": {"boxes": [[6, 4, 30, 36], [0, 0, 3, 40]]}}  # of 44 columns the crop leaves 6 to 37


def test_a_box_that_the_crop_cuts_away():
    make_data(**CUT)
    results, stderr = evaluate("data", "--out", "o", metrics="box_iou")
    (problem,) = results["problems"]
    assert problem["lost"] == "box"
    assert problem["file"].endswith("3.png")
    assert problem["reason"] == "box (0, 0, 3, 40) is cut away by the crop; resize 'warp' keeps the whole picture"
    assert results["counts"]["evaluated"] == COUNT
    assert "cut away" in stderr
    kept = {path.name: path.stat().st_mtime_ns for path in Path("o/shards").glob("*.pt")}
    again, _ = evaluate("data", "--out", "o", metrics="box_iou")
    assert again["table"] == results["table"]
    assert kept == {path.name: path.stat().st_mtime_ns for path in Path("o/shards").glob("*.pt")}
    asked = ("evaluate", "data", *TINY, *QUICK, "--metrics", "box_iou", "--strict")
    assert "cut away" in run(*asked, "--out", "o", code=2).stderr  # in what an earlier run found
    assert "cut away" in run(*asked, "--out", "p", code=2).stderr
    assert evaluate("data", "--resize", "warp", "--out", "q", "--strict", metrics="box_iou")[0]["problems"] == []


def test_a_missing_annotation_stops_a_strict_run():
    make_data()
    document = json.loads(Path("data/annotations.json").read_text())
    del document["images"][4]["boxes"]
    write_json(Path("data/annotations.json"), document)
    line = fails("evaluate", "data", *TINY, *QUICK, "--metrics", "average_drop", "--strict")
    assert "4.png" in line
    assert "has no boxes and no objects" in line
    results, _ = evaluate("data", "--out", "o", metrics="average_drop,adcc,box_iou,pointing_game,max_box_acc")
    assert (results["counts"]["evaluated"], results["counts"]["problems"]) == (COUNT, 1)
    for row in (results["values"]["gradcam"], results["values"]["center"]):
        assert {name: row[name] for name in ("box_iou", "pointing_game", "max_box_acc")} == dict.fromkeys(
            ("box_iou", "pointing_game", "max_box_acc"), COUNT - 1
        )
    assert results["values"]["gradcam"]["average_drop"] == results["values"]["gradcam"]["adcc"] == COUNT
    text = Path("o/results.md").read_text().partition("## Pictures with a value")[2]
    header, _, line = [one for one in text.splitlines() if one.startswith("|")][:3]
    shown = dict(zip(*([cell.strip() for cell in one.strip("|").split("|")] for one in (header, line)), strict=True))
    assert (shown["method"], shown["average_drop"], shown["box_iou"]) == ("gradcam", str(COUNT), str(COUNT - 1))
