"""A metric as a protocol wants it."""

from __future__ import annotations

import inspect
from typing import Any

from torchmetrics import Metric

from .protocols import Protocol
from .registry import MetricInfo


def build(info: MetricInfo, protocol: Protocol, num_classes: int) -> Metric:
    """A new metric whose arguments are the protocol's fields of the same name.

    Args:
        info: which.
        protocol: its settings.
        num_classes: of the data set.
    """
    fields: dict[str, Any] = protocol.settings()
    fields |= {
        "num_classes": num_classes,
        "percentiles": len(protocol.road_percentiles),
        "steps": protocol.randomization_steps,
    }
    if info.name == "max_box_acc":
        fields["ious"] = (0.5,)
    taken = inspect.signature(info.kind.__init__).parameters.values()
    names: set[str] = {one.name for one in taken}
    for base in info.kind.__mro__:
        if "__init__" in vars(base) and base is not Metric and any(one.kind is one.VAR_KEYWORD for one in taken):
            names |= set(inspect.signature(base.__init__).parameters)
        if base is Metric:
            break
    return info.kind(**{name: value for name, value in fields.items() if name in names})
