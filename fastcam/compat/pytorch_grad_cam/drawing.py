"""The way of plain classes: fastcam's engine gives signed maps, which are scaled as pytorch-grad-cam scales them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastcam import CAM, Explanation
from fastcam.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from fastcam.compat.pytorch_grad_cam.asking import Asked, ImagesFirst, Inputs
from fastcam.compat.pytorch_grad_cam.recorded import in_numpy, recorded
from fastcam.model.outputs import NoMapError

if TYPE_CHECKING:
    from fastcam.compat.pytorch_grad_cam.base_cam import BaseCAM

PACKAGE = __name__.rpartition(".")[0]
Join = Callable[[list[Tensor]], Tensor]
HOOKS = ("get_cam_weights", "get_cam_image", "compute_cam_per_layer")


def overridden(cam: BaseCAM, *names: str) -> bool:
    """Whether a subclass, or someone who assigned to the object, replaced one of these methods of ours."""
    if any(name in cam.__dict__ for name in names):
        return True
    kind = type(cam)
    home = next(one for one in kind.__mro__ if one.__module__.startswith(PACKAGE))
    return kind is not home and any(getattr(kind, name) is not getattr(home, name) for name in names)


def drawn(cam: BaseCAM, inputs: Inputs, asked: Asked, eigen_smooth: bool) -> Tensor:
    """The maps of a batch in [0, 1], on the images' device. (B, H, W) or (B, T, H, W)

    Args:
        cam: asked.
        inputs: of the call.
        asked: the targets.
        eigen_smooth: see a call.
    """
    if engine_serves(cam, eigen_smooth):
        return explained(cam, inputs, asked, eigen_smooth)
    columns: list[list[Any] | None] = [None] if asked.columns is None else list(asked.columns)
    maps = [torch.as_tensor(recorded(cam, inputs, column, eigen_smooth)) for column in columns]
    found = maps[0] if asked.single else torch.stack(maps, 1)
    return found.float().to(inputs.images.device)


def engine_serves(cam: BaseCAM, eigen_smooth: bool) -> bool:
    """Whether nothing asks for arrays."""
    return (
        cam._method is not None
        and cam._plain(eigen_smooth)
        and not overridden(cam, *HOOKS)
        and type(cam.activations_and_grads) is ActivationsAndGradients
        and (cam._method_is_at_input or inside(cam.model, cam.target_layers))
    )


def inside(model: nn.Module, layers: list[nn.Module]) -> bool:
    """Whether the layers are parts of the model that it knows of, and none is the model itself."""
    known = set(model.modules())
    return all(layer in known and layer is not model for layer in layers)


def as_given(output: Any) -> Any:
    """A layer's output as it is, for layers whose map is one cell."""
    return output


def engine(cam: BaseCAM, inputs: Inputs, eigen_smooth: bool, reshape: Any) -> CAM:
    """The object of fastcam for this one, kept while nothing about it changes."""
    batch = getattr(cam, "batch_size", None)
    layers = None if cam._method_is_at_input else cam.target_layers
    options = cam._options()
    key = (
        id(cam.model), inputs.place, eigen_smooth, reshape, batch, cam.max_memory, repr(cam._output),
        None if layers is None else tuple(map(id, layers)), tuple(options.items()),
    )  # fmt: skip
    if cam._engine is None or cam._engine[0] != key:
        model = cam.model if inputs.place == 0 else ImagesFirst(cam.model, inputs.place)
        made = CAM(
            model,
            cam._method or "",
            layers,
            batch_size="auto" if batch is None else batch,
            max_memory=cam.max_memory,
            output=cam._output,
            reshape=reshape,
            combine="eigen" if eigen_smooth and not cam._gives_map else "sum",
            **options,
        )
        cam._engine = (key, made)
    return cam._engine[1]


def explained(cam: BaseCAM, inputs: Inputs, asked: Asked, eigen_smooth: bool, join: Join | None = None) -> Tensor:
    """The engine's maps, scaled; `join` makes one of the layers', (N, 1, H, W) each, instead of their mean."""
    reshape = cam.activations_and_grads.reshape_transform
    specs = [any_score] * len(asked.columns or [None]) if cam._targetless else asked.specs()
    found: list[Explanation] = []
    for spec in specs:
        try:
            one = ask(engine(cam, inputs, eigen_smooth, reshape), inputs, spec)
        except NoMapError:
            if reshape is not None or cam._method_is_at_input:
                raise
            one = ask(engine(cam, inputs, eigen_smooth, as_given), inputs, spec)
        found.append(one)
    cam.outputs = found[0].logits
    column = None if asked.columns is None else asked.columns[0]
    cam.activations_and_grads.expect(inputs, column, cam._output)
    maps = [finished(cam, inputs, one, join) for one in found]
    return maps[0] if len(maps) == 1 and maps[0].dim() == inputs.images.dim() else _joined(maps, asked)


def _joined(maps: list[Tensor], asked: Asked) -> Tensor:
    return maps[0] if asked.single else torch.stack(maps, 1)


def any_score(logits: Any) -> Tensor:
    """A target that methods without targets never ask."""
    return torch.zeros(len(logits))


def ask(engine: CAM, inputs: Inputs, spec: Any) -> Explanation:
    """One call of the engine; maps are data, whatever the mode around."""
    with torch.no_grad():
        return engine.explain(inputs.images, *inputs.args, target=spec, **inputs.kwargs)


def finished(cam: BaseCAM, inputs: Inputs, found: Explanation, join: Join | None) -> Tensor:
    """Maps (B, H, W) or (B, T, H, W) of an explanation, each layer's to [0, 1] before their mean is."""
    raws = found.raw if isinstance(found.raw, list) else [found.raw]
    rank = inputs.images.dim() - 2
    size = cam.get_target_width_height(inputs.images)
    own = join is not None or overridden(cam, "aggregate_multi_layers")
    usual = tuple(size)[::-1] == tuple(inputs.images.shape[2:]) and not own
    if len(raws) == 1 and cam._clipped and usual and not (cam.strict_compat and rank == 3):
        return found.maps
    several = raws[0].dim() > rank + 1
    per_layer = []
    for raw in raws:
        flat = cam._signed(raw.flatten(0, 1) if several else raw)
        per_layer.append(cam._scaled(flat.relu(), size)[:, None])
    if join is not None:
        joined = join(per_layer)[:, 0]
    elif own:
        joined = torch.as_tensor(cam.aggregate_multi_layers([in_numpy(one) for one in per_layer]))
        joined = joined.to(inputs.images.device)
    else:
        joined = cam.aggregate_multi_layers(per_layer)
    return joined.unflatten(0, raws[0].shape[:2]) if several else joined
