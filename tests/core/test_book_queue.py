"""Which snapshot is asked for next: order, weight, pauses, and how long it will take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from bridge.core.book_queue import Ask, BookKey, BookQueue
from bridge.core.weight import WEIGHT_PER_MINUTE, WeightBudget, family

if TYPE_CHECKING:
    from bridge.core.weight import Family
    from bridge.model import Market

MINUTE = 1_795_305_600.0
"""The turn of a minute."""
A, B, C = BookKey("spot", "a"), BookKey("spot", "b"), BookKey("spot", "c")
FUTURES = BookKey("usdm", "f")


def idle(key: BookKey) -> int:
    """Return how busy a book is: not at all."""
    return 0


def keys(queue: BookQueue, now: float, busy: dict[BookKey, int] | None = None) -> list[BookKey]:
    """Return what is asked for now, in order."""
    found = []
    while isinstance(turn := queue.next(now, lambda key: (busy or {}).get(key, 0)), Ask):
        found.append(turn.key)
    return found


def test_lost_books_come_first_then_new_ones_then_shallow_ones() -> None:
    """Of each kind the busiest."""
    queue = BookQueue(1000, 0.5)
    for name, urgency in (("e", "refresh"), ("a", "first"), ("b", "first"), ("c", "resync"), ("d", "resync")):
        queue.want(BookKey("spot", name), name.upper(), urgency, MINUTE)
    busy = {BookKey("spot", "b"): 5, BookKey("spot", "d"): 7, BookKey("spot", "e"): 99}
    assert [key.stream for key in keys(queue, MINUTE, busy)] == ["d", "c", "b", "a", "e"]
    assert queue.next(MINUTE, idle) is None
    assert len(queue) == 5


@pytest.mark.parametrize(
    ("market", "depth", "limit", "weight"),
    [
        ("spot", 5000, 5000, 250),
        ("spot", 1000, 1000, 50),
        ("spot", 100, 100, 5),
        ("usdm", 5000, 1000, 20),
        ("coinm", 500, 500, 10),
    ],
)
def test_request_asks_for_what_the_market_has(market: Market, depth: int, limit: int, weight: int) -> None:
    """Futures give a thousand levels at most; the weight is that of the facts sheets."""
    queue = BookQueue(depth, 0.5)
    queue.want(BookKey(market, "x"), "X", "first", MINUTE)
    assert queue.next(MINUTE, idle) == Ask(BookKey(market, "x"), "X", limit, weight)


def test_weight_of_a_minute_is_kept_to() -> None:
    """Spot's half is 60 requests of 50; then the next minute's turn; futures have their own limit."""
    queue = BookQueue(1000, 0.5)
    for n in range(70):
        queue.want(BookKey("spot", str(n)), str(n), "first", MINUTE)
    queue.want(FUTURES, "F", "first", MINUTE)
    assert len(keys(queue, MINUTE + 10)) == 61
    assert queue.next(MINUTE + 10, idle) == 50.5
    assert len(keys(queue, MINUTE + 60.5)) == 10
    queue.limits["spot"] = 1000  # what exchangeInfo says counts
    queue.want(A, "A", "first", MINUTE + 61)
    assert queue.next(MINUTE + 61, idle) == 59.5


def test_request_beyond_the_share_has_a_minute_of_its_own() -> None:
    """Else it would never be made."""
    queue = BookQueue(5000, 0.01)
    queue.want(A, "A", "first", MINUTE)
    queue.want(B, "B", "first", MINUTE)
    assert keys(queue, MINUTE) == [A]
    assert queue.estimate_seconds(MINUTE) == 60.5
    assert keys(queue, MINUTE + 60.5) == [B]


def test_answered_requests_are_done_unless_the_book_wants_another() -> None:
    """An answer that was too old has made the book ask again, after a growing pause."""
    queue = BookQueue(1000, 0.5)
    assert queue.want(A, "A", "first", MINUTE) == 0.0
    pauses = []
    now = MINUTE
    for _ in range(9):
        assert keys(queue, now) == [A]
        pauses.append(queue.want(A, "A", "first", now))
        queue.answered(A)
        assert keys(queue, now) == []
        now += pauses[-1]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert keys(queue, now) == [A]
    queue.answered(A)
    assert len(queue) == 0


def test_joined_book_wants_nothing() -> None:
    """Whether it was waiting or the answer is the one that joined."""
    queue = BookQueue(1000, 0.5)
    queue.want(A, "A", "first", MINUTE)
    queue.joined(A, MINUTE)
    assert (len(queue), keys(queue, MINUTE)) == (0, [])
    queue.want(B, "B", "first", MINUTE)
    assert keys(queue, MINUTE) == [B]
    queue.want(B, "B", "resync", MINUTE)
    queue.joined(B, MINUTE)
    queue.answered(B)
    assert len(queue) == 0


def test_book_that_is_lost_again_and_again_waits_longer() -> None:
    """But one that was in sync for a minute is asked for at once."""
    queue = BookQueue(1000, 0.5)
    now, pauses = MINUTE, []
    for _ in range(4):
        pauses.append(queue.want(A, "A", "resync", now))
        now += pauses[-1]
        assert keys(queue, now) == [A]
        queue.joined(A, now)
        queue.answered(A)
        now += 5
    assert pauses == [0, 0.5, 1, 2]
    assert queue.want(A, "A", "resync", now + 60) == 0.0


def test_more_urgent_wish_replaces_the_one_that_waits() -> None:
    """A book that is lost while its refresh waits goes to the front."""
    queue = BookQueue(1000, 0.5)
    queue.want(A, "A", "refresh", MINUTE)
    queue.want(B, "B", "first", MINUTE)
    queue.want(A, "A", "resync", MINUTE)
    assert keys(queue, MINUTE) == [A, B]
    assert len(queue) == 2


def test_failed_request_is_made_again_after_a_pause() -> None:
    """The exchange may not know the symbol any more, or be away."""
    queue = BookQueue(1000, 0.5)
    queue.want(A, "A", "first", MINUTE)
    assert keys(queue, MINUTE) == [A]
    assert queue.failed(A, MINUTE) == 0.5
    assert queue.next(MINUTE, idle) == 0.5
    assert keys(queue, MINUTE + 0.5) == [A]
    assert queue.failed(A, MINUTE + 0.5) == 1.0


def test_refused_ip_is_left_alone() -> None:
    """429 and 418 hold the whole family of hosts, and no other."""
    queue = BookQueue(1000, 0.5)
    queue.want(A, "A", "first", MINUTE)
    queue.want(FUTURES, "F", "first", MINUTE)
    assert keys(queue, MINUTE) == [A, FUTURES]
    queue.hold("usdm", MINUTE, 120)
    queue.failed(FUTURES, MINUTE)
    queue.want(BookKey("coinm", "g"), "G", "first", MINUTE)
    queue.want(B, "B", "first", MINUTE)
    assert keys(queue, MINUTE + 1) == [B]
    assert queue.next(MINUTE + 1, idle) == 119
    assert queue.estimate_seconds(MINUTE + 1) == 119
    assert set(keys(queue, MINUTE + 120)) == {FUTURES, BookKey("coinm", "g")}


@dataclass
class Clock:
    """A day in a second: 400 books of one market start up against the exchange's own count of weight."""

    queue: BookQueue
    budget: WeightBudget
    now: float = MINUTE + 37.0
    used: dict[int, int] = field(default_factory=dict)

    def run(self, latency: float, at_once: int) -> float:
        """Ask until nothing waits; return the seconds it took."""
        began, busy = self.now, [0.0] * at_once
        while True:
            turn = self.queue.next(self.now, idle)
            if turn is None:
                return max(self.now, *busy) - began
            if isinstance(turn, float):
                self.now += turn
                continue
            wait = self.budget.reserve(self.now, turn.weight, background=True)
            assert wait == 0, "books keep within what the client gives to the background"
            minute = int(self.now // 60)
            self.used[minute] = self.used.get(minute, 0) + turn.weight
            slot = busy.index(min(busy))
            busy[slot] = max(busy[slot], self.now) + latency
            self.now = max(self.now, min(busy))
            self.queue.joined(turn.key, self.now)
            self.queue.answered(turn.key)


@pytest.mark.parametrize(
    ("market", "depth", "minutes"), [("spot", 1000, 7), ("usdm", 1000, 7), ("spot", 500, 4), ("spot", 100, 1)]
)
def test_four_hundred_books_start_up_as_fast_as_the_weight_allows(
    market: Market, depth: int, minutes: int
) -> None:
    """Never beyond the share of a minute, in as few minutes as there can be, and it says so beforehand."""
    whose: Family = family(market)
    queue = BookQueue(depth, 0.5)
    for n in range(400):
        queue.want(BookKey(market, str(n)), str(n), "first", MINUTE + 37.0)
    estimate = queue.estimate_seconds(MINUTE + 37.0)
    clock = Clock(queue, WeightBudget(WEIGHT_PER_MINUTE[whose]))
    took = clock.run(latency=0.05, at_once=6)
    assert len(clock.used) == minutes
    assert max(clock.used.values()) <= WEIGHT_PER_MINUTE[whose] * 0.5
    assert estimate <= took <= estimate + 5
    assert estimate == (0.0 if minutes == 1 else (minutes - 2) * 60 + 23.5)
