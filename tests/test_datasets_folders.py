"""Class folders, annotations.json and COCO: their forms, and what is damaged in them."""

from __future__ import annotations

import json

import pytest
from torchvision.datasets import ImageFolder

from fastcam.datasets import open_dataset
from tests.datasets_on_disk import CLASSES, annotations, coco, coco_document, imagefolder, painted, write, write_json

PICTURE = painted()[0].png


def listed(root, *entries):
    """An annotations.json of a.png, each entry with other facts about it."""
    write(root / "a.png", PICTURE)
    return open_dataset(write_json(root / "annotations.json", {"images": list(entries)}))


def entry(**facts):
    return {"file": "a.png", "height": 20, "width": 30, "class_ids": [3], **facts}


# Class folders


def test_class_folders_are_numbered_as_torchvision_does(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "b/deep/er/3.png", "b/deep/0.png", "10/a.png", "9/a.png", ".hidden/a.png"):
        write(tmp_path / name, PICTURE)
    data = open_dataset(tmp_path)
    expected = ImageFolder(tmp_path, is_valid_file=lambda path: ".hidden" not in path, allow_empty=True)
    known = [(str(tmp_path / sample.key), sample.label) for sample in data]
    classes = [name for name in expected.classes if name != ".hidden"]
    assert data.classes == classes
    assert known == [(path, classes.index(expected.classes[label])) for path, label in expected.samples]


def test_files_that_are_no_pictures_and_empty_folders_are_noted(tmp_path):
    imagefolder(tmp_path)
    write(tmp_path / CLASSES[0] / "readme.txt", "x")
    (tmp_path / "a_class").mkdir()
    data = open_dataset(tmp_path)
    assert data.classes == ["a_class", *CLASSES]
    assert data.samples[0].label == 1
    assert f"files that are no pictures by their names: 1, such as '{CLASSES[0]}/readme.txt'" in data.notes
    assert "class folders without pictures: 1" in data.notes


def test_folders_named_by_synsets(tmp_path):
    data = open_dataset(imagefolder(tmp_path))
    assert "2 WordNet ids are numbered 0 to 1 in sorted order" in data.notes[0]
    data = open_dataset(tmp_path, class_index="imagenet")
    assert {sample.label for sample in data} == {0, 1}  # the first two of ImageNet-1k
    assert data.notes == []
    data = open_dataset(tmp_path, class_index={CLASSES[1]: 999})
    assert {sample.label for sample in data} == {999}
    assert [(problem.lost, problem.reason) for problem in data.problems] == [
        ("class", f"class '{CLASSES[0]}' is not in class_index ({CLASSES[1]}); its 3 pictures are left out")
    ]


def test_folders_named_by_numbers(tmp_path):
    for name in ("2", "10"):
        write(tmp_path / name / "a.png", PICTURE)
    data = open_dataset(tmp_path)
    assert [(sample.key, sample.label) for sample in data] == [("10/a.png", 0), ("2/a.png", 1)]
    assert "folder '2' is class 1; give class_index='number'" in data.notes[0]
    data = open_dataset(tmp_path, class_index="number")
    assert [sample.label for sample in data] == [10, 2]


# annotations.json


