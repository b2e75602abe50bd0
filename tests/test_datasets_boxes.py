"""ILSVRC and WSOL metadata: their forms, and what is damaged in them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fastcam.datasets import open_dataset
from fastcam.datasets.labels import synsets
from tests.datasets_on_disk import CLASSES, ilsvrc, painted, write, wsol, xml

ONE = painted()[0]


# ILSVRC


def boxed(corners, name=CLASSES[0], size="<size><width>30</width><height>20</height></size>"):
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    inside = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<annotation>{size}<object><name>{name}</name><bndbox>{inside}</bndbox></object></annotation>"


@pytest.mark.parametrize(
    ("annotated", "pictures"),
    [
        ("ILSVRC/Annotations/CLS-LOC/val", "ILSVRC/Data/CLS-LOC/val"),
        ("bbox/val", "val"),
        ("bbox", "val"),
        ("bbox", ""),
        ("Annotations", "images"),
        ("", ""),
    ],
)
def test_where_ilsvrc_may_lie(annotated, pictures, tmp_path):
    write(tmp_path / annotated / "p0.xml", xml(ONE))
    write(tmp_path / pictures / "p0.png", ONE.png)
    data = open_dataset(tmp_path)
    assert data.kind == "ilsvrc"
    assert [(sample.label, sample.boxes) for sample in data] == [(ONE.label, ONE.boxes)]


def test_corner_pixels_lie_inside(tmp_path):
    write(tmp_path / "a.png", ONE.png)
    write(tmp_path / "a.xml", boxed((0, 0, 29, 19)))
    (sample,) = open_dataset(tmp_path)
    assert sample.boxes == ((0, 0, 30, 20),)
    assert sample.size == (20, 30)


def test_train_pictures_take_the_class_of_their_folder(tmp_path):
    root = tmp_path / "ILSVRC"
    for name in ("a", "b"):
        write(root / f"Data/CLS-LOC/train/{CLASSES[1]}/{name}.png", ONE.png)
    two = boxed((1, 1, 2, 2)).removesuffix("</annotation>") + boxed((3, 3, 4, 4), CLASSES[1], "").removeprefix(
        "<annotation>"
    )
    write(root / f"Annotations/CLS-LOC/train/{CLASSES[1]}/a.xml", two)
    data = open_dataset(tmp_path, split="train")
    assert [(sample.key, sample.label, sample.boxes) for sample in data] == [
        (f"{CLASSES[1]}/a.png", 1, ((3, 3, 5, 5),)),
        (f"{CLASSES[1]}/b.png", 1, ()),
    ]
    assert "pictures without XML, so without boxes: 1" in data.notes
    assert "boxes of another class than their picture, left out: 1" in data.notes


def test_numbers_of_synsets(tmp_path):
    write(tmp_path / "a.png", ONE.png)
    write(tmp_path / "a.xml", boxed((1, 1, 2, 2), "n02123159"))
    assert open_dataset(tmp_path).samples[0].label == 282
    write(tmp_path / "LOC_synset_mapping.txt", "n02123045 tabby\nn02123159 tiger cat\n")
    assert open_dataset(tmp_path).samples[0].label == 1
    assert open_dataset(tmp_path, class_index={"n02123159": 5}).samples[0].label == 5
    assert len(synsets()) == 1000


@pytest.mark.parametrize(
    ("text", "lost", "reason"),
    [
        ("<annotation><object>", "sample", "not XML (no element found"),
        ("", "sample", "not XML"),
        ("<annotation/>", "sample", "holds no object"),
        (None, "sample", "no XML of the same name"),
        (boxed((1, 1, 2, 2), "n99999999"), "sample", "class 'n99999999' is not in class_index"),
        (boxed((9, 1, 2, 2)), "box", "[9.0, 1.0, 2.0, 2.0] ends before it begins"),
        (boxed((1, 1, "x", 2)), "box", "holds what is no finite number"),
        (boxed((1, 1, "nan", 2)), "box", "holds what is no finite number"),
        (boxed((30, 1, 35, 2)), "box", "lies outside the picture of 20 x 30"),
        (f"<annotation><object><name>{CLASSES[0]}</name></object></annotation>", "box", "no finite number"),
    ],
)
def test_damaged_ilsvrc(text, lost, reason, tmp_path):
    write(tmp_path / "a.png", ONE.png)
    write(tmp_path / "b.png", ONE.png)
    write(tmp_path / "b.xml", xml(ONE))
    if text is not None:
        write(tmp_path / "a.xml", text)
    data = open_dataset(tmp_path)
    (problem,) = data.problems
    assert problem.lost == lost
    assert reason in problem.reason
    assert [sample.key for sample in data] == (["a.png", "b.png"] if lost == "box" else ["b.png"])
    assert data.samples[0].label == 0


def test_annotation_without_picture(tmp_path):
    ilsvrc(tmp_path)
    (tmp_path / "ILSVRC/Data/CLS-LOC/val/p1.png").unlink()
    data = open_dataset(tmp_path)
    assert len(data) == 4
    assert [problem.file.rpartition("/")[2] for problem in data.problems] == ["p1.xml"]


# WSOL


@pytest.mark.parametrize(
    ("file", "line", "lost", "reason"),
    [
        ("class_labels.txt", "test/p9.png,0", "label", "line 6: 'test/p9.png' is not in image_ids.txt"),
        ("class_labels.txt", "test/p0.png,cat", "sample", "test/p0.png: class 'cat'"),
        ("class_labels.txt", "test/p0.png,-1", "sample", "label -1 is outside"),
        ("class_labels.txt", "test/p0.png", "box", "line 6 is 'test/p0.png'; expected path,class"),
        ("image_sizes.txt", "test/p0.png,30,x", "box", "expected path,width,height"),
        ("localization.txt", "test/p0.png,5,5,x,9", "box", "holds what is no finite number"),
        ("localization.txt", "test/p0.png,5,5,3,9", "box", "box 'test/p0.png,5,5,3,9' ends before it begins"),
        ("localization.txt", "test/p0.png,5,5,3", "box", "expected path,x0,y0,x1,y1 or path,mask,ignored"),
        ("localization.txt", "test/p0.png,m.png,", "outline", "no such mask"),
        ("image_ids.txt", "test/p9.png", "sample", "no such picture"),
        ("image_ids.txt", "test/p0.png", "sample", "is listed twice"),
    ],
)
def test_damaged_wsol(file, line, lost, reason, tmp_path):
    metadata = wsol(tmp_path)
    path = metadata / file
    path.write_text(path.read_text() + line + "\n")
    data = open_dataset(metadata)
    (problem,) = data.problems
    assert problem.lost == lost
    assert reason in problem.reason
    assert len(data) == (4 if file == "class_labels.txt" and lost == "sample" else 5)


def test_wsol_files_that_are_missing(tmp_path):
    metadata = wsol(tmp_path)
    (metadata / "image_sizes.txt").unlink()
    (metadata / "localization.txt").unlink()
    data = open_dataset(metadata)
    assert data.notes[:2] == ["there is no image_sizes.txt", "there is no localization.txt"]
    assert "pictures without boxes or masks: 5" in data.notes
    (metadata / "class_labels.txt").write_text("test/p0.png,0\n")
    assert [problem.reason for problem in open_dataset(metadata).problems] == [
        f"no class of 'test/p{number}.png'" for number in range(1, 5)
    ]
    (metadata / "class_labels.txt").unlink()
    with pytest.raises(ValueError, match=r"no class_labels\.txt in"):
        open_dataset(metadata, kind="wsol")
    with pytest.raises(ValueError, match="give `images`, their folder"):
        open_dataset(wsol(tmp_path / "b").rename(tmp_path / "elsewhere"))


def test_wsol_masks(tmp_path):
    metadata = wsol(tmp_path)
    folder = tmp_path / "dataset/PAINTED/test"
    parts = np.zeros((3, 20, 30), np.uint8)
    parts[0, 2:5, 3:9] = parts[1, 10:12, 3:9] = parts[2, 0:12, 0:9] = 255
    for name, part in zip(("m0", "m1", "ignore"), parts, strict=True):
        Image.fromarray(part).save(folder / f"{name}.png")
    lines = "test/p0.png,test/m0.png,test/ignore.png\ntest/p0.png,test/m1.png,\n"
    (metadata / "localization.txt").write_text(lines)
    data = open_dataset(metadata)
    assert [problem.reason for problem in data.problems] == ["no line in localization.txt, which others have"] * 4
    mask, ignored = data.samples[0].mask(20, 30).numpy(), data.samples[0].ignored(20, 30).numpy()
    assert np.array_equal(mask, parts[:2].any(0))
    assert np.array_equal(ignored, (parts[2] > 0) & ~parts[:2].any(0))
    assert data.samples[1].mask(20, 30) is None
    assert np.array_equal(data.samples[0].mask(40, 60), mask.repeat(2, 0).repeat(2, 1))
    (folder / "m1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"m1\.png': not a picture"):
        data.samples[0].mask(20, 30)
