"""The metrics of pytorch-grad-cam, torchcam, captum and Quantus, each asked for values of given maps.

All of them see one small network in float64, two images of 14 x 18 pixels and maps without ties.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from captum.metrics import sensitivity_max
from pytorch_grad_cam.metrics import arcc, cam_mult_image, road
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, SoftmaxOutputTarget
from scipy.sparse import linalg
from torch import Tensor, nn
from torchcam import metrics as torchcam

from tests import formulas, small
from tests import formulas_perturb as perturb
from tests.formulas_metrics import values

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # at import: Quantus and what it imports
    import quantus

SIZE = (14, 18)
TARGETS = [3, 1]


@functools.cache
def network(channels: int = 3) -> nn.Module:
    model = small.network(seed=4).double()
    if channels == 1:
        body, *tail = model
        model = nn.Sequential(nn.Conv2d(1, 8, 3, 2), *body[1:], *tail).double()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model[-1].weight.mul_(12)  # probabilities that differ
    return model.eval()


class TakesFloat(nn.Module):
    """The network for peers that hand over float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.double())


@functools.cache
def pictures(channels: int = 3) -> Tensor:
    """Numbers that float32 holds: pytorch-grad-cam's ROAD takes no others."""
    return torch.randn(2, channels, *SIZE, generator=torch.Generator().manual_seed(3)).double()


@functools.cache
def maps(seed: int = 5) -> Tensor:
    """In [0, 1], with both ends reached, as a finished map is."""
    m = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = m.amin((1, 2), keepdim=True), m.amax((1, 2), keepdim=True)
    return (m - low) / (high - low)


def masks() -> Tensor:
    out = torch.zeros(2, *SIZE, dtype=torch.bool)
    out[0, 2:9, 4:12], out[1, 5:14, 0:7] = True, True
    return out


def scores(image: Tensor, channels: int = 3, softmax: bool = True) -> list[float]:
    with torch.no_grad():
        out = network(channels)(image[None].double())[0]
    return (out.softmax(0) if softmax else out).tolist()


def score(n: int, channels: int = 3) -> Callable[[Tensor], float]:
    return lambda image: scores(image, channels)[TARGETS[n]]


class Given:
    """An extractor for torchcam's metrics that answers with the maps it was given."""

    def __init__(self, answer: Tensor, model: nn.Module) -> None:
        self.model, self.answer = model, answer

    def __call__(self, *_args: object, **_options: object) -> list[Tensor]:
        return [self.answer]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


def torchcam_summary(name: str, answer: Tensor, logits: bool = False, **options: object) -> dict[str, float]:
    """One image at a time, as the metric gives sums."""
    out: dict[str, float] = {}
    for n in range(len(answer)):
        metric = getattr(torchcam, name)(Given(answer[n : n + 1], network()), None if logits else softmax, **options)
        metric.update(pictures()[n : n + 1], TARGETS[n])
        for key, value in metric.summary().items():
            out[key] = out.get(key, 0.0) + value / len(answer)
    return out


class Probability(ClassifierOutputTarget):
    def __call__(self, model_output: Tensor) -> Tensor:
        return SoftmaxOutputTarget()(model_output[None])[0, self.category]


def categories() -> list[Probability]:
    return [Probability(c) for c in TARGETS]


