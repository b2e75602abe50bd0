"""What every meta-method has: the method inside, options, a name, and how its combined maps become an explanation."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from fastcam.explanation import Explanation, finish
from fastcam.inputs import check_images, check_rank
from fastcam.methods.registry import find
from fastcam.model.capture import evaluation
from fastcam.model.tally import counting
from fastcam.targets import TargetSpec

from .call import Call

if TYPE_CHECKING:
    from fastcam.cam import CAM


@dataclasses.dataclass(frozen=True)
class Meta(abc.ABC):
    """A method of methods: it runs the one inside on versions of the images and combines the maps.

    Attributes:
        base: the method inside: its name, or another meta-method.
    """

    base: str | Meta

    formula: ClassVar[str]
    paper: ClassVar[str]
    cost: ClassVar[str]  # in runs of the method inside, R, and forwards, F
    ranks: ClassVar[tuple[int, ...]] = (2,)  # numbers of spatial axes that it can explain

    def __post_init__(self) -> None:
        """Check the base."""
        if not isinstance(self.base, Meta):
            if not isinstance(self.base, str):
                raise TypeError(
                    f"{type(self).__name__} takes a method's name or a meta-method, got {self.base!r}; "
                    f"write {type(self).__name__}('gradcam')"
                )
            object.__setattr__(self, "base", find(self.base).name)

    @property
    def kind(self) -> str:
        """The class's name as it is written in a method's: "sess"."""
        return type(self).__name__.lower()

    @property
    def name(self) -> str:
        """As in "sess(gradcam)"; options are not part of it."""
        return f"{self.kind}({self.base if isinstance(self.base, str) else self.base.name})"

    @property
    def chain(self) -> list[Meta]:
        """This one and those inside, the outermost first."""
        return [self, *(self.base.chain if isinstance(self.base, Meta) else [])]

    @property
    def plain(self) -> str:
        """The name of the method at the bottom."""
        return self.base.plain if isinstance(self.base, Meta) else self.base

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Options and the values they have otherwise."""
        return {one.name: one.default for one in dataclasses.fields(cls) if one.name != "base"}

    @property
    def settings(self) -> dict[str, Any]:
        """Options as plain values, which can be written and compared."""
        return {name: _plain(getattr(self, name)) for name in self.defaults()}

    def changed(self, options: dict[str, Any]) -> Meta:
        """The same with other options.

        Raises:
            ValueError: a value that cannot be.
        """
        return dataclasses.replace(self, **options) if options else self

    def explain(
        self,
        inner: CAM,
        images: Tensor,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        target: TargetSpec = None,
        differentiable: bool = False,
    ) -> Explanation:
        """The combined maps; the classes are those of the images themselves, in every version.

        Args:
            inner: the method inside, on the model.
            images: (B, C, H, W)
            args: further inputs of the model.
            kwargs: the same by name.
            target: see `CAM.__call__`.
            differentiable: keep the graph.

        Returns:
            An `Explanation` whose `raw` is the combined map before it is scaled to [0, 1]: at the images' size, but for
            `Refine` with variant="layer".
        """
        check_images(images, inner.network.model, inner.network.precision, alone=not (args or kwargs))
        check_rank(images, self.name, self.ranks)
        call = Call(inner, images, args, kwargs or {}, target, differentiable)
        with (
            evaluation(inner.network.model),
            torch.inference_mode(False),
            torch.set_grad_enabled(differentiable),
            counting() as cost,
        ):
            raw = self.combine(call)
            single, classes, logits = call.target.single, call.target.classes, call.logits
            maps = finish(raw, tuple(images.shape[2:]), "never") if self.rescales else raw.float()
        return Explanation(
            maps=maps[:, 0] if single else maps,
            raw=raw[:, 0] if single else raw,
            logits=logits,
            target=classes[:, 0] if classes is not None and single else classes,
            layer=inner.layer_names,
            method=self.name,
            cost=cost,
        )

    @property
    def rescales(self) -> bool:
        """Whether the combined map is scaled to [0, 1] once more."""
        return True

    @abc.abstractmethod
    def combine(self, call: Call) -> Tensor:
        """The combined map (B, T, H, W), at least zero."""


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Tensor):
        return value.tolist()
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
