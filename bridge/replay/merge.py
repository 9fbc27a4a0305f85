"""Puts what several partitions hold into one order, as far as it is known yet."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

Place = TypeVar("Place")
Item = TypeVar("Item")
Order = tuple[int, ...]


class Merge(Generic[Place, Item]):
    """Each place gives its items in order; out comes the order of all.

    An item is due when every place that is not at its end has a later one waiting.
    """

    def __init__(self) -> None:
        self._waiting: dict[Place, deque[tuple[Order, Item]]] = {}
        self._heads: list[tuple[Order, int, Place]] = []
        self._numbers: dict[Place, int] = {}

    def push(self, place: Place, items: Iterable[tuple[Order, Item]]) -> None:
        """Take more items of a place, in its order."""
        queue = self._waiting.setdefault(place, deque())
        empty = not queue
        queue.extend(items)
        if empty and queue:
            self._head(place)

    def waiting(self, place: Place) -> int:
        """Return how many items of a place wait."""
        return len(self._waiting.get(place, ()))

    def due(self, unfinished: Collection[Place]) -> Iterator[tuple[Place, Item]]:
        """Yield what is due; ``unfinished`` are the places that may still give more."""
        missing = sum(1 for place in unfinished if not self.waiting(place))
        while self._heads and not missing:
            _, _, place = heappop(self._heads)
            queue = self._waiting[place]
            _, item = queue.popleft()
            if queue:
                self._head(place)
            elif place in unfinished:
                missing += 1
            yield place, item

    def _head(self, place: Place) -> None:
        # Items themselves are never compared: the place's number decides between equals.
        number = self._numbers.setdefault(place, len(self._numbers))
        heappush(self._heads, (self._waiting[place][0][0], number, place))
