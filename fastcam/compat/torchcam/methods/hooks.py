"""Hooks that keep no extractor alive, travel with no copy of the network, and fall silent when asked."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

# While a network runs for an extractor's own ends, no other extractor on it may take note: None, or (who may listen,).
_ALONE: ContextVar[tuple[Any, ...] | None] = ContextVar("alone", default=None)


@contextlib.contextmanager
def alone(*listening: Any) -> Iterator[None]:
    """Forwards inside are seen by the hooks of these extractors and of no others."""
    token = _ALONE.set(listening)
    try:
        yield
    finally:
        _ALONE.reset(token)


class Hook:
    """Calls a method of an extractor for as long as that one lives.

    The network holds the hook and the hook holds the extractor weakly, so `del extractor` removes its hooks. A copy of
    the network, or a saved one, has a hook of no extractor in its place.

    Args:
        extractor: whose method is called.
        method: its name; looked up at each call, so that subclasses and patched objects are heard.
        idx: which of the target layers, for methods that ask.
    """

    def __init__(self, extractor: Any, method: str, idx: int | None = None) -> None:
        self._extractor = (lambda: None) if extractor is None else weakref.ref(extractor)
        self._method = method
        self._idx = idx

    def _heard(self) -> Any:
        extractor, listening = self._extractor(), _ALONE.get()
        silent = listening is not None and not any(one is extractor for one in listening)
        return None if extractor is None or silent else extractor

    @property
    def idle(self) -> bool:
        """Whether a call would do nothing; fastcam folds a network under masked forwards if all its hooks are idle."""
        extractor = self._heard()
        return extractor is None or not extractor._hooks_enabled

    def __call__(self, *args: Any) -> Any:
        """What the method gives, as a hook of torch."""
        extractor = self._heard()
        if extractor is None:
            return None
        given = {} if self._idx is None else {"idx": self._idx}
        return getattr(extractor, self._method)(*args, **given)

    def __reduce__(self) -> Any:
        """Copied and saved as a hook of no extractor."""
        return (Hook, (None, self._method, self._idx))