def grad_cam(name: str, answer: Tensor, *args: object) -> Tensor:
    module = cam_mult_image if hasattr(cam_mult_image, name) else road
    metric = getattr(module, name)(*args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", linalg.MatrixRankWarning)  # where it removes every pixel
        warnings.filterwarnings("ignore", "__array_wrap__", DeprecationWarning)  # np.argwhere of a tensor
        out = metric(pictures().float(), answer.numpy(), categories(), TakesFloat(network()))
    return torch.as_tensor(out).double()


def grad_cam_coherency(answer: Tensor, second: Tensor) -> Tensor:
    """Its Coherency of given maps: the method answers with the second ones."""
    out = arcc.Coherency()(pictures(), answer.numpy(), categories(), network(), lambda **_: second.numpy())
    return torch.from_numpy(out)


@contextlib.contextmanager
def silent_noise() -> Iterator[None]:
    """pytorch-grad-cam draws ROAD's noise without a seed; here it draws zeros."""
    kept = road.torch
    road.torch = SimpleNamespace(**{**vars(kept), "randn_like": torch.zeros_like})  # type: ignore[assignment]
    try:
        yield
    finally:
        road.torch = kept


def our_road(selected: Callable[..., list[list[bool]]], order: str, shares: Sequence[float]) -> list[list[float]]:
    """The score of each image at each share, without noise."""
    none = torch.zeros(3, *SIZE)
    return [
        [perturb.road(score(n), pictures()[n], selected(values(maps()[n]), share, order), none) for share in shares]
        for n in range(2)
    ]


def quantus_metric(name: str, answer: Tensor, channels: int = 3, **options: object) -> list:
    """A metric of Quantus on given maps; `masks` are the segmentation."""
    call = {key: options.pop(key) for key in ("s_batch", "explain_func", "softmax", "batch_size") if key in options}
    targets = options.pop("targets", TARGETS)
    metric = getattr(quantus, name)(disable_warnings=True, display_progressbar=False, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 of maps or masks that are all zero
        warnings.simplefilter("ignore", UserWarning)  # that a segmentation is empty
        return metric(
            model=TakesFloat(network(channels)).eval(),
            x_batch=pictures(channels).numpy(),
            y_batch=np.array(targets),
            a_batch=answer[:, None].numpy().copy(),
            device="cpu",
            **call,
        )


def quantus_sensitivity(answer: Tensor, samples: Sequence[Tensor], **options: object) -> Tensor:
    """Its MaxSensitivity, where the n-th explanation of a perturbed input is samples[n]."""
    later = iter(samples)
    explain = lambda **_: next(later)[:, None].numpy()  # noqa: E731
    kept = quantus_metric("MaxSensitivity", answer, nr_samples=len(samples), explain_func=explain, **options)
    return torch.tensor(np.array(kept))


def captum_sensitivity(answer: Tensor, samples: Tensor) -> Tensor:
    """Its sensitivity_max; it asks for the map of the input, then for n maps of each image, image by image."""
    asked = iter([answer, samples.transpose(0, 1).flatten(0, 1)])
    return sensitivity_max(lambda *_: (next(asked),), pictures(), n_perturb_samples=len(samples))


def level(values_: Tensor, levels: int) -> Tensor:
    return (values_.double() * levels).floor() / levels


def contour_boxes(grid: formulas.Grid, threshold: float, multiple: bool = False) -> list[list[int]]:
    """The boxes of the WSOL evaluation, from OpenCV's contours."""
    image = (np.array(grid) * 255).astype(np.uint8)
    _, on = cv2.threshold(image, int(threshold * image.max()), 255, cv2.THRESH_BINARY)
    contours = cv2.findContours(on, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return [[0, 0, 0, 0]]
    chosen = contours if multiple else [max(contours, key=cv2.contourArea)]
    h, w = image.shape
    sides = [cv2.boundingRect(contour) for contour in chosen]
    return [[x, y, min(x + dx, w - 1), min(y + dy, h - 1)] for x, y, dx, dy in sides]


def imputed_by_grad_cam(image: Tensor, kept: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array_wrap__", DeprecationWarning)
        return road.NoisyLinearImputer(noise=0.0)(image, kept)


def imputed_by_quantus(image: Tensor, kept: Tensor) -> Tensor:
    holes = np.flatnonzero(kept.numpy().ravel() == 0)
    return torch.from_numpy(quantus.functions.perturb_func.noisy_linear_imputation(image.numpy(), holes, noise=0.0))


def cascade(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Quantus's cascading randomization: the layer and the one network, changed further at each step."""
    wrapped = quantus.helpers.model.pytorch_model.PyTorchModel(model, device="cpu")
    yield from wrapped.get_random_layer_generator("top_down")
