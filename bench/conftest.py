"""Device of a run, and the tolerance table of the tests: an op is right before it is fast."""

from __future__ import annotations

import contextlib

import pytest
import torch

from tests.conftest import close

__all__ = ["close"]


def pytest_addoption(parser):
    with contextlib.suppress(ValueError):  # the tests' conftest has it already where both are collected
        parser.addoption("--device", default="cpu", help="where the benchmarks run: cpu (default), cuda, cuda:1, ...")


@pytest.fixture
def device(request):
    return torch.device(request.config.getoption("--device"))
