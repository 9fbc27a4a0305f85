"""Where streams stand, when an owner lets go of them, and how the next one goes on with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.core.coverage import Ledger, covered
from bridge.core.gap_filling import Stretch
from bridge.core.resumption import Resumption
from bridge.core.sequence import Missing, Tail
from tests.core.test_gap_filling import History
from tests.core.test_pipeline import NOW, SECOND, Bench, _kline, _mini, _trade

if TYPE_CHECKING:
    from datetime import datetime


def _by_name(bench: Bench, *always: str) -> dict[str, Any]:
    """Return where the streams stand that went on, and those of some channels."""
    found = [
        bench.pipe.standing(s, NOW, always=s.channel in always) for s in (c.stream for c in bench.chosen)
    ]
    return {one.stream.name: one for one in found if one is not None}


def _micros(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000)


def _ledger(bench: Bench, first: int, last: int) -> Ledger:
    """Return the ledger of the bench's only stream as an earlier owner had it."""
    stream = bench.chosen[0].stream
    ledger = Ledger(covered(bench.pipe._catalogue.channel(stream.market, stream.channel), stream, "BTC/USDT"))
    ledger.begin(first, at=1)
    ledger.reached(last)
    return ledger


def test_a_stream_stands_where_its_last_message_left_it() -> None:
    """Tail and coverage record say the same, from the first event on."""
    bench = Bench("spot", ["trade"])
    bench.pipe.receive(bench.leg(), NOW, [_trade(5), _trade(6)])
    standing = _by_name(bench)["btcusdt@trade"]
    assert standing.tail == Tail(6, 1_795_305_600_006)
    assert standing.coverage_key == b"spot:btcusdt@trade:BTCUSDT"
    assert standing.coverage is not None
    assert (standing.coverage["first"], standing.coverage["last"], standing.coverage["published"]) == (
        5,
        6,
        2,
    )
    assert standing.symbol == standing.coverage["symbol"] == "BTC/USDT"


def test_only_what_went_on_is_told_again() -> None:
    """A stream that stands still is told once, unless somebody asks for it."""
    bench = Bench("spot", ["trade", "mini-ticker"])
    leg = bench.leg()
    bench.pipe.receive(leg, NOW, [_trade(5), _mini(1)])
    assert _by_name(bench).keys() == {"btcusdt@trade", "btcusdt@miniTicker"}
    assert _by_name(bench) == {}
    bench.pipe.receive(leg, NOW + SECOND, [_trade(6)])
    leg.alive_at = 0
    assert "btcusdt@trade" in _by_name(bench)
    assert _by_name(bench, "trade").keys() == {"btcusdt@trade"}


def test_what_is_held_back_is_not_published_yet() -> None:
    """A message that came early waits for the one before it, and so does the stream's tail."""
    bench = Bench("spot", ["trade"])
    bench.pipe.receive(bench.leg(), NOW, [_trade(5), _trade(8)])
    standing = _by_name(bench)["btcusdt@trade"]
    assert standing.tail.last == 5
    assert standing.coverage["last"] == 5


def test_a_gap_is_in_the_ledger_as_soon_as_it_is_found() -> None:
    """With its fate: here nobody has answered."""
    bench = History()
    bench.come(1, 2, 5)
    coverage = _by_name(bench)["btcusdt@trade"].coverage
    assert [(g["first"], g["last"], g["status"]) for g in coverage["gaps"]] == [(3, 4, "open")]
    assert (coverage["published"], coverage["open"]) == (3, 2)


def test_a_candle_is_published_once_it_is_closed() -> None:
    """While it grows the ledger reaches to the millisecond before it opened."""
    bench = Bench("spot", ["kline_1m"])
    opened = 1_795_305_600_000
    leg = bench.leg()
    bench.pipe.receive(leg, NOW, [_kline(opened, opened + 1, closed=False)])
    assert _by_name(bench)["btcusdt@kline_1m"].coverage["last"] == opened - 1
    bench.pipe.receive(leg, NOW, [_kline(opened, opened + 60_000, closed=True)])
    standing = _by_name(bench)["btcusdt@kline_1m"]
    assert standing.coverage["last"] == opened + 59_999
    assert standing.tail == Tail(opened, opened + 60_000, opened + 59_999, closed=True)


