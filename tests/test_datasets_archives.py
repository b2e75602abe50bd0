"""WebDataset and Parquet: their forms, and what is damaged in them."""

from __future__ import annotations

import numpy as np
import pyarrow
import pytest
from pyarrow.parquet import write_table

from fastcam.datasets import open_dataset, source
from tests.datasets_on_disk import CLASSES, painted, parquet, shard, webdataset, write

ONE, TWO = painted()[:2]


# WebDataset


def test_class_files_and_names_of_members(tmp_path):
    files = {"./some/deep.er/a.PNG": ONE.png, "./some/deep.er/a.cls": b"7\n", "b.png": TWO.png, "b.cls": b"8"}
    data = open_dataset(shard(tmp_path / "s.tar", files))
    assert [(sample.key, sample.label) for sample in data] == [("s/some/deep.er/a", 7), ("s/b", 8)]
    assert np.array_equal(data.samples[0].read(), ONE.pixels)
    by_name = shard(tmp_path / "n.tar", {"a.png": ONE.png, "a.cls": b"cat"})
    assert open_dataset(by_name, class_index={"cat": 281}).samples[0].label == 281


def test_no_classes_at_all(tmp_path):
    data = open_dataset(shard(tmp_path / "s.tar", {"a.png": ONE.png, "b.png": TWO.png, "b.json": b'{"width": 30}'}))
    assert [sample.label for sample in data] == [None, None]
    assert data.problems == []
    assert data.notes == ["no sample has a class: there is no cls and no label in json"]


@pytest.mark.parametrize(
    ("files", "lost", "reason"),
    [
        ({"a.cls": b"1"}, "sample", "0 pictures among cls; expected one"),
        ({"a.jpg": ONE.png, "a.png": ONE.png, "a.cls": b"1"}, "sample", "2 pictures among jpg, png, cls"),
        ({"a.png": ONE.png}, "label", "no cls and no label in json; kept without a class"),
        ({"a.png": ONE.png, "a.cls": b"cat"}, "sample", "class 'cat' is not"),
        ({"a.png": ONE.png, "a.cls": b"\xff"}, "sample", "damaged annotation: 'utf-8'"),
        ({"a.png": ONE.png, "a.json": b"{"}, "sample", "damaged annotation: Expecting"),
        ({"a.png": ONE.png, "a.json": b"[1]"}, "sample", "json holds a list"),
        ({"a.png": ONE.png, "a.json": b'{"label": 1, "boxes": [[4, 4, 1, 9]]}'}, "box", "ends before it begins"),
        ({"z.png": ONE.png, "z.cls": b"1"}, "sample", "'s/z' is listed twice"),
    ],
)
def test_damaged_samples_in_tar(files, lost, reason, tmp_path):
    whole = {"z.png": TWO.png, "z.cls": b"0", "y.png": TWO.png, "y.cls": b"0"}
    if "z.png" in files:
        path = shard(tmp_path / "s.tar", whole | {f"./{name}": content for name, content in files.items()})
    else:
        path = shard(tmp_path / "s.tar", files | whole)
    data = open_dataset(path)
    (problem,) = data.problems
    assert problem.lost == lost
    assert reason in problem.reason
    assert {"s/z", "s/y"} <= {sample.key for sample in data}
    assert len(data) == (2 if lost == "sample" else 3)


