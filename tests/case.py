"""How cases are registered and drawn; `tests.cases` holds them."""

from __future__ import annotations

import torch

CASES = {}


def case(op, *names):
    """Register a function (name, dtype, device) -> arguments under each of its names."""

    def add(make):
        for name in names:
            CASES.setdefault(op, {})[name] = lambda dtype, device="cpu", name=name: make(name, dtype, device)
        return make

    return add


def normal(shape, dtype, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, dtype)


def output(name, shape, dtype, device):
    """The `out` argument that the end of a case's name asks for."""
    out = torch.full(shape, 7.0, dtype=dtype, device=device)
    if name.endswith("out_last"):
        return {"out": out.contiguous(memory_format=torch.channels_last)}
    return {"out": out.to(torch.float16)} if name.endswith("out_half") else {}
