"""Keeps what stays out of the garbage collector's sight.

A shard's streams are some hundred thousand objects that live as long as it does. A full collection looks at each of
them, for a tenth of a second and more, while everything waits. So they are frozen (:func:`gc.freeze`) once they have
settled; what is made later is collected as ever.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SETTLED_SECONDS = 10.0
_AGAIN_SECONDS = 3600.0
"""What was frozen and has gone since in a cycle, such as a connection, is found this often."""


class Collector:
    """Freezes a while after what stays has changed, and every hour; each time but the first by a full collection."""

    def __init__(self) -> None:
        self._staying: frozenset[int] = frozenset()
        self._due: float | None = None

    def look(self, staying: Iterable[object], now: float) -> None:
        """Freeze if it is time to.

        Args:
            staying: what stays; objects by their identity.
            now: monotonic seconds.
        """
        found = frozenset(map(id, staying))
        if found != self._staying:
            self._staying, self._due = found, now + _SETTLED_SECONDS
        elif self._due is not None and now >= self._due:
            self._due = now + _AGAIN_SECONDS
            if gc.get_freeze_count():
                gc.unfreeze()
                gc.collect()
            gc.freeze()

    def end(self) -> None:
        """Leave the collector as it was found."""
        self._due = None
        gc.unfreeze()


@contextmanager
def seldom() -> Iterator[None]:
    """Collect seldom meanwhile: for a job in which much is made that waits a while and goes, none of it in cycles."""
    before = gc.get_threshold()
    gc.set_threshold(_SELDOM, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


_SELDOM = 100_000