def test_a_stream_without_ids_stands_at_its_last_sign_of_life() -> None:
    """What a connection carried up to when."""
    bench = Bench("spot", ["mini-ticker"])
    bench.pipe.receive(bench.leg(), NOW, [_mini(1)])
    standing = _by_name(bench)["btcusdt@miniTicker"]
    assert (standing.tail, standing.carried_until) == (None, NOW)
    assert (standing.coverage["first"], standing.coverage["last"]) == (NOW, NOW)


# Going on


def test_the_next_owner_sees_what_came_while_there_was_none() -> None:
    """The first message behind the tail shows the gap, and its cause is the restart."""
    bench = Bench("spot", ["trade"])
    stream = bench.chosen[0].stream
    bench.pipe.resume(stream, Resumption(_ledger(bench, 1, 4), Tail(4, 1), None), NOW)
    bench.pipe.receive(bench.leg(), NOW, [_trade(3), _trade(4), _trade(8)])
    bench.pipe.tick(NOW + SECOND)
    [gap] = bench.records("gaps")
    assert (gap["firstSequence"], gap["lastSequence"], gap["cause"], gap["status"]) == (
        5,
        7,
        "restart",
        "open",
    )
    assert [r["sequence"] for r in bench.records("unified", "trade")] == [8]
    coverage = _by_name(bench)["btcusdt@trade"].coverage
    assert (coverage["first"], coverage["last"], coverage["published"], coverage["open"]) == (1, 8, 5, 3)


def test_without_a_seam_nothing_is_missing() -> None:
    """The next id behind the tail is the next message; what came before comes again and is dropped."""
    bench = Bench("spot", ["trade"])
    bench.pipe.resume(bench.chosen[0].stream, Resumption(_ledger(bench, 1, 4), Tail(4, 1), None), NOW)
    bench.pipe.receive(bench.leg(), NOW, [_trade(4), _trade(5)])
    assert bench.records("gaps") == []
    assert [r["sequence"] for r in bench.records("unified", "trade")] == [5]


def test_holes_in_the_topics_are_named_and_filled() -> None:
    """What the topics lack without a word is a gap with the cause restart, like any other to be filled."""
    bench = History()
    stream = bench.chosen[0].stream
    bench.pipe.resume(stream, Resumption(_ledger(bench, 1, 9), Tail(9, 1), None, (Missing(3, 4),)), NOW)
    [gap] = bench.records("gaps")
    assert (gap["firstSequence"], gap["lastSequence"], gap["cause"]) == (3, 4, "restart")
    assert _micros(gap["detectedAt"]) == NOW
    bench.page(3, [3, 4], 2)
    assert bench.gaps() == [(3, 4, "filled", 2)]


def test_an_open_gap_of_the_earlier_owner_is_filled_by_the_next() -> None:
    """Also where part of it was published already and nobody had said so: that part is told at once."""
    before = History()
    before.come(1, 2, 8)
    ledger = before.pipe._standings._kept["spot", "btcusdt@trade"].ledger
    (open_gap,) = ledger.gaps
    bench = History()
    resumption = Resumption(ledger, Tail(8, 1), None, (), (open_gap,), (Stretch(3, 3, 1), Stretch(4, 4, 1)))
    bench.pipe.resume(bench.chosen[0].stream, resumption, NOW)
    assert bench.gaps() == [(3, 4, "filled", 2), (5, 7, "open", 0)]
    bench.page(5, [5, 6, 7], 3)
    assert bench.gaps() == [(3, 4, "filled", 2), (5, 7, "filled", 3)]
    assert bench.ids("backfill") == [5, 6, 7]


def test_the_rest_of_a_gap_that_has_no_record_of_its_own_gets_one() -> None:
    """The earlier owner told the first part and died: by position the rest is open, by id nothing named it."""
    before = History()
    before.come(1, 2, 8)
    ledger = before.pipe._standings._kept["spot", "btcusdt@trade"].ledger
    told = before.records("gaps")[0] | {"status": "filled", "lastSequence": 4, "recovered": 2}
    ledger.note(told)
    rest = [gap for gap in ledger.gaps if gap.status == "open"]
    bench = History()
    bench.pipe.resume(bench.chosen[0].stream, Resumption(ledger, Tail(8, 1), None, (), tuple(rest)), NOW)
    assert [(g["id"], g["firstSequence"], g["status"]) for g in bench.records("gaps")] == [
        ("spot:btcusdt@trade:5", 5, "open")
    ]


