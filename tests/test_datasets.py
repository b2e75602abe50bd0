"""Data sets: the same five pictures in every format, which format lies where, keys, fingerprints, class numbers."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from fastcam.datasets import KINDS, open_dataset
from fastcam.datasets.labels import Labels, read_index, synsets
from tests.datasets_on_disk import (
    BUILDERS,
    CLASSES,
    annotations,
    coco,
    imagefolder,
    painted,
    shard,
    webdataset,
    write,
    write_json,
    wsol,
)

INDEX = {CLASSES[0]: 0, CLASSES[1]: 1}
INDEXED = {"coco", "ilsvrc"}  # kinds whose own numbering is another one


def opened(kind, root, **options):
    index = INDEX if kind in INDEXED else None
    return open_dataset(BUILDERS[kind](root), **{"class_index": index, **options})


def test_every_kind_is_built_here():
    assert set(BUILDERS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_same_content_in_every_format(kind, tmp_path):
    data = opened(kind, tmp_path)
    assert data.kind == kind
    assert data.problems == []
    pictures = {one.name: one for one in painted()}
    order = sorted(pictures, key=lambda name: (pictures[name].label, name)) if kind == "imagefolder" else list(pictures)
    assert len(data) == len(order)
    for name, sample in zip(order, data, strict=True):
        one = pictures[name]
        assert sample.label == one.label
        assert sample.labels == (one.label,)
        assert sample.boxes == (() if kind == "imagefolder" else one.boxes)
        assert np.array_equal(sample.read().numpy(), one.pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_opening_reads_no_picture(kind, tmp_path, monkeypatch):
    path = BUILDERS[kind](tmp_path)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("a picture was opened"))
    assert len(open_dataset(path)) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_samples_travel_and_keys_do_not_depend_on_the_place(kind, tmp_path):
    data = opened(kind, tmp_path / "a")
    moved = opened(kind, tmp_path / "some" / "where")
    keys = [sample.key for sample in data]
    assert len(set(keys)) == len(keys)
    assert [sample.key for sample in moved] == keys
    assert moved.fingerprint == data.fingerprint
    for sample in data:
        content = pickle.dumps(sample)
        assert len(content) < 1000
        assert pickle.loads(content) == sample


def test_fingerprint_sees_every_change(tmp_path):
    path = annotations(tmp_path) / "annotations.json"
    document = json.loads(path.read_text())
    seen = {open_dataset(path).fingerprint}
    for change in ({"class_ids": [1]}, {"boxes": [[2, 3, 10, 13]]}, {"width": 31}, {"file": "images/p0.PNG"}):
        shutil.copy(tmp_path / "images/p0.png", tmp_path / "images/p0.PNG")
        entry = {**document["images"][0], **change}
        write_json(path, {"images": [entry, *document["images"][1:]]})
        seen.add(open_dataset(path).fingerprint)
    write_json(path, {"images": document["images"][::-1]})
    seen.add(open_dataset(path).fingerprint)
    assert len(seen) == 6


# Which format lies where


def test_two_formats_in_one_folder_are_told_apart_by_kind(tmp_path):
    webdataset(annotations(tmp_path))
    with pytest.raises(ValueError, match="annotations and webdataset; choose by kind"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, kind="webdataset").kind == "webdataset"
    assert open_dataset(tmp_path, kind="annotations").kind == "annotations"


def test_nothing_known_says_what_is_there(tmp_path):
    write(tmp_path / "notes.txt", "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds empty/, notes\.txt; expected imagefolder: a folder of class folders"):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"expected coco: annotations/instances_"):
        open_dataset(tmp_path, kind="coco")
    with pytest.raises(ValueError, match=r"is no data set; expected a folder"):
        open_dataset(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="kind 'voc'; expected one of imagefolder"):
        open_dataset(tmp_path, kind="voc")
    with pytest.raises(ValueError, match="expected the folder of the pictures"):
        open_dataset(coco(tmp_path / "c"), images=tmp_path / "none")


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_folder_is_no_data_set(kind, tmp_path):
    with pytest.raises(ValueError, match="which holds nothing"):
        open_dataset(tmp_path, kind=kind)


@pytest.mark.parametrize("kind", ["imagefolder", "annotations", "wsol", "webdataset"])
def test_splits_in_folders(kind, tmp_path):
    for split in ("train", "val"):
        built = BUILDERS[kind](tmp_path / "built" / split)
        shutil.copytree(built, tmp_path / "data" / split)
    pictures = tmp_path / "built/val/dataset/PAINTED" if kind == "wsol" else None
    assert len(open_dataset(tmp_path / "data", split="val", images=pictures)) == 5
    with pytest.raises(ValueError, match="choose by split"):
        open_dataset(tmp_path / "data")
    with pytest.raises(ValueError, match="test"):
        open_dataset(tmp_path / "data", split="test")


def test_json_tells_its_kind(tmp_path):
    document = coco(tmp_path) / "annotations" / "instances_val.json"
    assert open_dataset(document).kind == "coco"
    with pytest.raises(ValueError, match="is coco, not parquet"):
        open_dataset(document, kind="parquet")
    with pytest.raises(ValueError, match="holds a list"):
        open_dataset(write(tmp_path / "a.json", "[1]"))
    with pytest.raises(ValueError, match="is not JSON"):
        open_dataset(write(tmp_path / "b.json", '{"images": ['))


def test_patterns_of_shards(tmp_path):
    webdataset(tmp_path)
    assert len(open_dataset(f"{tmp_path}/val-{{000..001}}.tar")) == 5
    assert len(open_dataset(f"{tmp_path}/val-*.tar")) == 5
    assert len(open_dataset(f"{tmp_path}/val-{{000,001}}.tar")) == 5
    assert len(open_dataset(tmp_path / "val-001.tar")) == 2
    with pytest.raises(ValueError, match=r"1 of 3 shards .* are missing, first .*val-002"):
        open_dataset(f"{tmp_path}/val-{{000..002}}.tar")
    with pytest.raises(ValueError, match=r"stands for no file"):
        open_dataset(f"{tmp_path}/none-*.tar")
    shard(tmp_path / "train-000.tar", {"a.png": painted()[0].png, "a.cls": b"1"})
    with pytest.raises(ValueError, match=r"train \(1\), val \(2\); choose by split"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, split="train")) == 1


# Class numbers


def test_synsets_are_in_class_order():
    assert len(synsets()) == len(set(synsets())) == 1000
    assert synsets() == sorted(synsets())
    assert synsets().index("n02123159") == 282  # tiger cat


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", '{"cat": 281, "dog": [207, 208]}', {"cat": (281,), "dog": (207, 208)}),
        (
            "a.json",
            '{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}',
            {c: (i,) for c, i in INDEX.items()},
        ),
        ("a.json", '["cat", "dog"]', {"cat": (0,), "dog": (1,)}),
        ("a.txt", "cat 281\ndog 207\n", {"cat": (281,), "dog": (207,)}),
        ("a.csv", "polar bear,296\ndog,207\n", {"polar bear": (296,), "dog": (207,)}),
        ("a.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\n", {c: (i,) for c, i in INDEX.items()}),
        ("a.txt", "polar bear\n\ndog\n", {"polar bear": (0,), "dog": (1,)}),
        ("a.txt", "class 5\nclass 6\n", {"class 5": (0,), "class 6": (1,)}),
    ],
)
def test_index_files(name, text, expected, tmp_path):
    assert read_index(write(tmp_path / name, text)) == expected


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b"{", "is not JSON"),
        ("a.json", b'{"cat": -1}', "gives -1 for 'cat'"),
        ("a.json", b'{"cat": "x"}', "gives 'x' for 'cat'"),
        ("a.json", b"{}", "holds dict"),
        ("a.json", b"7", "holds int"),
        ("a.txt", b"cat\ncat\n", "'cat' as entry 1"),
        ("a.txt", b"\xff\xfe\x00", "not text in UTF-8"),
    ],
)
def test_damaged_index_files(name, content, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        read_index(write(tmp_path / name, content))


def test_missing_index_file(tmp_path):
    with pytest.raises(ValueError, match="no class_index file"):
        open_dataset(imagefolder(tmp_path), class_index=tmp_path / "none.json")


@pytest.mark.parametrize(
    ("labels", "value", "reason"),
    [
        (Labels(), -1, "label -1 is outside"),
        (Labels(["a", "b"]), 2, "label 2 is outside the classes; expected 0 to 1"),
        (Labels(), "cat", "give class_index"),
        (Labels(["a"]), "cat", "is not one of the classes"),
        (Labels(None, {"a": (1,)}), "b", "not in class_index"),
        (Labels(), None, "label None"),
        (Labels(), True, "label True"),
        (Labels(), 1.5, "label 1.5"),
        (Labels(), float("nan"), "label nan"),
    ],
)
def test_labels_that_are_none(labels, value, reason):
    with pytest.raises(ValueError, match=reason):
        labels.numbers(value)


def test_labels_through_names_and_index():
    assert Labels(["cat", "dog"]).numbers("dog") == (1,)
    assert Labels(["cat", "dog"], {"dog": (207,)}).numbers(1) == (207,)
    assert Labels(None, {"1": (5,)}).numbers(1) == (5,)
    assert Labels().numbers("12") == Labels().numbers(12.0) == (12,)
    assert Labels(None, {"b": (1,), "a": (0,)}).classes == ["a", "b"]
    assert Labels(None, {"b": (1,)}).classes is None


def test_classes_a_model_lacks(tmp_path):
    document = json.loads((annotations(tmp_path) / "annotations.json").read_text())
    document["images"][2]["class_ids"] = [1000]
    data = open_dataset(write_json(tmp_path / "annotations.json", document)).within(1000)
    assert [sample.key for sample in data] == [f"images/p{i}.png" for i in (0, 1, 3, 4)]
    (problem,) = data.problems
    assert problem.file.endswith("images/p2.png")
    assert "class 1000" in problem.reason
    assert problem.lost == "sample"


def test_wsol_root_of_one_split(tmp_path):
    metadata = wsol(tmp_path)
    assert open_dataset(metadata.parent).fingerprint == open_dataset(metadata).fingerprint
