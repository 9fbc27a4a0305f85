"""Order, repeats and gaps of one stream."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.sequence import Candle, Linked, Missing, Newest

HOLD = 250_000


@dataclass(frozen=True)
class Seen:
    """An item whose message is its ids."""

    message: tuple[int, ...]
    received_at: int = 0
    event_ms: int | None = 0
    connection_id: int = 1
    payload: bytes = b""


def _linked() -> Linked[Seen]:
    return Linked(lambda m: (m[0], m[1]), HOLD)


def _ids(due: object) -> list[object]:
    return [d if isinstance(d, Missing) else d.message[1] for d in due]  # type: ignore[attr-defined]


def test_messages_in_order_pass_at_once() -> None:
    """Nothing is held while nothing is missing."""
    stream = _linked()
    assert [_ids(stream.accept(Seen((n - 1, n)))) for n in range(5, 9)] == [[5], [6], [7], [8]]
    assert stream.deadline is None


def test_repeats_are_dropped() -> None:
    """The other connection's copy of an event is not passed again."""
    stream = _linked()
    for n in range(5, 9):
        stream.accept(Seen((n - 1, n)))
    assert not stream.accept(Seen((6, 7)))
    assert _ids(stream.accept(Seen((8, 9)))) == [9]


def test_early_message_waits_for_the_one_before() -> None:
    """A swap is undone."""
    stream = _linked()
    stream.accept(Seen((4, 5)))
    assert not stream.accept(Seen((6, 7), received_at=100))
    assert stream.deadline == 100 + HOLD
    assert _ids(stream.accept(Seen((5, 6), received_at=200))) == [6, 7]
    assert stream.deadline is None


def test_what_does_not_come_in_time_is_missing() -> None:
    """After the hold the missing ids are named, once, and the stream goes on."""
    stream = _linked()
    stream.accept(Seen((4, 5)))
    stream.accept(Seen((7, 8), received_at=100))
    stream.accept(Seen((8, 9), received_at=200))
    assert not stream.expire(100 + HOLD)
    assert _ids(stream.expire(101 + HOLD)) == [Missing(6, 7), 8, 9]
    assert not stream.accept(Seen((5, 6), received_at=300 + HOLD)), (
        "what was named missing does not come late"
    )


def test_later_message_lets_time_pass_as_a_timer_does() -> None:
    """Replay has no timer: the next message decides the same."""
    live, replay = _linked(), _linked()
    for stream in (live, replay):
        stream.accept(Seen((4, 5)))
        stream.accept(Seen((6, 7), received_at=100))
    timer = _ids(live.expire(500_000))
    late = Seen((7, 8), received_at=600_000)
    assert timer + _ids(live.accept(late)) == _ids(replay.accept(late)) == [Missing(6, 6), 7, 8]


def test_new_series_of_ids_is_not_taken_for_repeats() -> None:
    """An exchange that counts anew, with clearly newer events, is followed."""
    stream = _linked()
    stream.accept(Seen((999, 1000), event_ms=1_000))
    got = [_ids(stream.accept(Seen((n - 1, n), event_ms=60_000 + n))) for n in range(1, 6)]
    assert got == [[], [], [3], [4], [5]]


@given(
    st.integers(20, 60).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.sets(st.integers(2, n - 1)),
            st.lists(st.tuples(st.integers(0, n), st.integers(0, n)), max_size=10),
            st.lists(st.integers(1, n), max_size=10),
        )
    )
)
def test_each_id_passes_once_in_order_or_is_named_once(
    plan: tuple[int, set[int], list[tuple[int, int]], list[int]],
) -> None:
    """Whatever is lost, swapped or doubled: what passes ascends, and passed and missing together are everything."""
    count, lost, swaps, doubled = plan
    sent = [n for n in range(1, count + 1) if n not in lost]
    for left, right in swaps:
        a, b = left % len(sent), right % len(sent)
        sent[a], sent[b] = sent[b], sent[a]
    if sent[0] != 1:
        sent.remove(1)
        sent.insert(0, 1)
    sent += [n for n in doubled if n not in lost]
    stream = _linked()
    due: list[object] = []
    for at, n in enumerate(sent):
        due += stream.accept(Seen((n - 1, n), received_at=at * 30_000))
    due += stream.expire(1 << 62)
    passed = [d.message[1] for d in due if not isinstance(d, Missing)]  # type: ignore[attr-defined]
    missing = [n for d in due if isinstance(d, Missing) for n in range(d.first or 0, (d.last or 0) + 1)]
    assert passed == sorted(set(passed))
    assert sorted(passed + missing) == list(range(1, max(passed) + 1))


def _candle() -> Candle[Seen]:
    return Candle(lambda m: (m[0], m[0] + 59, bool(m[1])))


def test_candles_follow_each_other() -> None:
    """Updates, a close, the next one: all pass."""
    stream = _candle()
    events = [(0, 0, 1), (0, 0, 2), (0, 1, 60), (60, 0, 61)]
    assert all(len(stream.accept(Seen((t, x), event_ms=e))) == 1 for t, x, e in events)


def test_close_that_did_not_come_is_missing() -> None:
    """A candle that was open and is followed by the next: its close is missing, and those between."""
    stream = _candle()
    stream.accept(Seen((0, 0), event_ms=1))
    due = stream.accept(Seen((120, 0), event_ms=121))
    assert due[0] == Missing(None, None, 0, 119)


def test_closed_candle_passes_once() -> None:
    """The other connection's copy of the close is dropped."""
    stream = _candle()
    assert stream.accept(Seen((0, 1), event_ms=60))
    assert not stream.accept(Seen((0, 1), event_ms=60))


def test_newest_drops_what_is_older_and_the_very_same() -> None:
    """Equal values with other content pass: several changes share a millisecond."""
    stream: Newest[Seen] = Newest(lambda m: m[0])
    events = [(5, b"a"), (5, b"b"), (5, b"a"), (4, b"c"), (6, b"d")]
    assert [bool(stream.accept(Seen((v,), payload=p))) for v, p in events] == [True, True, False, False, True]
