"""Which stream's past to ask for next, and when, within a share of the request weight. Pure.

One page of a stream at a time; the stream whose turn was longest ago comes first, so that a long gap does not hold up
short ones. What the whole IP used and whether it is refused for a while, the REST client's
:class:`~bridge.core.weight.WeightBudget` knows from the exchange's headers; this queue keeps gaps to their share.
Times are seconds of any clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bridge.core.weight import WEIGHT_PER_MINUTE, family, weight_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.core.gap_filling import StreamGaps
    from bridge.core.history import Page
    from bridge.core.weight import Family
    from bridge.model import Market

#: Of the share, what may be spent at once; the rest comes back evenly over the minute. The longer the wait, the more
#: gaps of a stream share a page.
_AT_HAND = 0.25
#: History lags behind the stream, by little as a rule.
_LAG_SECONDS = 1.0
_ERROR_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0


class GapKey(NamedTuple):
    """A stream that misses something."""

    market: Market
    stream: str


class Ask(NamedTuple):
    """A page to ask for now.

    Attributes:
        key: whose.
        path: the endpoint.
        query: the query.
        page: the page.
    """

    key: GapKey
    path: str
    query: dict[str, str | int]
    page: Page


@dataclass(slots=True)
class _Want:
    turn: int
    not_before: float
    asking: bool = False
    errors: int = 0


class GapQueue:
    """The streams that miss something.

    Args:
        weight_share: which share of each IP limit may be spent.
        attempts: requests that may fail before a gap is given up.
        gaps: the open gaps of a stream, or None.
    """

    def __init__(
        self, weight_share: float, attempts: int, gaps: Callable[[Market, str], StreamGaps | None]
    ) -> None:
        self._share, self._attempts, self._gaps = weight_share, attempts, gaps
        self._wants: dict[GapKey, _Want] = {}
        self._turn = 0
        self._spent: dict[Family, tuple[float, float]] = {}
        self._held_until: dict[Family, float] = {}
        self.limits: dict[Family, int] = dict(WEIGHT_PER_MINUTE)

    def want(self, key: GapKey, now: float) -> None:
        """Note that a stream misses something."""
        if key not in self._wants:
            self._wants[key] = _Want(self._next_turn(), now)

    def answered(self, key: GapKey, now: float) -> None:
        """Note that a request was answered; the gaps have seen the answer by now."""
        want, gaps = self._wants[key], self._gaps(*key)
        if gaps is None or not gaps.gaps:
            del self._wants[key]
            return
        want.asking, want.errors, want.turn = False, 0, self._next_turn()
        fruitless = gaps.gaps[0].fruitless
        pause = _LAG_SECONDS * 2.0 ** (fruitless - 1) if fruitless else 0.0
        want.not_before = now + min(_LONGEST_PAUSE_SECONDS, pause)

    def failed(self, key: GapKey, now: float, *, final: bool) -> bool:
        """Note that a request got no answer; return whether to give its gap up.

        Args:
            key: whose.
            now: seconds.
            final: the exchange refuses it, and will.
        """
        want = self._wants[key]
        want.asking, want.turn = False, self._next_turn()
        want.errors += 1
        if final or want.errors >= self._attempts:
            want.errors, want.not_before = 0, now
            return True
        want.not_before = now + min(_LONGEST_PAUSE_SECONDS, _ERROR_SECONDS * 2.0 ** min(want.errors - 1, 10))
        return False

    def hold(self, key: GapKey, now: float, seconds: float) -> None:
        """Ask nothing of a market's family of hosts for a while: the exchange refused the IP."""
        self._wants[key].asking = False
        whose = family(key.market)
        self._held_until[whose] = max(self._held_until.get(whose, 0.0), now + seconds)

    def next(self, now: float) -> Ask | float | None:
        """Return what to ask for now, else the seconds after which to look again, None while nothing waits."""
        soonest: float | None = None
        for key, want in sorted(self._wants.items(), key=lambda one: one[1].turn):
            if want.asking:
                continue
            gaps = self._gaps(*key)
            page = None if gaps is None else gaps.next_page()
            if gaps is None or page is None:
                del self._wants[key]
                continue
            query = gaps.history.query(page)
            weight = weight_of(key.market, gaps.history.path, query)
            ready_at = max(want.not_before, self._room_at(key.market, now, weight))
            if ready_at <= now:
                want.asking = True
                at, spent = self._spent[family(key.market)]
                self._spent[family(key.market)] = at, spent + weight
                return Ask(key, gaps.history.path, query, page)
            soonest = ready_at if soonest is None else min(soonest, ready_at)
        return None if soonest is None else soonest - now

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def _room_at(self, market: Market, now: float, weight: int) -> float:
        """Return when there is room for a request."""
        whose = family(market)
        share = self.limits[whose] * self._share
        most, per_second = share * _AT_HAND, share * (1 - _AT_HAND) / 60
        at, spent = self._spent.get(whose, (now, 0.0))
        spent = max(0.0, spent - max(0.0, now - at) * per_second)
        self._spent[whose] = now, spent
        # A request heavier than what is ever at hand still gets its turn, when nothing is spent.
        wait = max(0.0, spent + min(weight, most) - most) / per_second
        return max(self._held_until.get(whose, 0.0), now + wait)
