"""Which stream a unified record is of, and where it stands: as the message itself says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bridge.catalogue import catalogue
from bridge.core.conversions import milliseconds
from bridge.core.coverage import by_of
from bridge.core.series import Series, place_of, series_of
from bridge.core.wire import Decoder
from bridge.model import Leg, StreamState
from bridge.schema import schemas
from tests.derived import KeepingPublisher, endpoint, pipeline

CASES = Path(__file__).parents[1] / "cases"


def _cases():
    for path in sorted(CASES.rglob("*.yaml")):
        case = yaml.safe_load(path.read_text(encoding="utf-8"))
        compiled = catalogue().channel(case["market"], case["channel"].partition("_")[0].partition("@")[0])
        if by_of(compiled, case.get("symbol")) != "time" and case["records"]:
            yield pytest.param(case, compiled, id=str(path.relative_to(CASES).with_suffix("")))


def _derived(case):
    """Return the stream of a golden case, and its first unified record with times as numbers."""
    market, publisher = case["market"], KeepingPublisher()
    pipe = pipeline(publisher)
    info = (CASES / "exchange-info" / f"{market}.json").read_bytes()
    table = pipe.exchange_info(market, 1, info, pipe.api_answer(market, endpoint(market), 1, info))
    [chosen] = catalogue().choose(market, [case["channel"]], [case["symbol"]], None, table)
    pipe.add(chosen)
    leg = Leg(1, market, {chosen.stream.name.encode(): StreamState(chosen.stream)})
    before = len(publisher.kept)
    pipe.receive(
        leg, 1_795_305_700_000_000, [f'{{"stream":"{case["stream"]}","data":{case["payload"]}}}'.encode()]
    )
    return chosen.stream, publisher.kept[before + 1]


@pytest.mark.parametrize(("case", "compiled"), list(_cases()))
def test_a_record_stands_where_its_message_stands(case, compiled):
    """Its series is its stream's, but for the speed; its span is what the sequencer goes by."""
    stream, kept = _derived(case)
    record = Decoder(schemas().values()).decode(kept.value)
    assert series_of(record) == catalogue().series(stream.market, stream.channel, stream.name, stream.symbol)
    place = place_of(compiled, record)
    message = compiled.decode(f'{{"stream":"","data":{case["payload"]}}}'.encode()).data
    if compiled.link is not None:
        previous, last = compiled.link(message)
        assert place.span == (previous + 1, last)
        assert place.first == previous + 1
    else:
        opened, closes, closed = compiled.candle(message)
        assert place.first == milliseconds(opened)
        assert place.span == ((milliseconds(opened), milliseconds(closes)) if closed else None)
    event_time = compiled.event_time(message)
    assert place.event_ms == (None if event_time is None else milliseconds(event_time))


def test_a_books_snapshot_stands_nowhere():
    """Snapshots among the changes are no events of the stream; nor is a ticker, which has no ids."""
    compiled = catalogue().channel("spot", "depth")
    book = {
        "sequence": 9,
        "type": "snapshot",
        "firstSequence": None,
        "previousSequence": None,
        "timestamp": 1,
    }
    assert place_of(compiled, book) is None
    assert place_of(catalogue().channel("spot", "book-ticker"), {"sequence": 9}) is None


def test_speeds_of_a_stream_are_one_series_and_time_zones_are_not():
    """A record does not tell the speed, but it tells the time zone of a candle."""
    of = catalogue().series
    assert of("spot", "depth", "btcusdt@depth", "BTCUSDT") == of(
        "spot", "depth", "btcusdt@depth@100ms", "BTCUSDT"
    )
    assert of("spot", "kline", "btcusdt@kline_1d@+08:00", "BTCUSDT") == Series(
        "spot", "kline", "BTCUSDT", "1d", "+08:00"
    )
    assert of("spot", "kline", "btcusdt@nothing", "BTCUSDT") is None