@pytest.mark.parametrize("cut", [512, 1500, 2000, -1100, -10_000])
def test_cut_tar(cut, tmp_path):
    whole = webdataset(tmp_path) / "val-000.tar"
    content = whole.read_bytes()
    end = content.rstrip(b"\0")
    end = content[: -(-len(end) // 512) * 512]  # all members, without the closing blocks
    whole.write_bytes(end[: cut if cut > 0 else len(end) + cut + 1024])
    data = open_dataset(tmp_path)
    assert {"val-001/p3", "val-001/p4"} <= {sample.key for sample in data}
    (problem,) = data.problems
    assert problem.file == str(whole)
    assert problem.lost == "file"
    assert "expected an uncompressed tar file, whole" in problem.reason


def test_tar_that_changes_after_opening(tmp_path):
    data = open_dataset(webdataset(tmp_path))
    whole = tmp_path / "val-000.tar"
    whole.write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"val-000\.tar/p0\.png': the file ends \d+ bytes before the picture does"):
        data.samples[0].read()
    whole.unlink()
    with pytest.raises(ValueError, match=r"val-000\.tar/p0\.png'.*No such file"):
        data.samples[0].read()


# Parquet


def table(root, name="a.parquet", **columns):
    root.mkdir(exist_ok=True)
    write_table(pyarrow.table(columns), root / name)
    return root / name


def test_class_names_come_from_the_file(tmp_path):
    assert open_dataset(parquet(tmp_path)).classes == list(CLASSES)
    named = open_dataset(tmp_path, class_index={CLASSES[0]: 10, CLASSES[1]: 11})
    assert [sample.label for sample in named] == [10, 11, 10, 11, 10]


def test_rows_of_a_group_are_read_once(tmp_path, monkeypatch):
    data = open_dataset(parquet(tmp_path))
    source._groups.clear()
    opened = []
    original = pyarrow.parquet.ParquetFile
    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", lambda path: opened.append(path) or original(path))
    for sample in data:
        sample.read()
    assert len(opened) == 3  # groups of 2 and 1 rows, and of 2
    assert len(source._groups) == source.KEPT_GROUPS


def test_forms_of_columns(tmp_path):
    picture = [{"bytes": ONE.png, "path": None}]
    plain = open_dataset(table(tmp_path, jpg=[ONE.png], cls=["7"]))
    assert (plain.samples[0].label, plain.samples[0].key) == (7, "a/0")
    assert np.array_equal(plain.samples[0].read(), ONE.pixels)
    corners = open_dataset(table(tmp_path, scan=picture, label=[1], boxes=[[[1, 2, 3, 4]]], width=[30], height=[20]))
    assert corners.samples[0].boxes == ((1, 2, 3, 4),)
    assert corners.samples[0].size == (20, 30)
    objects = {"bbox": [[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 2.0, 2.0]], "category": [3, 5]}
    for value in (objects, [{"bbox": b, "category": c} for b, c in zip(*objects.values(), strict=True)]):
        data = open_dataset(table(tmp_path, image=picture, objects=[value]))
        assert data.samples[0].labels == (3, 5)
        assert data.samples[0].boxes == ((1, 2, 4, 6), (0, 0, 2, 2))
        assert [one.boxes for one in data.by_target()] == [((1, 2, 4, 6),), ((0, 0, 2, 2),)]
    inherited = open_dataset(table(tmp_path, image=picture, label=[4], objects=[{"bbox": [[1, 2, 3, 4]]}]))
    assert (inherited.samples[0].label, inherited.samples[0].boxes) == (4, ((1, 2, 4, 6),))
    write(tmp_path / "there.png", TWO.png)
    by_path = open_dataset(table(tmp_path, image=[{"bytes": None, "path": "there.png"}], label=[1]))
    assert np.array_equal(by_path.samples[0].read(), TWO.pixels)
    unlabeled = open_dataset(table(tmp_path, image=picture))
    assert unlabeled.notes == ["no sample has a class: there is no column such as 'label'"]


def test_damaged_rows(tmp_path):
    picture = {"bytes": ONE.png, "path": None}
    rows = {"image": [picture] * 4, "label": [1, None, -1, 2], "bbox": [[[0, 0, 0, 3]], [], [], None]}
    data = open_dataset(table(tmp_path, **rows))
    assert [(sample.key, sample.label) for sample in data] == [("a/0", 1), ("a/3", 2)]
    assert [(problem.lost, problem.reason.partition(";")[0]) for problem in data.problems] == [
        ("box", "box [0, 0, 0, 3] is empty"),
        ("sample", "label None"),
        ("sample", "label -1 is outside the classes"),
    ]
    uneven = {"bbox": [[0.0, 0.0, 1.0, 1.0]], "category": [1, 2]}
    data = open_dataset(table(tmp_path, image=[picture] * 2, objects=[uneven, {"bbox": [], "category": []}]))
    assert [problem.reason for problem in data.problems] == [
        "objects hold 1 bbox, 2 category; expected as many of each"
    ]
    data = open_dataset(
        table(tmp_path, image=[{"bytes": None, "path": None}, {"bytes": b"x", "path": None}], label=[1, 2])
    )
    with pytest.raises(ValueError, match="row group 0, row 0': column 'image' holds no picture there"):
        data.samples[0].read()
    with pytest.raises(ValueError, match="row group 0, row 1': not a picture"):
        data.samples[1].read()


def test_damaged_parquet_files(tmp_path):
    parquet(tmp_path)
    first, second = sorted(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:-4])
    data = open_dataset(tmp_path)
    assert len(data) == 2
    assert [(problem.file, problem.lost) for problem in data.problems] == [(str(first), "file")]
    table(tmp_path, second.name, words=["a"])
    with pytest.raises(ValueError, match=r"no usable sample .*no column with pictures among words \(string\)"):
        open_dataset(tmp_path)


def test_parquet_damaged_inside(tmp_path):
    data = open_dataset(parquet(tmp_path, groups=1))
    source._groups.clear()
    path = sorted(tmp_path.iterdir())[0]
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(2000) + content[2004:])
    with pytest.raises(ValueError, match="row group 0, row 0"):
        data.samples[0].read()
    path.unlink()
    source._groups.clear()
    with pytest.raises(ValueError, match="No such file"):
        data.samples[0].read()


def test_splits_of_shards(tmp_path):
    parquet(tmp_path / "data")
    table(tmp_path / "data", "test-00000-of-00001.parquet", image=[{"bytes": ONE.png}], label=[0])
    with pytest.raises(ValueError, match=r"test \(1\), validation \(2\); choose by split"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, split="validation")) == 5
    assert len(open_dataset(tmp_path, split="test")) == 1
    with pytest.raises(ValueError, match="no shards of split 'train'"):
        open_dataset(tmp_path, split="train")
    assert open_dataset(tmp_path, split="test").samples[0].key == "test-00000-of-00001/0"
