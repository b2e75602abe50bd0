"""Images and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .boxes import inclusive, pad_boxes
from .protocols import Protocol


@dataclass
class Batch:
    """What all methods share.

    Attributes:
        images: (B, C, H, W), (B, C, L) or (B, C, D, H, W)
        scorer: runs the model alone.
        protocol: decides the numbers.
        target: (B,) labels, where there are any.
        boxes: (B, N, 4), where there are any.
        corners: (B, N, 4), the same as the protocol compares them: whole and inclusive with plus_one.
        masks: (B, H, W) bool, where there are any.
        ignored: (B, H, W) bool, pixels that masks say nothing of, where there are any.
        ids: an int an image, which seeds what is random for it.
        seed: of the run.
        black: (C, 1, 1) value of black in normalized images.
        known: logits of what does not depend on the images, by what it is.
    """

    images: Tensor
    scorer: Any
    protocol: Protocol
    target: Tensor | None
    boxes: Tensor | None
    corners: Tensor | None
    masks: Tensor | None
    ignored: Tensor | None
    ids: list[int]
    seed: int
    black: Tensor | None
    known: dict[Any, Tensor] = field(default_factory=dict)

    def generators(self, what: int) -> list[torch.Generator]:
        """A source of random numbers for each image, the same wherever and whenever it is scored."""
        return [torch.Generator().manual_seed(hash((self.seed, one, what)) % 2**63) for one in self.ids]

    @classmethod
    def of(
        cls,
        images: Tensor,
        target: Tensor | Sequence[int] | None,
        boxes: Sequence[Tensor] | Tensor | None,
        masks: Tensor | None,
        ids: Sequence[int],
        ignored: Tensor | None,
        corners: Sequence[Tensor] | Tensor | None,
        *,
        protocol: Protocol,
        black: Tensor | None,
        **shared: Any,
    ) -> Batch:
        """A checked batch; arguments as `Evaluation.update` takes them.

        Raises:
            ValueError: shapes that do not fit each other.
            TypeError: images that are no floating-point tensor.
        """
        whole = isinstance(images, Tensor) and images.dim() in (3, 4, 5) and images.is_floating_point()
        if not whole or not len(images):
            got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(
                "images must be a floating-point tensor (B, C, H, W), or signals (B, C, L) or volumes "
                f"(B, C, D, H, W), got {got}"
            )
        count, size = len(images), tuple(images.shape[2:])
        if images.dim() != 4 and (boxes is not None or masks is not None):
            raise ValueError(f"boxes and masks are of pictures (B, C, H, W), got images {tuple(images.shape)}")
        if target is not None:
            target = torch.as_tensor(target, device=images.device)
            if target.shape != (count,) or target.is_floating_point():
                raise ValueError(f"target must hold {count} class indices, got {target.dtype} {tuple(target.shape)}")
            target = target.long()
        for name, pixels in (("masks", masks), ("ignored", ignored)):
            if pixels is not None and tuple(pixels.shape) != (count, *size):
                shape = tuple(pixels.shape)
                raise ValueError(f"{name} has shape {shape}, expected {(count, *size)} as the images have")
        for name, pixels, other in (("ignored", ignored, "masks"), ("corners", corners, "boxes")):
            if pixels is not None and {"masks": masks, "boxes": boxes}[other] is None:
                raise ValueError(f"{name} without {other}; give both")
        if len(ids) != count:
            raise ValueError(f"{len(ids)} ids for {count} images; give one each")
        padded = None if boxes is None else pad_boxes(boxes, count).to(images.device)
        if padded is None or not protocol.plus_one:
            compared = padded
        else:
            compared = inclusive(padded) if corners is None else pad_boxes(corners, count).to(images.device)
        return cls(
            images=images,
            target=target,
            boxes=padded,
            corners=compared,
            masks=None if masks is None else masks.to(images.device).bool(),
            ignored=None if ignored is None else ignored.to(images.device).bool(),
            ids=[int(one) for one in ids],
            protocol=protocol,
            black=None if black is None else black.to(images),
            **shared,
        )

    def lacks(self, needs: tuple[str, ...]) -> bool:
        """Whether what a metric needs is missing."""
        has = {"boxes": self.boxes is not None, "masks": self.masks is not None, "target": self.target is not None}
        return not all(any(has[one] for one in need.split(" or ")) for need in needs)


def black(mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor | None:
    """The value that black has in normalized images. (C, 1, 1)"""
    if mean is None and std is None:
        return None
    if mean is None or std is None or len(mean) != len(std):
        raise ValueError(f"mean and std must have one number a channel each, got {mean} and {std}")
    return (-torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64))[:, None, None]
