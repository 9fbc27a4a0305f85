"""What a pipeline publishes and says, recounted: answers of REST are no cover where they have holes of their own."""

from __future__ import annotations

import json

import pytest

from bridge.catalogue import catalogue
from bridge.core.coverage import Ledger, covered
from bridge.core.derive import Failure, Item, StreamDeriver, Writer
from bridge.core.instruments import Instruments
from bridge.core.recount import Account, Counted, Told
from bridge.core.series import place_of
from bridge.core.unmade import unmade_notice
from bridge.core.wire import Decoder
from bridge.model import Stream
from bridge.schema import schemas
from tests.core.test_gap_filling import History

DECODE = Decoder(schemas().values()).decode
TRADES = Stream("spot", "trade", "btcusdt@trade", "BTCUSDT", "", 0, None)


def recounted(bench):
    """Return what the recount finds of a bench's records, held against the ledger that its gap records make."""
    compiled = catalogue().channel("spot", "trade")
    stream = covered(compiled, TRADES, "BTC/USDT")
    ledger, counted = Ledger(stream), Counted()
    ledger.begin(1)
    for kept in bench.kept("unified", "trade"):
        record = DECODE(kept.value)
        place = place_of(compiled, record)
        counted.record(place, epoch=0, live=record["origin"] == "live", received_at=record["receivedAt"])
        if record["origin"] == "live":
            ledger.reached(place.span.last)
    told = [Told(kept.timestamp_ms * 1000, DECODE(kept.value)) for kept in bench.kept("gaps")]
    for one in told:
        ledger.note(one.record)
    account = Account(stream, ledger.record(1 << 52, 0), told, len(told), counted)
    return account.finding(ledgers=True)


@pytest.mark.parametrize(
    ("rows", "limit", "open_", "lost", "recovered"),
    [
        pytest.param([3, 4, 5, 6], 4, 0, 0, 4, id="a whole page"),
        pytest.param([3, 5, 6], 4, 0, 1, 3, id="a hole in the page"),
        pytest.param([6], 4, 0, 3, 1, id="only its end"),
        pytest.param([3, 4], 2, 2, 0, 2, id="a page that ends early"),
        pytest.param([8, 9], 4, 0, 4, 0, id="a page of others"),
        pytest.param([], 4, 4, 0, 0, id="an empty page"),
    ],
)
def test_a_page_covers_what_its_rows_prove(rows, limit, open_, lost, recovered):
    """A hole in an answer is a hole in the ledger, and the topics agree."""
    bench = History()
    bench.come(1, 2, 7)
    bench.page(3, rows, limit)
    found = recounted(bench)
    assert (found.unexplained, found.both, found.disagreements) == ((), (), ())
    assert (found.open, found.unrecoverable, found.recovered) == (open_, lost, recovered)
    assert found.published == 7 - open_ - lost
    for gap in found.gaps:
        assert gap.status != "unrecoverable" or "not among the rows" in gap.reason


def test_a_row_that_makes_no_record_is_no_cover():
    """It is a dead letter, and unrecoverable."""
    bench = History()
    bench.come(1, 2, 5)
    rows = [bench.row(3) | {"price": "1." + "1" * 19}, bench.row(4)]
    bench.answer(3, json.dumps(rows).encode())
    found = recounted(bench)
    assert (found.unexplained, found.disagreements, found.unrecoverable, found.recovered) == ((), (), 1, 1)
    [lost] = [gap for gap in found.gaps if gap.status == "unrecoverable"]
    assert (lost.first, "dead letter" in lost.reason) == (3, True)


def _deriver(channel, name):
    compiled = catalogue().channel("spot", channel)
    stream = Stream("spot", channel, name, "BTCUSDT", "", 0, None)
    return StreamDeriver(
        stream, compiled, (), schemas(), None, Writer("live", 3), Instruments("spot", ()), 0
    )  # fmt: skip


def _item(deriver, data, connection=7):
    message = deriver.decode(json.dumps({"stream": "", "data": data}).encode()).data
    return Item(message, b"bytes", 1_000, None, connection, 5, b"")


def test_an_event_that_made_no_record_is_a_gap_of_its_own():
    """Unrecoverable at once, with the cause, and as wide as the event: an id, a change of the book."""
    bench = History()
    deriver = _deriver("trade", "btcusdt@trade")
    notice = unmade_notice(deriver, Failure("unify", "too long", _item(deriver, bench.event(9))))
    record = notice.record
    assert (record["firstSequence"], record["lastSequence"], record["id"]) == (9, 9, "spot:btcusdt@trade:9")
    assert (record["cause"], record["status"], record["writerEpoch"]) == ("dead-letter", "unrecoverable", 3)
    assert "too long" in record["reason"]
    depth = _deriver("depth", "btcusdt@depth@100ms")
    change = {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": 5, "u": 9, "b": [], "a": []}
    record = unmade_notice(depth, Failure("unify", "x", _item(depth, change))).record
    assert (record["firstSequence"], record["lastSequence"]) == (5, 9)


def test_a_candle_that_made_no_record_is_a_gap_once_it_is_closed():
    """Its updates are no events; the gap is from its open to its close."""
    deriver = _deriver("kline", "btcusdt@kline_1m")
    values = dict.fromkeys("ohlcvqVQ", "1") | {"i": "1m", "n": 1, "f": 1, "L": 1}
    candle = {"e": "kline", "E": 60_001, "s": "BTCUSDT", "k": values | {"t": 0, "T": 59_999, "x": True}}
    record = unmade_notice(deriver, Failure("unify", "x", _item(deriver, candle))).record
    assert (record["startTime"], record["endTime"]) == (0, 59_999_000)
    candle["k"]["x"] = False
    assert unmade_notice(deriver, Failure("unify", "x", _item(deriver, candle))) is None


def test_what_is_accounted_for_elsewhere_is_no_gap_of_its_own():
    """What was not parsed shows by its successor; a row of history has its gap's record; time has no such hole."""
    bench = History()
    deriver = _deriver("trade", "btcusdt@trade")
    item = _item(deriver, bench.event(9))
    assert unmade_notice(deriver, Failure("parse", "x", item)) is None
    assert unmade_notice(deriver, Failure("unify", "x", _item(deriver, bench.event(9), connection=0))) is None
    ticker = _deriver("book-ticker", "btcusdt@bookTicker")
    quote = {"u": 1, "s": "BTCUSDT", "b": "1", "B": "1", "a": "1", "A": "1"}
    assert unmade_notice(ticker, Failure("unify", "x", _item(ticker, quote))) is None
