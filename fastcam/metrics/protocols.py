"""What papers and libraries disagree on, by name: `protocol="paper"`."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .fields import check

TENTHS = tuple(round(0.1 * k, 1) for k in range(1, 10))


@dataclass(frozen=True)
class Protocol:
    """Everything that decides a metric's number besides the model, the images and the maps.

    Attributes:
        name: its id.
        source: where it comes from.
        score: "probability" (softmax) or "logit" of the explained class.
        classes: which class faithfulness explains: "predicted", or "target" (the label). Localization explains the
            label wherever there is one.
        resize: how whole pictures reach the model's input, for who loads them: "crop" (the shorter side to the model's
            size, then its crop), "warp" (both sides to the crop's), or "warp-crop" (both to the model's size, then its
            crop).
        masking: whether images are multiplied by maps "after" normalization (masked pixels become the mean color)
            or "before" it (they become black).
        upsample: how maps reach the images' size: "bilinear", "bicubic" (OpenCV's), or "pillow" (its bicubic).
        rescale: whether maps are scaled to [0, 1] after that, or at the layer's size before it.
        grid: where coherency and complexity look: at the "image"'s size, or at the "layer"'s.
        drop: "relative", (s - s') / s; "absolute", s - s'; "guarded", (s - s') / (s + 1e-7).
        adcc: "means", the harmonic mean of data-set means, or "images", the mean of each image's.
        steps: points of insertion and deletion after the first, or None for one image row of pixels a step.
        patch: side in pixels of squares that are switched as wholes, each taking one row and one column of the next
            along, or None for single pixels.
        auc: widths under a curve: "steps", all alike and 1 together; "fractions" of the pixels; "points", 1 over
            their number, so that n of n + 1 count.
        insertion_first: whether insertion begins with "nothing", or with "one" step done and ends with the image twice.
        insertion_start: "blur" (RISE's kernel), "zero" (the mean color), "mean" (each image's own) or "black".
        deletion_end: the same choice.
        road_percentiles: shares of the pixels that ROAD removes.
        road_noise: standard deviation of the noise on imputed pixels.
        threshold: share of the maximum above which a pixel belongs to the object, for `box_iou`.
        connectivity: 4 or 8.
        thresholds: how many, equally spaced in [0, 1), for `max_box_acc` and `max_box_acc_v2`.
        ious: overlaps that count as a hit in `max_box_acc_v2`.
        quantize: cut maps and thresholds to 8 bits for `max_box_acc` and `max_box_acc_v2`.
        plus_one: compare boxes as WSOL evaluations do: whole corners, the far ones counted as pixels of the box.
        edges: whether the far edges of a box belong to it: "exclusive" or "inclusive".
        tolerance: pixels around an object in which `pointing_game` still hits.
        by_class: average `pointing_game` over classes and not over images.
        sensitivity_radius: half-width of the uniform noise of `max_sensitivity`.
        sensitivity_samples: how many.
        randomization_steps: stages of the cascade.
        similarity: of maps before and after: "spearman", "pearson" or "ssim".
    """

    name: str = "paper"
    source: str = "each metric's own paper"
    score: str = "probability"
    classes: str = "predicted"
    resize: str = "crop"
    masking: str = "after"
    upsample: str = "bilinear"
    rescale: bool = True
    grid: str = "image"
    drop: str = "relative"
    adcc: str = "means"
    steps: int | None = None
    patch: int | None = None
    auc: str = "steps"
    insertion_first: str = "nothing"
    insertion_start: str = "blur"
    deletion_end: str = "zero"
    road_percentiles: tuple[float, ...] = TENTHS
    road_noise: float = 0.01
    threshold: float = 0.2
    connectivity: int = 8
    thresholds: int = 100
    ious: tuple[float, ...] = (0.3, 0.5, 0.7)
    quantize: bool = False
    plus_one: bool = False
    edges: str = "exclusive"
    tolerance: float = 15.0
    by_class: bool = True
    sensitivity_radius: float = 0.02
    sensitivity_samples: int = 10
    randomization_steps: int = 8
    similarity: str = "spearman"

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, list):  # as JSON has them
                value = tuple(value)
                object.__setattr__(self, one.name, value)
            check(one.name, value)

    def with_options(self, options: dict[str, Any]) -> Protocol:
        """This protocol with some fields changed.

        Raises:
            TypeError: no such field.
            ValueError: a value that it cannot have.
        """
        known = [one.name for one in fields(self) if one.name not in ("name", "source")]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
                raise TypeError(f"a protocol has no option {name!r}; nearest: {', '.join(near)}")
        return replace(self, **options) if options else self

    def settings(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(),
        Protocol("adcc", "Poppi 2021, arXiv:2104.10252, and its code", adcc="images", rescale=False),
        Protocol(
            "recipro",
            "Byun and Lee 2024, arXiv:2209.14074, and its evaluation code",
            classes="target",
            resize="warp-crop",
            upsample="pillow",
            grid="layer",
            rescale=False,
            patch=32,
            auc="points",
            insertion_first="one",
            insertion_start="mean",
        ),
        Protocol("rise", "Petsiuk 2018, arXiv:1806.07421, and its code"),
        Protocol(
            "wsol",
            "Choe 2020, arXiv:2001.07437, and its code",
            classes="target",
            resize="warp",
            thresholds=1000,
            quantize=True,
            plus_one=True,
            upsample="bicubic",
        ),
        Protocol("torchray", "Fong 2019 and its code TorchRay", classes="target", tolerance=15.0),
        Protocol(
            "torchcam",
            "torchcam 0.5",
            score="logit",
            rescale=False,
            drop="guarded",
            steps=20,
            auc="fractions",
            insertion_start="zero",
        ),
        Protocol("pytorch-grad-cam", "pytorch-grad-cam 1.5", score="logit", drop="absolute", classes="target"),
    )
}


def find(protocol: str | Protocol) -> Protocol:
    """The protocol of this name.

    Raises:
        ValueError: there is none.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol named {protocol!r}; choose from {', '.join(PROTOCOLS)}, or give a Protocol")
    return PROTOCOLS[protocol]


def require_pictures(metric: str, protocol: Protocol) -> None:
    """Raise where a metric, or what the protocol does, knows rows and columns: signals and volumes were given.

    Args:
        metric: its name.
        protocol: that it follows.
    """
    mend = "leave it out, or choose another protocol"
    if metric == "road":
        raise ValueError("road imputes pixels of pictures (B, C, H, W), not of signals or volumes; leave it out")
    if metric == "randomization" and protocol.similarity == "ssim":
        raise ValueError("similarity='ssim' compares pictures (B, C, H, W); use 'spearman' or 'pearson'")
    if metric in ("deletion", "insertion") and protocol.patch is not None:
        raise ValueError(f"patch={protocol.patch} switches squares of pictures (B, C, H, W); {mend}")
    if protocol.upsample != "bilinear":
        raise ValueError(f"upsample={protocol.upsample!r} resizes maps of pictures (B, C, H, W); {mend}")
