"""torchcam's explain: the prediction, the maps of the predicted and of the expected class, and a folder of both."""

from __future__ import annotations

import contextlib
import inspect
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import fastcam
from fastcam.compat import torchcam

from .methods import FinerCAM, GradCAM, RefineCAM
from .methods.core import _CAM
from .utils import overlay_mask

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PredictionExplanation", "explain"]

EXTRACTORS = (_CAM, FinerCAM, RefineCAM)  # the last two wrap another one


@dataclass(frozen=True)
class PredictionExplanation:
    """A prediction, its maps, and what they were made with.

    Attributes:
        logits: (1, classes), on the CPU.
        predicted_class_idx: the class with the highest logit.
        expected_class_idx: the one asked for, if any.
        cams: of each of the two, one map (h, w) a layer, float32 on the CPU.
        method: name of the extractor's class.
        target_layers: names of the layers.
        model: name of the model's class.
        input_shape: (1, C, H, W).
        versions: of Python, torch, fastcam and the torchcam that it follows.
        class_names: of all classes, if given.
    """

    logits: Tensor
    predicted_class_idx: int
    expected_class_idx: int | None
    cams: Mapping[int, tuple[Tensor, ...]]
    method: str
    target_layers: tuple[str, ...]
    model: str
    input_shape: tuple[int, ...]
    versions: Mapping[str, str]
    class_names: tuple[str, ...] | None = None

    def save(self, directory: str | Path, image: Image, alpha: float = 0.5) -> Path:
        """Write each map as .npy, as a gray picture and over the image, and last of all a manifest of them.

        Args:
            directory: a new one; nothing of it stays where something fails.
            image: what was explained, at any size.
            alpha: weight of the image under the map, from 0.0 to below 1.0.

        Returns:
            The directory.

        Raises:
            TypeError: `image` is no Pillow image.
            FileExistsError: the directory is there already.
        """
        from PIL import Image

        if not isinstance(image, Image.Image):
            raise TypeError(f"`image` must be a PIL image, got {type(image).__name__}; Image.open(path) reads one")
        folder = Path(directory)
        if folder.exists():
            raise FileExistsError(f"output directory already exists: {folder}; give a new one")
        folder.mkdir(parents=True)
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, folder)
            shares = self.logits.float().softmax(1)[0]
            classes = {
                str(one): {
                    **self._reference(one),
                    "logit": float(self.logits[0, one]),
                    "probability": float(shares[one]),
                    "artifacts": [
                        self._write(folder, f"class-{one}-layer-{number}", layers, cam, image, alpha)
                        for number, (layers, cam) in enumerate(zip(self._layers_of(maps), maps, strict=True))
                    ],
                }
                for one, maps in sorted(self.cams.items())
            }
            expected = self.expected_class_idx
            manifest = {
                "schema_version": 1,
                "prediction": self._reference(self.predicted_class_idx),
                "expected": None if expected is None else self._reference(expected),
                "classes": classes,
                "method": self.method,
                "target_layers": list(self.target_layers),
                "model": self.model,
                "input_shape": list(self.input_shape),
                "versions": dict(self.versions),
                "image_size": list(image.size),
                "alpha": alpha,
            }
            text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n"
            (folder / "manifest.json").write_text(text, encoding="utf-8")
            undo.pop_all()
        return folder

    def _layers_of(self, maps: tuple[Tensor, ...]) -> list[tuple[str, ...]]:
        """The layers that each map was made of: one map of several layers is made of all."""
        return [self.target_layers] if len(maps) == 1 else [(name,) for name in self.target_layers]

    def _reference(self, one: int) -> dict[str, int | str | None]:
        return {"class_idx": one, "class_name": None if self.class_names is None else self.class_names[one]}

    @staticmethod
    def _write(
        folder: Path, stem: str, layers: tuple[str, ...], cam: Tensor, image: Image, alpha: float
    ) -> dict[str, Any]:
        from PIL import Image

        values = cam.numpy()
        names = {"map": f"{stem}.npy", "heatmap": f"{stem}-heatmap.png", "overlay": f"{stem}-overlay.png"}
        np.save(folder / names["map"], values, allow_pickle=False)
        Image.fromarray(np.rint(255 * values.clip(0, 1)).astype(np.uint8)).save(folder / names["heatmap"])
        overlay_mask(image, Image.fromarray(values), alpha=alpha).save(folder / names["overlay"])
        return {"target_layers": list(layers), **names}


