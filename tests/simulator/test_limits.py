"""The exchange's counters."""

from __future__ import annotations

from bridge.simulator.limits import SlidingWindow, WeightBudget, refusal_message

MINUTE = 60_000
ADVICE = "Please use WebSocket Streams for live updates to avoid bans."


def test_a_sliding_window_allows_so_many_in_any_stretch() -> None:
    """Five a second means five in any second, not five in each second of the clock."""
    window = SlidingWindow(5, 1.0)
    assert [window.allow(0.9 + i / 100) for i in range(6)] == [True] * 5 + [False]
    assert window.allow(1.0) is False
    assert window.allow(2.5) is True


def test_weight_counts_by_the_minute_of_the_clock() -> None:
    """The used weight grows with every request and starts again with the clock's next minute."""
    budget = WeightBudget(limit=100, refusals_before_ban=2, ban_seconds=120)
    assert budget.charge(60, 5 * MINUTE + 59_000) == (200, 60, 0, 0)
    assert budget.charge(40, 5 * MINUTE + 59_999) == (200, 100, 0, 0)
    assert budget.charge(1, 6 * MINUTE) == (200, 1, 0, 0)


def test_beyond_the_limit_is_429_until_the_minute_ends() -> None:
    """One weight too many is refused with the seconds left of the minute, and counts all the same."""
    budget = WeightBudget(limit=100, refusals_before_ban=2, ban_seconds=120)
    refused = budget.charge(101, 5 * MINUTE + 30_500)
    assert (refused.status, refused.used, refused.retry_after) == (429, 101, 30)
    assert budget.charge(1, 6 * MINUTE).status == 200


def test_ignoring_429_is_a_ban() -> None:
    """Who goes on after a 429 is banned with 418, longer than the minute, and told until when."""
    budget = WeightBudget(limit=100, refusals_before_ban=2, ban_seconds=120)
    verdicts = [budget.charge(101, 5 * MINUTE) for _ in range(3)]
    assert [v.status for v in verdicts] == [429, 429, 418]
    assert verdicts[-1].retry_after == 120
    assert budget.charge(1, 6 * MINUTE + 59_999).status == 418
    assert budget.charge(1, 7 * MINUTE).status == 200


def test_the_ban_says_until_when() -> None:
    """The texts of 429 and 418 are Binance's."""
    budget = WeightBudget(limit=100, refusals_before_ban=2, ban_seconds=120)
    budget.ban(418, 30, MINUTE)
    verdict = budget.charge(1, MINUTE)
    assert refusal_message(verdict, 100, "127.0.0.1") == (
        -1003,
        "Way too much request weight used; IP banned until 90000. " + ADVICE,
    )
    budget.ban(429, 30, MINUTE)
    assert refusal_message(budget.charge(1, MINUTE), 100, "127.0.0.1")[1].startswith(
        "Too many requests; current limit of IP(127.0.0.1) is 100 requests per minute."
    )
