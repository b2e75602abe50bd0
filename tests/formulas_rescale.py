"""LIFT-CAM: DeepLIFT's Rescale rule written out layer by layer, for a tail that is a list of layers."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor, nn

from tests.formulas import Grid, Halves, Target, activations_of, combine

TINY = 1e-10  # below this input difference the multiplier of a nonlinearity is its slope, as in captum


def liftcam(
    net: Halves, x: Tensor, c: Target, layers: list[nn.Module], slopes: tuple[type[nn.Module], ...] = ()
) -> Grid:
    """Jung & Oh 2021, eqs. 7-9: w_k = Σ_ij C_kij, C = A ⊙ m the DeepLIFT contributions of A against zero.

    Layers of the types in `slopes` hand on their gradient at A in place of a multiplier.
    """
    a = activations_of(net, x)
    m = multipliers(layers, a, c, slopes)
    weights = [math.fsum((a[k] * m[k]).flatten().tolist()) for k in range(len(a))]
    return combine(weights, a.tolist())


def multipliers(layers: list[nn.Module], a: Tensor, c: Target, slopes: tuple[type[nn.Module], ...] = ()) -> Tensor:
    """m with y_c(A) - y_c(0) = Σ m A (Shrikumar et al. 2017, eqs. 2-4): the chain rule on differences."""
    inputs, references = [a], [torch.zeros_like(a)]
    with torch.no_grad():
        for layer in layers:
            inputs.append(layer(inputs[-1][None].clone())[0])
            references.append(layer(references[-1][None].clone())[0])
    m = torch.zeros_like(inputs[-1])
    assert isinstance(c, int)
    m[c] = 1.0
    for layer, into, reference in zip(reversed(layers), inputs[-2::-1], references[-2::-1], strict=True):
        m = slope(layer, into, m) if isinstance(layer, slopes) else backward(layer, into, reference, m)
    return m


def slope(layer: nn.Module, x: Tensor, m: Tensor) -> Tensor:
    """The gradient of a layer, which is what a rule that knows nothing of it hands on."""
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(layer(x[None].clone())[0], x, m)[0]


def backward(layer: nn.Module, x: Tensor, x0: Tensor, m: Tensor) -> Tensor:
    """Multipliers before a layer, from those after it."""
    if isinstance(layer, nn.Flatten):
        return m.reshape(x.shape)
    if isinstance(layer, nn.Linear):
        return linear(layer, m)
    if isinstance(layer, nn.BatchNorm2d):
        return batch_norm(layer, m)
    if isinstance(layer, nn.Conv2d):
        return convolution(layer, x, m)
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return average_pool(layer, x, m)
    if isinstance(layer, nn.MaxPool2d):
        return max_pool(layer, x, x0, m)
    return nonlinearity(layer, x, x0, m)


def nonlinearity(layer: nn.Module, x: Tensor, x0: Tensor, m: Tensor) -> Tensor:
    """Rescale rule (Shrikumar et al. 2017, eq. 11): m_in = m_out Δout/Δin, one unit at a time."""
    result = []
    for value, start, after in zip(x.flatten(), x0.flatten(), m.flatten().tolist(), strict=True):
        delta = float(value - start)
        if abs(delta) < TINY:
            point = value.clone().requires_grad_()
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(layer(point * 1.0), point)
            result.append(after * float(slope))
        else:
            with torch.no_grad():
                result.append(after * float(layer(value.clone()) - layer(start.clone())) / delta)
    return torch.tensor(result, dtype=torch.float64).reshape(x.shape)


def linear(layer: nn.Linear, m: Tensor) -> Tensor:
    out = torch.zeros(layer.in_features, dtype=torch.float64)
    for o in range(layer.out_features):
        for i in range(layer.in_features):
            out[i] += layer.weight.data[o, i] * m[o]
    return out


def batch_norm(layer: nn.BatchNorm2d, m: Tensor) -> Tensor:
    assert layer.running_var is not None
    out = torch.zeros_like(m)
    for k in range(len(m)):
        out[k] = m[k] * layer.weight.data[k] / math.sqrt(float(layer.running_var[k]) + layer.eps)
    return out


def convolution(layer: nn.Conv2d, x: Tensor, m: Tensor) -> Tensor:
    """Each output hands its multiplier times the weight to each input it read; no groups or dilation."""
    (sy, sx), (py, px), (ky, kx) = layer.stride, layer.padding, layer.kernel_size  # type: ignore[misc]
    out = torch.zeros_like(x)
    _, h, w = x.shape
    for i, j in product(range(m.shape[1]), range(m.shape[2])):
        for di, dj in product(range(ky), range(kx)):
            u, v = i * sy + di - py, j * sx + dj - px
            if 0 <= u < h and 0 <= v < w:
                out[:, u, v] += layer.weight.data[:, :, di, dj].T @ m[:, i, j]
    return out


def average_pool(layer: nn.AdaptiveAvgPool2d, x: Tensor, m: Tensor) -> Tensor:
    _, h, w = x.shape
    out = torch.zeros_like(x)
    rows, columns = m.shape[1:]
    for i, j in product(range(rows), range(columns)):
        ys = range(i * h // rows, -(-(i + 1) * h // rows))
        xs = range(j * w // columns, -(-(j + 1) * w // columns))
        for u, v in product(ys, xs):
            out[:, u, v] += m[:, i, j] / (len(ys) * len(xs))
    return out


def max_pool(layer: nn.MaxPool2d, x: Tensor, x0: Tensor, m: Tensor) -> Tensor:
    """Δout goes to one input of a window: the winner of x where the output rose, else of the reference.

    The multiplier there is m Δout / Δin. It is captum's rule, which holds where windows do not overlap.
    """
    size, stride, pad = int(layer.kernel_size), int(layer.stride), int(layer.padding)  # type: ignore[arg-type]
    out = torch.zeros_like(x)
    for k, i, j in product(range(len(x)), range(m.shape[1]), range(m.shape[2])):
        window = [
            (u, v)
            for u in range(max(i * stride - pad, 0), min(i * stride - pad + size, x.shape[1]))
            for v in range(max(j * stride - pad, 0), min(j * stride - pad + size, x.shape[2]))
        ]
        top = max(window, key=lambda cell: float(x[(k, *cell)]))
        top0 = max(window, key=lambda cell: float(x0[(k, *cell)]))
        delta = float(x[(k, *top)] - x0[(k, *top0)])
        u, v = top if delta > 0 else top0
        moved = float(x[k, u, v] - x0[k, u, v])
        if abs(moved) >= TINY:
            out[k, u, v] += float(m[k, i, j]) * delta / moved
        else:
            out[k, top[0], top[1]] += float(m[k, i, j])
    return out
