"""What meta-methods say of what cannot be."""

from __future__ import annotations

import pytest
from torch import Tensor

from fastcam import CAM, Evet, Integrated, Refine, Sess, Smooth
from fastcam.meta import parse
from tests import small

pytestmark = pytest.mark.usefixtures("one_thread")


class NoWayBack:
    def apply(self, pictures: Tensor) -> Tensor:
        return pictures


class Shrinks(NoWayBack):
    def apply(self, pictures: Tensor) -> Tensor:
        return pictures[..., 1:]

    def invert(self, maps: Tensor) -> Tensor:
        return maps


WRONG = [
    (lambda: Sess("gradcm"), ValueError, "no method named 'gradcm'; nearest: gradcam"),
    (lambda: Sess(3), TypeError, r"write Sess\('gradcam'\)"),
    (lambda: Sess("gradcam", window=0), ValueError, "window=0 must be a positive"),
    (lambda: Sess("gradcam", scales=[]), ValueError, "list of positive"),
    (lambda: Sess("gradcam", pre_filter=1), ValueError, "pre_filter=1 must be"),
    (lambda: Sess("gradcam", theta=-0.1), ValueError, "theta"),
    (lambda: Sess("gradcam", fusion="sum"), ValueError, "'mean', 'max'"),
    (lambda: Smooth("gradcam", spread=-1), ValueError, "spread=-1 must be at least 0"),
    (lambda: Smooth("gradcam", samples=0), ValueError, "samples=0 must be a positive int"),
    (lambda: Integrated("gradcam", rule="simpson"), ValueError, "'midpoint'"),
    (lambda: Refine("gradcam", variant="x"), ValueError, "'image', 'layer'"),
    (lambda: Refine(Sess("gradcam")), ValueError, "take refine inside"),
    (lambda: Evet("gradcam", transforms="flp"), ValueError, "no transformation named 'flp'; nearest: flip"),
    (lambda: Evet("gradcam", transforms=[]), ValueError, "transforms is empty"),
    (lambda: Evet("gradcam", transforms=[NoWayBack()]), ValueError, r"NoWayBack has no inverse; give it invert\(maps"),
    (lambda: Evet("gradcam", transforms=[3]), TypeError, "got 3"),
    (lambda: Evet("gradcam", weight="p"), ValueError, "'uniform', 'score'"),
    (lambda: Evet("gradcam", mean=[0.5]), ValueError, "given together"),
    (lambda: parse("ses(gradcam)"), ValueError, "no meta-method named 'ses'.*nearest: sess"),
    (lambda: parse("sess(gradcam"), ValueError, "does not end with the parenthesis"),
    (lambda: parse("sess()"), ValueError, "names no method inside"),
    (lambda: parse("sess(evet(gradcam)"), ValueError, "do not fit"),
    (lambda: parse("sess"), ValueError, r"write sess\(gradcam\)"),
    (lambda: parse("sess(gradcam, speed=1)"), TypeError, "sess has no option 'speed=1'; its options are: scales"),
    (lambda: CAM(small.network(), 3), TypeError, "method must be a name or a meta-method"),
    (lambda: CAM(small.network(), "evet(gradcam)", fusion="sum"), ValueError, "'tanhmax'"),
    (lambda: run("sess(gradcam)", window=30), ValueError, r"window of 30 pixels is larger than the images \(24x32\)"),
    (lambda: run("sess(gradcam)", scales=[24, 18]), ValueError, "larger than the image at scale 18.*window=18"),
    (lambda: run("evet(gradcam)", transforms="intensity"), ValueError, "give the normalization"),
    (lambda: run("evet(gradcam)", transforms="all", mean=[0], std=[1]), ValueError, "3 channels, mean has 1"),
    (lambda: run(Evet("gradcam", transforms=[Shrinks()])), ValueError, "Shrinks.apply must keep the shape"),
    (lambda: run("integrated(gradcam)", baseline=[1, 2]), ValueError, "baseline has shape"),
    (lambda: run("refine(saliency)"), ValueError, "refine multiplies maps of layers, and saliency"),
]  # fmt: skip


def run(method, **options):
    return CAM(small.network(), method, **options)(3 * small.images() - 1)


@pytest.mark.parametrize(("make", "error", "words"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_be(make, error, words):
    with pytest.raises(error, match=words):
        make()