@pytest.mark.parametrize(
    ("facts", "lost", "reason"),
    [
        ({"class_ids": [-1]}, "sample", "label -1 is outside the classes; expected 0 or above"),
        ({"class_ids": ["cat"]}, "sample", "give class_index"),
        ({"class_ids": [None]}, "sample", "label None"),
        ({"class_ids": None}, "label", "kept without a class"),
        ({"boxes": [[5, 5, 2, 9]]}, "box", "box [5, 5, 2, 9] ends before it begins"),
        ({"boxes": [[5, 5, 5, 9]]}, "box", "is empty"),
        ({"boxes": [[30, 0, 40, 9]]}, "box", "lies outside the picture of 20 x 30 pixels"),
        ({"boxes": [[-9, 0, -1, 9]]}, "box", "lies outside the picture"),
        ({"boxes": [[0, 0, float("nan"), 9]]}, "box", "holds what is no finite number"),
        ({"boxes": [[0, 0, "4", 9]]}, "box", "holds what is no finite number"),
        ({"boxes": [[0, 0, 4]]}, "box", "has not four numbers"),
        ({"boxes": [7]}, "box", "has not four numbers"),
        ({"file": "none.png"}, "sample", "no such picture"),
        ({"file": 5}, "sample", "names no file"),
        ({"file": "a.png"}, "sample", "'a.png' is listed twice"),
        ({"targets": [7]}, "sample", "target 7; expected {'class_id': number}"),
        ({"objects": [7]}, "box", "object 0 is 7"),
        ({"objects": [{"class_ids": ["cat"], "box": [0, 0, 1, 1]}]}, "box", "object 0: class 'cat'"),
        ({"objects": [{"box": [0, 0, 1, 1], "polygons": [[1, 2, 3, 4]]}]}, "outline", "at least three points"),
        ({"objects": [{"box": [0, 0, 1, 1], "polygons": [[1, 2, 3, 4, 5, None]]}]}, "outline", "at least three"),
        ({"objects": [{"box": [0, 0, 1, 1], "polygons": {"counts": 3}}]}, "outline", "nor runs with a size"),
    ],
)
def test_damaged_entries_are_written_down(facts, lost, reason, tmp_path):
    write(tmp_path / "b.png", PICTURE)
    data = listed(tmp_path, entry(boxes=[]), {"file": "b.png", **entry(**{"file": "b.png", **facts})})
    (problem,) = data.problems
    assert problem.lost == lost
    assert reason in problem.reason
    assert problem.file
    assert [sample.key for sample in data] == (["a.png"] if lost == "sample" else ["a.png", "b.png"])
    assert data.samples[-1].boxes == (((0.0, 0.0, 1.0, 1.0),) if lost == "outline" else ())


def test_nothing_usable_says_why(tmp_path):
    with pytest.raises(ValueError, match=r"no usable sample .* \(1 problems, first .*a\.png: label -1"):
        listed(tmp_path, entry(class_ids=[-1]))
    with pytest.raises(ValueError, match="has no list of images"):
        open_dataset(write_json(tmp_path / "annotations.json", {"pictures": []}))


def test_boxes_may_reach_outside(tmp_path):
    assert listed(tmp_path, entry(boxes=[[-4, -4.5, 31, 20.5]])).samples[0].boxes == ((-4.0, -4.5, 31.0, 20.5),)


def test_objects_and_targets(tmp_path):
    square = [1, 1, 9, 1, 9, 9, 1, 9]
    objects = [
        {"category": "bowl", "class_ids": [659, 809], "box": [1, 1, 9, 9], "iscrowd": 0, "polygons": [square]},
        {"category": "person", "class_ids": [], "box": [2, 2, 8, 8], "iscrowd": 0},
        {"category": "broccoli", "class_ids": [937], "box": [0, 0, 5, 5], "iscrowd": 0},
        {"category": "broccoli", "class_ids": [937], "box": [0, 0, 30, 5], "iscrowd": 1},
    ]
    both = {"class_ids": None, "objects": objects}
    write(tmp_path / "b.png", PICTURE)
    write(tmp_path / "c.png", PICTURE)
    data = listed(
        tmp_path,
        entry(targets=[{"category": "bowl", "class_id": 809}, {"class_id": 937}], **both),
        entry(file="b.png", targets=[], **both),
        entry(file="c.png", **both),
    )
    assert data.problems == []
    assert data.notes == ["crowd regions, not used as boxes: 3"]
    first = data.samples[0]
    assert (first.label, first.labels) == (None, (659, 809, 937))
    assert first.boxes == ((1, 1, 9, 9), (2, 2, 8, 8), (0, 0, 5, 5))
    assert first.polygons == (tuple(square),)
    each = data.by_target()
    keys = ["a.png@809", "a.png@937", "c.png@659", "c.png@809", "c.png@937"]
    assert [sample.key for sample in each] == keys
    assert [sample.label for sample in each] == [809, 937, 659, 809, 937]
    assert each.samples[0].boxes == ((1, 1, 9, 9),)
    assert each.samples[0].polygons == (tuple(square),)
    assert each.samples[1].boxes == ((0, 0, 5, 5),)
    assert each.samples[1].polygons == ()
    assert each.notes[-1] == "pictures without a class to explain: 1"
    assert each.fingerprint != data.fingerprint
    renamed = open_dataset(tmp_path, class_index={"bowl": 4})
    assert [sample.labels for sample in renamed] == [(4,)] * 3


