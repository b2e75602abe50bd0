"""The methods that join several layers, in loops. Layers are in the order of the network, the last one deepest.

`see` gives what every layer holds for one image: the activations of the named modules, each C grids, and if a class is
given the gradients of its score there. `net` is the whole network in float64, images (n, 3, H, W) -> scores.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor, nn

from tests.formulas import Grid, Target, combine, relu, resize, scale, score_of, zeros
from tests.formulas_perturbed import Net, scores


def see(net: nn.Module, names: list[str], x: Tensor, c: Target) -> list[tuple[list[Grid], list[Grid]]]:
    """A and dy_c/dA of each layer, for one image."""
    seen: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            seen[name] = output
            return output.clone()

        return hook

    modules = dict(net.named_modules())
    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    with torch.enable_grad():
        y = score_of(net(x[None].double().requires_grad_()), c)[0]
        found = torch.autograd.grad(y, [seen[name] for name in names])
    for handle in handles:
        handle.remove()
    return [(seen[name][0].tolist(), g[0].tolist()) for name, g in zip(names, found, strict=True)]


def zoomcam(layers: list[tuple[list[Grid], list[Grid]]], H: int, W: int) -> Grid:
    """Shi et al. 2020: the maximum over layers of up(N((Σ_k g_k A_k)⁺)), N to [0, 1]."""
    out = zeros(H, W)
    for a, g in layers:
        own = zeros(len(a[0]), len(a[0][0]))
        for i, j in product(range(len(own)), range(len(own[0]))):
            own[i][j] = relu(math.fsum(g[k][i][j] * a[k][i][j] for k in range(len(a))))
        up = resize(scale(own), H, W)
        out = [[max(one, other) for one, other in zip(*rows, strict=True)] for rows in zip(out, up, strict=True)]
    return out


def percentile(values: list[float], percent: float) -> float:
    """Linear between the sorted values, the first at 0 and the last at 100."""
    values = sorted(values)
    at = percent / 100 * (len(values) - 1)
    low = min(int(at), len(values) - 2)
    return values[low] + (at - low) * (values[low + 1] - values[low])


def polycam_mask(grid: Grid) -> Grid:
    """(A - low) / high within [0, 1], with the percentiles 0.1 and 99.9."""
    values = [value for row in grid for value in row]
    low, high = percentile(values, 0.1), max(percentile(values, 99.9), 1e-12)
    return [[min(max((value - low) / high, 0.0), 1.0) for value in row] for row in grid]


def polycam(
    net: Net, x: Tensor, c: Target, activations: list[list[Grid]], variant: str = "+-", probability: bool = True
) -> Grid:
    """Englebert et al. 2022, the authors' code: from the last layer on, L_l = LNorm((Σ_k w_k A_k)⁺) up(L_(l+1))."""
    y = scores(net, [x.double()], c, probability)[0]
    joined: Grid | None = None
    for a in reversed(activations):
        masks = [torch.tensor(resize(polycam_mask(grid), *x.shape[1:]), dtype=torch.float64) for grid in a]
        kept = scores(net, [x * mask for mask in masks], c, probability)
        left = scores(net, [x * (1 - mask) for mask in masks], c, probability)
        each = zip(kept, left, strict=True)
        weights = {
            "+": kept,
            "-": [relu(y - r) for r in left],
            "+-": [relu(s + y - r) for s, r in each],
        }[variant]
        own = [[relu(value) for value in row] for row in combine(weights, a)]
        if joined is not None:
            h, w = len(own), len(own[0])
            around = resize(resize(own, len(joined), len(joined[0])), h, w)
            coarse = resize(joined, h, w)
            for i, j in product(range(h), range(w)):
                own[i][j] = own[i][j] / max(around[i][j], 1e-12) * coarse[i][j]
        joined = own
    assert joined is not None
    return polycam_mask(joined)
