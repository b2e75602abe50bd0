"""What a protocol's fields may be, and what the registry says of protocols and metrics."""

from __future__ import annotations

from dataclasses import fields

import pytest

from fastcam.metrics import PROTOCOLS, Protocol
from fastcam.metrics.fields import KINDS

WRONG = {
    "name": (None, 3),
    "source": (None,),
    "rescale": ("no", 1, None),
    "quantize": ("maybe", 0),
    "plus_one": ("false", "true", 1),
    "by_class": ("yes",),
    "steps": (0, -1, True, 2.5, "3"),
    "patch": (0, -3, True, 1.5, "16"),
    "thresholds": (0, -1, True, 10.0, None),
    "sensitivity_samples": (0, True, "2"),
    "randomization_steps": (0, None),
    "ious": ((), 0.5, (0.0,), (1.5,), ("0.5",), (True,), (float("nan"),), None),
    "road_percentiles": ((), 0.5, (50,), (1.0,), (0,), ("a",), None),
    "road_noise": (-0.1, "little", None, float("nan"), True),
    "threshold": (1, -0.1, "abc", float("nan"), None),
    "tolerance": ("abc", -1, float("inf"), None, (3,)),
    "sensitivity_radius": (0, -1, "wide", None),
    "connectivity": (6, 8.0, "8", True, None),
    "score": ("odds", 1, None, ["logit"]),
}
RIGHT = {
    "steps": (None, 1, 20),
    "patch": (None, 1, 32),
    "ious": ((0.5,), [0.3, 1.0]),
    "road_percentiles": ((0.5,), [0.1]),
    "road_noise": (0, 0.5),
    "threshold": (0, 0.99),
    "tolerance": (0, 15, 2.5),
    "connectivity": (4, 8),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(ValueError, match=rf"protocol: {name}=.* is not allowed; give ") as found:
        Protocol(**{name: value})
    assert repr(value).strip("[]()") in str(found.value)
    assert KINDS[name].words in str(found.value)
    if name not in ("name", "source"):
        with pytest.raises(ValueError, match=f"{name}="):
            PROTOCOLS["wsol"].with_options({name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in RIGHT.items() for value in values])
def test_a_right_value_is_kept(name, value):
    kept = getattr(Protocol(**{name: value}), name)
    assert kept == (tuple(value) if isinstance(value, list) else value)
    assert not isinstance(kept, list)


def test_every_field_is_checked():
    names = [one.name for one in fields(Protocol)]
    assert set(KINDS) == set(names)
    for name in names:
        with pytest.raises(ValueError, match=f"{name}="):
            Protocol(**{name: object()})