def test_one_class_keeps_its_own_objects(tmp_path):
    objects = [{"class_ids": [7], "box": [1, 1, 9, 9]}, {"class_ids": [], "box": [2, 2, 8, 8]}]
    (sample,) = listed(tmp_path, entry(class_ids=None, objects=objects))
    assert (sample.label, sample.boxes) == (7, ((1, 1, 9, 9),))


def test_pictures_of_another_size_than_annotated(tmp_path):
    (sample,) = listed(tmp_path, entry(height=40, boxes=[[0, 0, 4, 4]]))
    with pytest.raises(ValueError, match=r"a\.png' has 20 x 30 pixels, its boxes were made for 40 x 30"):
        sample.read()


# COCO


def changed(root, change):
    document = coco_document()
    change(document)
    coco(root)
    return open_dataset(write_json(root / "annotations" / "instances_val.json", document))


def test_categories_without_an_index_are_numbered_by_id(tmp_path):
    data = open_dataset(coco(tmp_path))
    assert data.classes == list(CLASSES)
    assert [(sample.label, sample.labels) for sample in data] == [(None, (i % 2,)) for i in range(5)]
    assert "numbered from 0 in order of their ids" in data.notes[0]


def test_categories_without_a_class(tmp_path):
    data = open_dataset(coco(tmp_path), class_index={CLASSES[1]: [5, 6]})
    assert [(sample.label, sample.labels) for sample in data] == [(None, (5, 6) if i % 2 else ()) for i in range(5)]
    assert data.notes == [f"1 categories have no class in class_index: {CLASSES[0]}"]
    assert len(data.by_target()) == 4
    by_id = open_dataset(tmp_path, class_index={"8": 4})
    assert [sample.label for sample in by_id] == [None, 4, None, 4, None]


def test_crowds_are_ignored_not_boxes(tmp_path):
    runs = {"counts": [10, 590], "size": [20, 30]}
    data = changed(tmp_path, lambda d: d["annotations"][0].update(iscrowd=1, segmentation=runs))
    assert "crowd regions, not used as boxes: 1" in data.notes
    assert data.problems == []
    sample = data.samples[0]
    assert (sample.boxes, sample.labels, sample.mask(20, 30)) == ((), (), None)
    ignored = sample.ignored(20, 30)
    assert ignored[10:, 0].all()
    assert ignored.sum() == 590


@pytest.mark.parametrize(
    ("change", "lost", "reason"),
    [
        (lambda d: d["annotations"][0].update(category_id=5), "box", "annotation 0 is of no image or category"),
        (lambda d: d["annotations"][0].update(bbox=[1, 1, -3, 4]), "box", "ends before it begins"),
        (lambda d: d["annotations"][0].update(bbox=None), "box", "has not four numbers"),
        (lambda d: d["annotations"][0].update(bbox=[1, 1, 0, 4]), "box", "{'annotation 0': [1, 1, 0, 4]} is empty"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2]]), "outline", "annotation 0: neither polygons"),
        (lambda d: d["images"][0].update(file_name="none.png"), "sample", "no such picture"),
        (lambda d: d["images"][0].pop("file_name"), "sample", "image 0 has no file_name"),
    ],
)
def test_damaged_coco(change, lost, reason, tmp_path):
    data = changed(tmp_path, change)
    (problem,) = data.problems
    assert problem.lost == lost
    assert reason in problem.reason
    assert len(data) == (4 if lost == "sample" else 5)


def test_coco_elsewhere(tmp_path):
    coco(tmp_path)
    (tmp_path / "val").rename(tmp_path / "pictures")
    with pytest.raises(ValueError, match=r"no pictures of .*give `images`, their folder"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, images=tmp_path / "pictures")) == 5
    write(tmp_path / "annotations/instances_train.json", json.dumps(coco_document()))
    with pytest.raises(ValueError, match=r"instances_train\.json, instances_val\.json .*choose by split"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, split="val", images=tmp_path / "pictures")) == 5
    with pytest.raises(ValueError, match="no COCO split 'test'"):
        open_dataset(tmp_path, split="test")
    with pytest.raises(ValueError, match="is not COCO"):
        open_dataset(write_json(tmp_path / "x.json", {"images": []}), kind="coco")


def test_annotations_with_pictures_elsewhere(tmp_path):
    path = annotations(tmp_path / "a") / "annotations.json"
    path = path.rename(tmp_path / "annotations.json")
    assert len(open_dataset(path, images=tmp_path / "a")) == 5
