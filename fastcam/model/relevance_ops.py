"""Which of LRP's rules each aten operation takes, and what that means for its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from .relevance_rules import divide, share, weighted

if TYPE_CHECKING:
    from .relevance import Walk

Shares = Iterator[tuple[Any, Any]]
Rule = Callable[["Walk", Node, Any], Shares]

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
MERGES = ("conv1d", "conv2d", "conv3d", "linear")  # their weights have the outputs first
PRODUCTS = ("matmul", "mm", "bmm")
# Values that are copied or moved: relevance goes where the value came from. Of a max, it is where the winner stood.
ROUTES = (
    *("view", "_unsafe_view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "movedim", "swapaxes"),
    *("squeeze", "unsqueeze", "expand", "repeat", "slice", "select", "narrow", "split", "split_with_sizes", "chunk"),
    *("unbind", "cat", "stack", "clone", "contiguous", "alias", "detach", "pad", "constant_pad_nd", "roll", "flip"),
    *("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d"),
    *("index", "index_select", "gather", "where", "masked_fill", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
    *("slice_scatter", "im2col", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"),
    *("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "amax", "max"),
)
# One value in, one out, or a normalization: all relevance passes.
PASSES = (
    *("relu", "relu_", "relu6", "hardtanh", "leaky_relu", "prelu", "_prelu_kernel", "elu", "selu", "celu", "gelu"),
    *("silu", "hardswish", "mish", "softplus", "sigmoid", "log_sigmoid", "hardsigmoid", "tanh", "softsign", "rrelu"),
    *("clamp", "clamp_min", "clamp_max", "threshold", "hardshrink", "softshrink", "neg", "abs", "exp", "log", "sqrt"),
    *("pow", "dropout", "feature_dropout", "alpha_dropout", "softmax", "_softmax", "log_softmax", "_log_softmax"),
    *("_to_copy", "to", "layer_norm", "native_layer_norm", "rms_norm", "group_norm", "native_group_norm"),
    *("instance_norm", "_fused_rms_norm", "lift_fresh_copy"),
)
AVERAGES = (
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "mean", "sum"),
    *("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"),
)
GATES = {"sigmoid": 2, "hardsigmoid": 2, "softmax": 2, "_softmax": 2, "tanh": 1, "hardtanh": 1, "relu6": 1, "clamp": 1}


class Several(dict[int, Tensor]):
    """Relevance of an operation that gives several tensors, by their number."""

    def __add__(self, other: Several) -> Several:
        both = {i: self[i] + other[i] for i in self.keys() & other.keys()}
        return Several({**self, **other, **both})


def kind(node: Node) -> str:
    """The name of a node's operation without its overload: aten.add.Tensor is "add"."""
    schema = getattr(node.target, "_schema", None)
    return getattr(node.target, "__name__", str(node.target)) if schema is None else schema.name.split("::")[-1]


