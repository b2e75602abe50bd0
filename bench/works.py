"""The work list: what is measured, against which floor, and what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fastcam.runtimes import lacking

GRADIENTS = ("gradcam", "gradcampp", "xgradcam", "layercam", "cam")
MASKED = ("ablationcam", "reciprocam", "liftcam")
LITE0 = "efficientnet_lite0"
SCORE_MEMORY = 256 << 20


@dataclass(frozen=True)
class Work:
    """One line of the targets.

    Attributes:
        id: T1 to T5.
        method: its name.
        network: see `models.subject`.
        layer: dotted name, None for the last spatial map.
        batch: images.
        floor: "forward", "cold", "tail", "rescale" or "masks", see `floors`.
        limit: largest multiple of the floor.
        versus: least ratio of a peer's time to fastcam's.
        peak_limit: bytes above the bare forward.
        quick: whether it belongs to the short list.
        runtime: of masked forwards.
        precision: likewise.
        suite: whose list it is on.
        samples: of each mask, for methods that take several.
        side: of the images in pixels, where it is not the network's own.
    """

    id: str
    method: str
    network: str
    layer: str | None = None
    batch: int = 1
    floor: str = "forward"
    limit: float = 1.05
    versus: Mapping[str, float] = field(default_factory=dict)
    peak_limit: int | None = None
    quick: bool = False
    runtime: str = "torch"
    precision: str = "float32"
    suite: str = "peers"
    samples: int = 1
    side: int | None = None

    @property
    def what(self) -> str:
        layer = f" {self.layer}" if self.layer else ""
        samples = f", {self.samples} samples" if self.samples > 1 else ""
        side = f", {self.side} x {self.side}" if self.side else ""
        batch = f", batch {self.batch}" if self.batch > 1 else ""
        cold = ", new object and first call" if self.floor == "cold" else ""
        engine = f", {self.runtime} {self.precision}" if self.suite == "engines" else ""
        return f"{self.method}, {self.network}{layer}{batch}{samples}{side}{cold}{engine}"


def works() -> Iterator[Work]:
    """All of it, in the order of the targets."""
    faster = {"pytorch-grad-cam": 2.5}
    for network, batch in ((LITE0, 1), (LITE0, 16), ("resnet50", 1)):
        quick = network == LITE0 and batch == 1
        for method in GRADIENTS:
            yield Work("T1", method, network, batch=batch, versus=faster, quick=quick)
    # A token grid has no closed form: the last block's backward is a twelfth of the network's.
    yield Work("T1", "gradcam", "vit_b_16", versus=faster, limit=1.3, quick=True)
    for network in (LITE0, "resnet50"):
        yield Work("T1", "gradcam", network, floor="cold", limit=1.3, quick=network == LITE0)
    for network in (LITE0, "resnet50"):
        for method in MASKED:
            versus = {"pytorch-grad-cam": 1000.0} if method == "ablationcam" else {}
            yield Work("T2", method, network, limit=1.1, versus=versus, quick=network == LITE0)
    for network, layer in (("resnet50", "layer3"), ("vgg11", None), ("vgg16", None)):
        for method in MASKED:
            floor = "rescale" if method == "liftcam" else "tail"
            quick = (network, method) in {("resnet50", "reciprocam"), ("resnet50", "liftcam"), ("vgg11", "reciprocam")}
            yield Work("T3", method, network, layer, floor=floor, limit=1.1, quick=quick)
    yield Work("T4", "scorecam", LITE0, floor="masks", peak_limit=SCORE_MEMORY, quick=True)
    yield Work("T4", "scorecam", "resnet50", floor="masks", peak_limit=SCORE_MEMORY)
    for network, quick in ((LITE0, True), ("resnet50", False)):
        yield Work("T4", "scorecam", network, floor="masks", peak_limit=SCORE_MEMORY, side=512, quick=quick)
    for method in ("sscam", "iscam"):
        yield Work("T5", method, LITE0, floor="masks", peak_limit=SCORE_MEMORY, samples=4, quick=True)


def engines() -> Iterator[Work]:
    """Score-CAM by runtime and precision, of those that are installed."""
    asked = {
        ("torch", "float32"): {},
        ("onnxruntime", "float32"): {LITE0: 10.0, "resnet50": 2.0},
        ("openvino", "float32"): {},
        ("openvino", "bfloat16"): {LITE0: 20.0, "resnet50": 4.0},
        ("torch", "bfloat16"): {},
    }
    for network in (LITE0, "resnet50"):
        for (runtime, precision), least in asked.items():
            if not lacking(runtime):
                versus = {"pytorch-grad-cam": least[network]} if least else {}
                yield Work(
                    "T4", "scorecam", network, floor="masks", versus=versus, peak_limit=SCORE_MEMORY, quick=True,
                    runtime=runtime, precision=precision, suite="engines",
                )  # fmt: skip
