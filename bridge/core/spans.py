"""Sets of whole numbers as sorted spans: ids or times that were seen, in memory that grows with the holes only."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Span(NamedTuple):
    """Numbers from ``first`` to ``last``, both included.

    Attributes:
        first: the first.
        last: the last.
    """

    first: int
    last: int


class Spans:
    """A set of whole numbers; neighbours are one span."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in spans:
            self.add(first, last)

    def __iter__(self) -> Iterator[Span]:
        return map(Span, self._firsts, self._lasts)

    def __len__(self) -> int:
        """How many spans it takes."""
        return len(self._firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Spans({[tuple(span) for span in self]})"

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def add(self, first: int, last: int) -> int:
        """Add the numbers from ``first`` to ``last``; return how many of them were there already."""
        firsts, lasts = self._firsts, self._lasts
        if first > last:
            return 0
        if not lasts or first > lasts[-1] + 1:
            firsts.append(first)
            lasts.append(last)
            return 0
        if first == lasts[-1] + 1:  # the next in order, nearly always
            lasts[-1] = last
            return 0
        low, high = bisect_left(lasts, first - 1), bisect_right(firsts, last + 1)
        repeated = sum(max(0, min(last, lasts[n]) - max(first, firsts[n]) + 1) for n in range(low, high))
        if low < high:
            first, last = min(first, firsts[low]), max(last, lasts[high - 1])
        firsts[low:high], lasts[low:high] = [first], [last]
        return repeated

    def remove(self, first: int, last: int) -> None:
        """Take the numbers from ``first`` to ``last`` away."""
        low, high = bisect_left(self._lasts, first), bisect_right(self._firsts, last)
        if first > last or low >= high:
            return
        left = [(self._firsts[low], first - 1)] if self._firsts[low] < first else []
        if self._lasts[high - 1] > last:
            left.append((last + 1, self._lasts[high - 1]))
        self._firsts[low:high] = [one for one, _ in left]
        self._lasts[low:high] = [one for _, one in left]

    def minus(self, other: Spans) -> Spans:
        """Return what ``other`` does not have of it."""
        return Spans(left for span in self for left in other.outside(*span))

    def intersection(self, other: Spans) -> Spans:
        """Return what both have."""
        return Spans(both for span in self for both in other.within(*span))

    def plus(self, other: Spans) -> Spans:
        """Return what either has."""
        joined = Spans(self)
        for span in other:
            joined.add(*span)
        return joined

    def within(self, first: int, last: int) -> Iterator[Span]:
        """Yield what it has of the numbers from ``first`` to ``last``, in order."""
        low, high = bisect_left(self._lasts, first), bisect_right(self._firsts, last)
        for n in range(low, high):
            yield Span(max(first, self._firsts[n]), min(last, self._lasts[n]))

    def outside(self, first: int, last: int) -> Iterator[Span]:
        """Yield what it lacks of the numbers from ``first`` to ``last``, in order."""
        at = first
        for span in self.within(first, last):
            if span.first > at:
                yield Span(at, span.first - 1)
            at = span.last + 1
        if at <= last:
            yield Span(at, last)
