"""What was told once and must not be told again, in bounded memory."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class Remembered:
    """Names with their times; the oldest are forgotten one by one, and then nothing that old counts as new any more.

    Args:
        most: how many names to remember.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[Hashable] = set()
        self._by_time: list[tuple[int, int, Hashable]] = []
        self._added = 0
        self._forgotten_until = -1

    def __contains__(self, name: object) -> bool:
        """Tell whether a name is remembered."""
        return name in self._names

    def __len__(self) -> int:
        """Return how many names are remembered."""
        return len(self._names)

    def add(self, name: Hashable, time: int) -> bool:
        """Remember a name; return False where it is known, or as old as what was forgotten."""
        if name in self._names or time <= self._forgotten_until:
            return False
        self._names.add(name)
        self._added += 1
        heappush(self._by_time, (time, self._added, name))
        if len(self._names) > self._most:
            oldest, _, gone = heappop(self._by_time)
            self._names.discard(gone)
            self._forgotten_until = max(self._forgotten_until, oldest)
        return True