def test_a_stream_without_ids_lacks_the_time_between_two_owners() -> None:
    """From the last sign of life that the earlier owner told, to the first message."""
    bench = Bench("spot", ["mini-ticker"])
    stream = bench.chosen[0].stream
    ledger = Ledger(covered(bench.pipe._catalogue.channel("spot", "mini-ticker"), stream, "BTC/USDT"))
    ledger.begin(NOW - 90 * SECOND, NOW - 90 * SECOND)
    ledger.reached(NOW - 60 * SECOND)
    bench.pipe.resume(stream, Resumption(ledger, None, NOW - 60 * SECOND), NOW)
    bench.pipe.receive(bench.leg(), NOW, [_mini(1)])
    [gap] = bench.records("gaps")
    assert (_micros(gap["startTime"]), _micros(gap["endTime"])) == (NOW - 60 * SECOND, NOW)
    assert (gap["cause"], gap["status"]) == ("restart", "unrecoverable")


# Standing still


def test_what_comes_while_it_stands_still_is_taken_in_later_in_order() -> None:
    """Messages, ends of connections and answers of REST wait alike."""
    bench = History()
    bench.come(1)
    bench.pipe.hold()
    bench.come(2, 3)
    bench.pipe.answer("spot", "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1", bench.now, b"[]")
    bench.pipe.closed(bench.line.connection_id, clean=True)
    assert bench.ids("live") == [1]
    assert bench.line.next_sequence == 3, "they have come, and are counted"
    assert len(bench.records("raw", "spot", "api")) == 0
    bench.pipe.release()
    assert bench.ids("live") == [1, 2, 3]
    assert len(bench.records("raw", "spot", "api")) == 1
    assert bench.line.connection_id not in bench.pipe.legs


def test_what_was_recovered_is_told_once_it_is_acknowledged() -> None:
    """And no record of a gap that comes later overtakes it."""
    bench = History()
    asked = []
    bench.pipe.on_unsettled = lambda: asked.append(bench.pipe.unsettled)
    bench.come(1, 2, 5)
    assert [g["status"] for g in bench.records("gaps")] == ["open"]
    bench.page(3, [3, 4], 2)
    bench.come(9)
    assert (asked, bench.pipe.unsettled) == ([1, 2], 2)
    assert [g["status"] for g in bench.records("gaps")] == ["open"]
    bench.pipe.tell(1)
    assert [g["status"] for g in bench.records("gaps")] == ["open", "filled"]
    bench.pipe.tell(1)
    assert bench.gaps() == [(3, 4, "filled", 2), (6, 8, "open", 0)]


def test_an_event_that_made_no_record_is_a_gap_too() -> None:
    """It is a dead letter, and the ledger does not claim it."""
    bench = Bench("spot", ["trade"])
    leg = bench.leg()
    bench.pipe.receive(leg, NOW, [_trade(5), _trade(6, p="1." + "1" * 19), _trade(7)])
    [gap] = bench.records("gaps")
    assert (gap["firstSequence"], gap["lastSequence"], gap["cause"], gap["status"]) == (
        6, 6, "dead-letter", "unrecoverable",
    )  # fmt: skip
    coverage = _by_name(bench)["btcusdt@trade"].coverage
    assert (coverage["published"], coverage["unrecoverable"]) == (2, 1)
    assert len(bench.records("dead-letter")) == 1


def test_an_event_whose_record_kafka_refuses_is_a_gap_too() -> None:
    """Of whichever stream of the channel it was; what is of no event concerns no ledger."""
    bench = Bench("spot", ["trade", "agg-trade", "mini-ticker"])
    bench.pipe.receive(bench.leg(), NOW, [_trade(5), _trade(6), _mini(1)])
    refused = [
        kept.value for kept in bench.publisher.kept if ".unified." in kept.topic or ".raw." in kept.topic
    ]
    assert len(refused) == 6
    for value in (*refused[2:], b"no record at all"):
        bench.pipe.refused(value, NOW + SECOND, "too large")
    [gap] = bench.records("gaps")
    assert (gap["stream"], gap["firstSequence"], gap["lastSequence"]) == ("btcusdt@trade", 6, 6)
    assert (gap["cause"], gap["status"]) == ("dead-letter", "unrecoverable")
    assert "too large" in gap["reason"]
