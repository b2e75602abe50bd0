"""What methods ask beyond the score's own gradient: that of a difference, second derivatives, attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from .evidence import Options


@dataclass(frozen=True)
class Contrasts:
    """`g` = dS/dA as `Gradients` give it, of a score that sets a class against those that score nearest to it.

    Attributes:
        contrast: (logits (B, classes), y (B, T), references (B, T, n), options) -> S (B, T).
    """

    contrast: Callable[[Tensor, Tensor, Tensor, Options], Tensor]
    at: ClassVar[str] = "layer"
    grad: ClassVar[bool] = True
    needs: ClassVar[str] = "gradients at the layer, and logits of several classes"
    cost: ClassVar[str] = "1 F + 1 tail backward; GAP tail: 1 F"


@dataclass(frozen=True)
class Curvature:
    """`g` = dS/dA and `h` = H A, (B, T, C, h, w) each, H the second derivatives of S by the activations.

    Attributes:
        utility: (logits (B, classes), classes (B, T), options) -> S (B, T), what is differentiated for classes.
    """

    utility: Callable[[Tensor, Tensor, Options], Tensor]
    at: ClassVar[str] = "layer"
    grad: ClassVar[bool] = True
    needs: ClassVar[str] = "gradients and second derivatives at the layer"
    cost: ClassVar[str] = "1 F + 2 tail backwards; GAP tail: 1 F"


@dataclass(frozen=True)
class Attention:
    """`p`, each layer's attention (B, 1, heads, N, N), queries by keys, and `query` (N,), the share of each query.

    N are all tokens. `query` is 1 at the class token, or the same at every cell where none decides.

    Attributes:
        gradients: whether `g`, each layer's dS/dp (B, T, heads, N, N), is asked for, between `p` and `query`.
    """

    gradients: bool
    at: ClassVar[str] = "input"
    grad: ClassVar[bool] = False  # its own forward records from the first attention on

    @property
    def needs(self) -> str:
        """What it asks of the network, in words."""
        return "attention between all tokens" + (", and gradients there" if self.gradients else "")

    @property
    def cost(self) -> str:
        """In forwards F and backwards through the network B."""
        return "1 F + 1 B" if self.gradients else "1 F"


Derivatives = Contrasts | Curvature | Attention


def whole(value: Any) -> bool:
    """Whether an option is an int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: Any) -> bool:
    """Whether an option is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
