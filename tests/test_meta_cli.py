"""Meta-methods on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import fastcam
from fastcam import CAM, Evet, Sess, image
from fastcam.cli import arguments
from tests.cli_calls import CHELSEA, TINY, fails, place, run, tiny  # noqa: F401
from tests.evaluate_calls import evaluate, make_data

pytestmark = pytest.mark.usefixtures("one_thread")
SESS = "sess(gradcam, scales=[32, 40])"


def test_methods_are_told_apart_by_commas_outside_of_brackets():
    found = arguments.find_methods([f"gradcam,{SESS}, evet(sess(gradcam))", "layer*"])
    assert found == ["gradcam", SESS, "evet(sess(gradcam))", "layercam"]
    with pytest.raises(ValueError, match="no method named 'gradcm'"):
        arguments.find_methods(["sess(gradcm)"])


def test_options_go_to_meta_methods_too():
    methods = ["sess(gradcam)", "smooth(sscam)", "gradcam"]
    found = arguments.find_options(["samples=3", "scales=[32, 40]", "smooth(sscam).spread=0.5"], methods)
    assert found == {
        "sess(gradcam)": {"scales": [32, 40]},
        "smooth(sscam)": {"samples": 3, "spread": 0.5},
        "gradcam": {},
    }


def test_explain():
    names = (SESS, "evet(gradcam, transforms=all)")
    record = json.loads(run("explain", CHELSEA, *TINY, "--method", ",".join(names), "-O", "blur=no", "--json").stdout)
    images, _ = image.preprocess(image.read(CHELSEA), image.Preprocess(37, 32))
    evet = Evet("gradcam", transforms="all", mean=image.IMAGENET_MEAN, std=image.IMAGENET_STD)
    for name, method in zip(names, (Sess("gradcam", scales=[32, 40], blur=False), evet), strict=True):
        with np.load(record["methods"][name]["maps"]) as stored:
            torch.testing.assert_close(torch.from_numpy(stored["maps"]), CAM(tiny(), method)(images[None])[0])


def test_evaluate():
    words = ("--methods", SESS, "-O", "theta=0.1")
    found, _ = evaluate(make_data(), *words, metrics="average_drop")
    assert list(found["table"]) == ["gradcam", "reciprocam", SESS]
    assert found["table"]["gradcam"] != found["table"][SESS]
    settings = found["settings"]["evaluation"]["methods"][SESS]
    assert settings["method"] == "sess(gradcam)"
    assert (
        settings["options"]["sess(gradcam)"] | {"theta": 0.1, "scales": [32, 40]}
        == settings["options"]["sess(gradcam)"]
    )
    small = ("-O", "scales=[20]", "--out", "o")
    assert "larger than the image at scale 20" in fails("evaluate", "data", *TINY, *words, *small)


def test_the_second_table():
    listed = {row["name"]: row for row in json.loads(run("methods", "--json").stdout)}
    assert listed["sess(METHOD)"]["options"]["fusion"] == "mean"
    assert "meta-methods" in run("methods").stdout
    only = run("methods", "augsm*").stdout
    assert "augsmooth(METHOD)" in only
    assert "gradcam" not in only
    assert all(f"{name}(METHOD)" in listed for name in fastcam.list_meta_methods())