def explain(
    model: nn.Module,
    input_tensor: Tensor,
    *,
    expected_class_idx: int | None = None,
    class_names: Sequence[str] | None = None,
    method: type[Any] = GradCAM,
    target_layer: nn.Module | str | list[nn.Module | str] | None = None,
    method_kwargs: Mapping[str, Any] | None = None,
) -> PredictionExplanation:
    """The maps of the predicted class, and of the expected one where that is another, of one picture.

    Args:
        model: in evaluation mode; it stays as it is.
        input_tensor: (1, C, H, W).
        expected_class_idx: a class to be explained beside the predicted one.
        class_names: of all classes.
        method: an extractor's class, of `fastcam.compat.torchcam.methods`.
        target_layer: see there; None finds one for pictures of this size.
        method_kwargs: further arguments of the class.

    Returns:
        All of it, on the CPU and detached.

    Raises:
        RuntimeError: inside `torch.inference_mode()`.
        TypeError: an argument of another kind, or a model that gives no tensor.
        ValueError: a model in training mode, an input or output of another shape, NaN, or a class that is not there.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("`explain` cannot run inside torch.inference_mode(), for maps need gradients; use no_grad()")
    _validate_request(model, input_tensor, expected_class_idx, method, method_kwargs)
    given = dict(method_kwargs or {})
    if "target_layer" in given:
        raise ValueError("pass `target_layer` directly, not through `method_kwargs`")
    if target_layer is not None:
        given["target_layer"] = target_layer
    elif _takes_input_shape(method):
        given.setdefault("input_shape", tuple(input_tensor.shape[1:]))

    x = (input_tensor.clone() if input_tensor.is_inference() else input_tensor).detach().requires_grad_()
    with torch.enable_grad(), _gradients_kept(model), method(model, **given) as extractor:
        logits = _validate_logits(model(x))
        predicted = int(logits[0].argmax())
        names = _validate_classes(expected_class_idx, class_names, logits.shape[1])
        cams = {predicted: _prepare_maps(extractor(predicted, logits))}
        if expected_class_idx is not None and expected_class_idx != predicted:
            again = _validate_logits(model(x))
            if again.shape != logits.shape:
                raise ValueError(
                    f"model output shape changed between two forwards of one input, from {tuple(logits.shape)} to "
                    f"{tuple(again.shape)}"
                )
            cams[expected_class_idx] = _prepare_maps(extractor(expected_class_idx, again))
        return PredictionExplanation(
            logits=logits.detach().cpu(),
            predicted_class_idx=predicted,
            expected_class_idx=expected_class_idx,
            cams=MappingProxyType(cams),
            method=method.__name__,
            target_layers=tuple(extractor.target_names),
            model=f"{type(model).__module__}.{type(model).__qualname__}",
            input_shape=tuple(input_tensor.shape),
            versions=MappingProxyType(
                {
                    "python": platform.python_version(),
                    "torch": str(torch.__version__),
                    "torchcam": torchcam.__version__,
                    "fastcam": fastcam.__version__,
                }
            ),
            class_names=names,
        )


@contextlib.contextmanager
def _gradients_kept(model: nn.Module):
    """Whatever an extractor of the user's own does, parameters have the `.grad` that they had."""
    kept = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


def _takes_input_shape(method: type[Any]) -> bool:
    """Whether the class has `input_shape`, or hands on what it does not know."""
    parameters = inspect.signature(method).parameters
    return "input_shape" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _validate_logits(output: Any) -> Tensor:
    """The output itself, where it is (1, classes) and finite."""
    if not isinstance(output, Tensor):
        raise TypeError(
            f"model output must be a tensor, got a {type(output).__name__}; wrap models that return tuples or "
            "dictionaries"
        )
    if output.dim() != 2 or len(output) != 1 or output.shape[1] < 1:
        raise ValueError(f"model output must have shape (1, num_classes), got {tuple(output.shape)}")
    if not output.isfinite().all():
        raise ValueError("model output contains non-finite logits; check the weights and the input")
    return output


def _prepare_maps(maps: list[Tensor]) -> tuple[Tensor, ...]:
    """Maps (1, h, w) as (h, w) float32 on the CPU, where they are finite."""
    if not maps:
        raise ValueError("extractor returned no CAMs")
    for cam in maps:
        if not isinstance(cam, Tensor) or cam.dim() != 3 or len(cam) != 1:
            got = tuple(cam.shape) if isinstance(cam, Tensor) else type(cam).__name__
            raise ValueError(f"CAMs must have shape (1, height, width), got {got}")
        if not cam.isfinite().all():
            raise ValueError("CAM contains non-finite values; check the weights, or choose another layer")
    return tuple(cam[0].detach().to("cpu", torch.float32).contiguous() for cam in maps)


def _validate_request(model: Any, input_tensor: Any, expected_class_idx: Any, method: Any, method_kwargs: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    if any(module.training for module in model.modules()):
        raise ValueError("`model` must be in evaluation mode; call model.eval() first")
    if not isinstance(input_tensor, Tensor):
        raise TypeError(f"`input_tensor` must be a torch.Tensor, got {type(input_tensor).__name__}")
    if input_tensor.dim() != 4 or len(input_tensor) != 1:
        raise ValueError(f"`input_tensor` must have shape (1, C, H, W), got {tuple(input_tensor.shape)}")
    if not input_tensor.is_floating_point():
        raise ValueError(f"`input_tensor` must have a floating-point dtype, got {input_tensor.dtype}; use .float()")
    if expected_class_idx is not None and (
        not isinstance(expected_class_idx, int) or isinstance(expected_class_idx, bool)
    ):
        raise TypeError(f"`expected_class_idx` must be an integer or None, got {expected_class_idx!r}")
    if not isinstance(method, type) or not issubclass(method, EXTRACTORS):
        raise TypeError(f"`method` must be an extractor class of fastcam.compat.torchcam.methods, got {method!r}")
    if method_kwargs is not None and not isinstance(method_kwargs, Mapping):
        raise TypeError(f"`method_kwargs` must be a mapping or None, got {method_kwargs!r}")


def _validate_classes(expected: int | None, class_names: Any, count: int) -> tuple[str, ...] | None:
    if expected is not None and not 0 <= expected < count:
        raise ValueError(f"`expected_class_idx` {expected} is outside the model output range, 0 to {count - 1}")
    if class_names is None:
        return None
    if isinstance(class_names, str) or len(class_names) != count:
        raise ValueError(f"`class_names` length must match the model's {count} classes")
    if any(not isinstance(name, str) for name in class_names):
        raise TypeError("every class name must be a string")
    return tuple(class_names)