def refusal(node: Node, why: str = "has no relevance rule") -> ValueError:
    """What to raise where an operation cannot be walked over."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    where = f"in layer {stack[-1][0].split('@')[0]!r}" if stack and stack[-1][0] else "in the model's own forward"
    return ValueError(
        f"{node.target}, which runs {where}, {why}; use gradcam at a layer, or inputxgradient for the image"
    )


def item(walk: Walk, node: Node, r: Tensor) -> Shares:
    """Relevance of one of several outputs."""
    yield node.args[0], Several({node.args[1]: r})  # type: ignore[dict-item]


def routed(walk: Walk, node: Node, r: Any) -> Shares:
    """Relevance goes where the values came from."""
    values = {n: walk.value(n) for n in node.all_input_nodes}
    moved = {n: v for n, v in values.items() if n in walk.needed and v.is_floating_point()}
    leaves = {n: v.clone().requires_grad_() for n, v in moved.items()}
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: leaves.get(n, values[n]))
    with torch.enable_grad():
        y = node.target(*args, **kwargs)  # type: ignore[operator]
    each = r if isinstance(r, Several) else {0: r}
    outputs = [y[i] if isinstance(y, (tuple, list)) else y for i in each]
    yield from zip(leaves, torch.autograd.grad(outputs, list(leaves.values()), list(each.values())), strict=True)


def passed(walk: Walk, node: Node, r: Any) -> Shares:
    """All relevance passes to the one input."""
    yield node.args[0], r[0] if isinstance(r, Several) else r


def normed(walk: Walk, node: Node, r: Any) -> Shares:
    """A batch norm joins the layer in front of it, where that is asked for and nothing else reads that layer.

    Elsewhere relevance passes: a norm in front of a layer, as in DenseNet, has none to join.
    """
    r, source = r[0] if isinstance(r, Several) else r, node.args[0]
    assert isinstance(source, Node)
    if walk.rules.norm == "merge" and kind(source) in MERGES and len(source.users) == 1 and source in walk.needed:
        places = (1, 2, 3, 4, 6) if kind(node) == "_native_batch_norm_legit_no_training" else (1, 2, 3, 4, 7)
        w, b, mean, var, epsilon = (walk.value(node.args[i]) for i in places)
        scale = (var + epsilon).rsqrt() * (1.0 if w is None else w)
        walk.merged[source] = (scale, (0.0 if b is None else b) - mean * scale)
    yield source, r


def layered(walk: Walk, node: Node, r: Tensor) -> Shares:
    """Convolutions and linear layers, under the rule of their kind."""
    places = (1, 2, 0) if kind(node) == "addmm" else (0, 1, 2)
    source, weights = (node.args[i] for i in places[:2])
    if weights in walk.live:
        raise refusal(node, "has weights made from the image, for which there is no relevance rule")
    x, w = walk.value(source), walk.value(weights)
    b = walk.value(node.args[places[2]]) if places[2] < len(node.args) else None
    if node in walk.merged:
        scale, shift = walk.merged[node]
        w, b = w * scale.reshape(-1, *[1] * (w.dim() - 1)), shift if b is None else b * scale + shift
    dense = kind(node) not in CONVOLUTIONS
    rule, rules = walk.rules.dense if dense else walk.rules.convolution, walk.rules
    if rules.first != "same" and walk.reads_images(source):
        rule = rules.first
    if dense and rules.bias == "twice":
        b = None
    yield source, weighted(walk.function(node, *places), x, w, b, r, rule, rules)


def multiplied(walk: Walk, node: Node, r: Tensor) -> Shares:
    """A matrix product with a constant is a linear layer; with attention weights, these are constants too."""
    left, right = node.args[:2]
    if left in walk.live and right in walk.live:
        gates = [walk.gate(n) for n in (left, right) if isinstance(n, Node)]
        if gates[0] == gates[1]:
            raise refusal(node, "multiplies two matrices made from the image, neither of them a softmax")
        place = 1 if gates[0] > gates[1] else 0
        f = walk.function(node, place)
        yield node.args[place], share(r, [(f, walk.value(node.args[place]))], walk.rules.epsilon)
        return
    places = (0, 1) if left in walk.live else (1, 0)
    source, weights = (node.args[i] for i in places)
    f = walk.function(node, *places)
    x, w = walk.value(source), walk.value(weights)
    yield source, weighted(lambda v, m, _: f(v, m), x, w, None, r, walk.rules.dense, walk.rules)


def attended(walk: Walk, node: Node, r: Tensor) -> Shares:
    """Attention weights are constants: the values share what they gave in all (Ali 2022)."""
    yield node.args[2], share(r, [(walk.function(node, 2), walk.value(node.args[2]))], walk.rules.epsilon)


def averaged(walk: Walk, node: Node, r: Tensor) -> Shares:
    """Each input has the relevance that its share of the sum earns."""
    x = walk.value(node.args[0])
    x = x.clamp(min=0) if walk.rules.average == "zplus" else x
    yield node.args[0], share(r, [(walk.function(node, 0), x)], walk.rules.epsilon)


def added(walk: Walk, node: Node, r: Tensor) -> Shares:
    """Summands share in proportion to what they add; a constant is a bias."""
    first, second = node.args[:2]
    sign = (1 if kind(node) == "add" else -1) * node.kwargs.get("alpha", 1)  # type: ignore[operator]
    if kind(node) == "rsub":
        first, second = second, first
    if first is second:
        yield first, r
        return
    terms = [(first, walk.value(first)), (second, walk.value(second) * sign)]
    if walk.rules.bias != "share":
        terms = [(n, v) for n, v in terms if n in walk.live]
    if len(terms) > 1:
        r = divide(r, terms[0][1] + terms[1][1], walk.rules.epsilon)
    for n, v in terms:
        if isinstance(n, Node):
            yield n, (r * v if len(terms) > 1 else r).sum_to_size(v.shape)


def scaled(walk: Walk, node: Node, r: Tensor) -> Shares:
    """Of a product the signal takes all and the gate, or a constant, nothing; two of a kind take half each.

    A gate is what is broadcast, as in squeeze and excitation, or else what comes from a sigmoid.
    """
    factors = [n for n in node.args[:2] if isinstance(n, Node) and n in walk.live]
    if len(factors) == 2 and factors[0] is not factors[1]:
        sizes = [walk.value(n).numel() for n in factors]
        gates = [walk.gate(n) for n in factors]
        if kind(node) == "div" or sizes[0] > sizes[1] or (sizes[0] == sizes[1] and gates[0] < gates[1]):
            factors = factors[:1]
        elif sizes[0] < sizes[1] or gates[0] > gates[1]:
            factors = factors[1:]
        else:
            r = r / 2
    for n in dict.fromkeys(factors):
        yield n, r.sum_to_size(walk.value(n).shape)


RULES: dict[str, Rule] = {
    "getitem": item,
    "scaled_dot_product_attention": attended,
    "batch_norm": normed,
    "_native_batch_norm_legit_no_training": normed,
    **dict.fromkeys(ROUTES, routed),
    **dict.fromkeys(PASSES, passed),
    **dict.fromkeys((*CONVOLUTIONS, "linear", "addmm"), layered),
    **dict.fromkeys(PRODUCTS, multiplied),
    **dict.fromkeys(AVERAGES, averaged),
    **dict.fromkeys(("add", "sub", "rsub"), added),
    **dict.fromkeys(("mul", "div"), scaled),
}
