"""Which book's snapshot to ask for next, and when, within a share of the request weight. Pure.

Times are seconds since the epoch: the exchange counts weight by calendar minutes. What the whole IP used and
whether it is refused for a while, the REST client's :class:`~bridge.core.weight.WeightBudget` knows from the
exchange's headers; this queue keeps books to their share and in the best order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bridge.core.weight import WEIGHT_PER_MINUTE, family, weight_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridge.core.book_sync import Urgency
    from bridge.core.weight import Family
    from bridge.model import Market

DEPTH_PATH: Mapping[Market, str] = {
    "spot": "/api/v3/depth",
    "usdm": "/fapi/v1/depth",
    "coinm": "/dapi/v1/depth",
}
_MOST_LEVELS: Mapping[Market, int] = {"spot": 5000, "usdm": 1000, "coinm": 1000}
_ORDER: Mapping[Urgency, int] = {"resync": 0, "first": 1, "refresh": 2}
_WINDOW_SECONDS = 60
#: After the turn of the minute, for clocks that differ.
_MARGIN_SECONDS = 0.5
_SETTLED_SECONDS = 60.0
_LEAST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0


class BookKey(NamedTuple):
    """A book: the stream it follows."""

    market: Market
    stream: str


class Ask(NamedTuple):
    """A snapshot to ask for now.

    Attributes:
        key: whose.
        symbol: the exchange symbol.
        limit: levels a side.
        weight: what it costs.
    """

    key: BookKey
    symbol: str
    limit: int
    weight: int


@dataclass(slots=True)
class _Want:
    symbol: str
    urgency: Urgency
    not_before: float
    asking: bool = False
    again: bool = False


@dataclass(slots=True)
class _Record:
    """How a book fared: a book that is lost again soon after it was in sync waits longer each time."""

    wants: int = 0
    joined_at: float | None = None

    def pause(self, now: float) -> float:
        settled = self.joined_at is not None and now - self.joined_at > _SETTLED_SECONDS
        self.joined_at = None
        self.wants = 1 if settled else self.wants + 1
        if self.wants == 1:
            return 0.0
        return min(_LONGEST_PAUSE_SECONDS, _LEAST_PAUSE_SECONDS * 2.0 ** min(self.wants - 2, 10))


class BookQueue:
    """The books that want a snapshot.

    Args:
        depth: levels a side to ask for; futures give 1000 at most.
        weight_share: which share of each IP limit books may spend.
    """

    def __init__(self, depth: int, weight_share: float) -> None:
        self._depth, self._share = depth, weight_share
        self._wants: dict[BookKey, _Want] = {}
        self._records: dict[BookKey, _Record] = {}
        self._window: dict[Family, tuple[int, int]] = {}
        self._held_until: dict[Family, float] = {}
        self.limits: dict[Family, int] = dict(WEIGHT_PER_MINUTE)

    def __len__(self) -> int:
        """Return how many books wait for a snapshot, those being asked for included."""
        return len(self._wants)

    # What is told

    def want(self, key: BookKey, symbol: str, urgency: Urgency, now: float) -> float:
        """Note that a book wants a snapshot; return after how many seconds it may be asked for at the earliest."""
        pause = self._records.setdefault(key, _Record()).pause(now)
        want = self._wants.get(key)
        if want is None:
            self._wants[key] = _Want(symbol, urgency, now + pause)
            return pause
        want.again = want.asking
        want.urgency = min(want.urgency, urgency, key=_ORDER.__getitem__)
        want.not_before = max(want.not_before, now + pause) if want.asking else want.not_before
        return max(0.0, want.not_before - now)

    def joined(self, key: BookKey, now: float) -> None:
        """Note that a book is in sync."""
        self._records.setdefault(key, _Record()).joined_at = now
        want = self._wants.get(key)
        if want is not None and want.asking:
            want.again = False
        elif want is not None:
            del self._wants[key]

    def answered(self, key: BookKey) -> None:
        """Note that a request was answered; the book has seen the answer by now."""
        want = self._wants.get(key)
        if want is not None and want.again:
            want.asking = want.again = False
        elif want is not None:
            del self._wants[key]

    def failed(self, key: BookKey, now: float) -> float:
        """Note that a request got no answer; return after how many seconds it may be asked again."""
        want = self._wants[key]
        pause = self._records.setdefault(key, _Record()).pause(now)
        want.asking = want.again = False
        want.not_before = max(want.not_before, now + pause)
        return want.not_before - now

    def hold(self, market: Market, now: float, seconds: float) -> None:
        """Ask nothing of a market's family of hosts for a while: the exchange refused the IP."""
        whose = family(market)
        self._held_until[whose] = max(self._held_until.get(whose, 0.0), now + seconds)

    # What is asked

    def next(self, now: float, busy: Callable[[BookKey], int]) -> Ask | float | None:
        """Return what to ask for now, else the seconds after which to look again, None while nothing waits.

        Lost books come first, then those never in sync, then those whose known depth runs out; of each kind the
        busiest (by ``busy``).
        """
        best: tuple[tuple[int, int], BookKey, _Want] | None = None
        soonest: float | None = None
        for key, want in self._wants.items():
            if want.asking:
                continue
            ready_at = max(want.not_before, self._room_at(key.market, now))
            if ready_at > now:
                soonest = ready_at if soonest is None else min(soonest, ready_at)
                continue
            rank = (_ORDER[want.urgency], -busy(key))
            if best is None or rank < best[0]:
                best = rank, key, want
        if best is None:
            return None if soonest is None else soonest - now
        return self._ask(best[1], best[2], now)

    def _ask(self, key: BookKey, want: _Want, now: float) -> Ask:
        want.asking = True
        weight = self._weight(key.market)
        window, used = self._spent(family(key.market), now)
        self._window[family(key.market)] = window, used + weight
        return Ask(key, want.symbol, self._limit(key.market), weight)

    def estimate_seconds(self, now: float) -> float:
        """Return in how many seconds all that wait will have been asked for, if every answer joins."""
        return max((self._estimate(whose, now) for whose in self.limits), default=0.0)

    def _estimate(self, whose: Family, now: float) -> float:
        weights = [
            self._weight(key.market)
            for key, want in self._wants.items()
            if family(key.market) == whose and not want.asking
        ]
        if not weights:
            return 0.0
        begin = max(now, self._held_until.get(whose, 0.0))
        window, used = self._spent(whose, begin)
        first = window
        share = self.limits[whose] * self._share
        for weight in weights:
            if used and used + weight > share:
                window, used = window + 1, 0
            used += weight
        return (begin if window == first else window * _WINDOW_SECONDS + _MARGIN_SECONDS) - now

    # Weight

    def _limit(self, market: Market) -> int:
        return min(self._depth, _MOST_LEVELS[market])

    def _weight(self, market: Market) -> int:
        return weight_of(market, DEPTH_PATH[market], {"limit": self._limit(market)})

    def _spent(self, whose: Family, now: float) -> tuple[int, int]:
        window = int(now // _WINDOW_SECONDS)
        known, used = self._window.get(whose, (window, 0))
        return (window, used) if known == window else (window, 0)

    def _room_at(self, market: Market, now: float) -> float:
        """Return when there is room for one more request: now, or the next minute."""
        whose = family(market)
        held = self._held_until.get(whose, 0.0)
        window, used = self._spent(whose, now)
        # A request heavier than the whole share still gets its turn, alone in a minute.
        if used and used + self._weight(market) > self.limits[whose] * self._share:
            return max(held, (window + 1) * _WINDOW_SECONDS + _MARGIN_SECONDS)
        return held
