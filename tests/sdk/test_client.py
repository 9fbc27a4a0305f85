"""The client's iteration, fed from memory."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from decimal import Decimal

import fastavro
import msgspec
import pytest

from bridge.errors import ConfigError, DecodeError, UsageError
from bridge.schema import structure
from bridge.sdk import (
    BidAsk,
    CaughtUp,
    Gap,
    GapMarker,
    Instrument,
    Lifecycle,
    Ohlcv,
    Raw,
    Ticker,
    Trade,
    connect,
    jsonlines,
    testing,
)
from bridge.sdk import sync as sync_sdk

SECOND = 1_000_000
T0 = 1_793_491_200 * SECOND


def trade(number=0, symbol="BTC/USDT", **fields):
    """Return a spot trade, one second after the other."""
    given = {
        "exchangeSymbol": symbol.replace("/", "").partition(":")[0],
        "channel": "trade",
        "id": str(number),
    }
    return testing.record(Trade, symbol=symbol, timestamp=T0 + number * SECOND, **given | fields)


async def ids(records):
    """Return the ids of all records until the iteration ends."""
    return [record.id async for record in records]


async def test_records_come_typed_and_in_order():
    """Iterating gives the records as they were, up to the end."""
    given = [trade(n) for n in range(5)]
    async with testing.connect(given) as client:
        assert [record async for record in client.trades("BTC/USDT")] == given


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"symbols": "BTC/USDT"}, ["0", "4"]),
        ({"symbols": ["BTC/USDT", "ETH/USDT"]}, ["0", "1", "4"]),
        ({"symbols": "BTCUSDT"}, ["0", "2", "4"]),
        ({"symbols": {"BTCUSDT", "ETH/USDT"}}, ["0", "1", "2", "4"]),
        ({"symbols": "BTCUSDT", "market": "usdm"}, ["2"]),
        ({"market": "spot"}, ["0", "1", "3", "4"]),
        ({"channel": "agg-trade"}, ["4"]),
        ({"symbols": "币安人生/USDT"}, ["3"]),
        ({"start": T0 // 1000 + 3000}, ["3", "4"]),
        ({"start": "-2s"}, ["2", "3", "4"]),
        ({"start": T0 + SECOND, "end": T0 + 3 * SECOND}, ["1", "2"]),
        ({"end": "2026-11-01T00:00:01Z"}, ["0"]),
        ({"symbols": "XRP/USDT"}, []),
    ],
)
async def test_only_what_was_asked_for_comes(arguments, expected):
    """Symbols of either kind, market, channel and times choose among the records."""
    given = [
        trade(0),
        trade(1, "ETH/USDT"),
        trade(2, "BTC/USDT:USDT", market="usdm"),
        trade(3, "币安人生/USDT"),
        trade(4, channel="agg-trade"),
    ]
    async with testing.connect(given) as client:
        assert await ids(client.trades(**arguments)) == expected


async def test_each_structure_has_its_own_iterator():
    """A client's properties each read their own structure."""
    given = {
        "trades": trade(),
        "tickers": testing.record(Ticker, symbol="BTC/USDT"),
        "ohlcv": testing.record(Ohlcv, symbol="BTC/USDT"),
        "bids_asks": testing.record(BidAsk, symbol="BTC/USDT"),
        "markets": testing.record(Instrument, symbol="BTC/USDT"),
        "gaps": testing.record(Gap, symbol="BTC/USDT"),
    }
    async with testing.connect(given.values()) as client:
        for name, expected in given.items():
            assert [record async for record in getattr(client, name)("BTC/USDT")] == [expected]
            assert [record async for record in client.records(expected.structure)] == [expected]


async def test_lifecycle_and_raw_are_read_too():
    """Raw is chosen by market, channel and exchange symbol; lifecycle has none of it."""
    raw = testing.record(Raw, channel="trade", symbol="BTCUSDT", stream="btcusdt@trade", payload=b"{}")
    other = testing.record(Raw, channel="trade", symbol="ETHUSDT", stream="ethusdt@trade")
    event = testing.record(Lifecycle, event="connection.started", connectionId=5)
    async with testing.connect([other, raw, event]) as client:
        assert [record async for record in client.raw("spot", "trade", "BTCUSDT")] == [raw]
        assert [record async for record in client.lifecycle()] == [event]


async def test_late_records_of_a_writer_that_was_replaced_are_dropped():
    """After a higher epoch a lower one on the same key and channel is dropped, and counted."""
    given = [
        trade(0, writerEpoch=3),
        trade(1, writerEpoch=4),
        trade(2, writerEpoch=3),
        trade(3, "ETH/USDT", writerEpoch=3),
        trade(4, channel="agg-trade", writerEpoch=1),
        trade(5, writerEpoch=4),
    ]
    async with testing.connect(given) as client:
        records = client.trades()
        assert await ids(records) == ["0", "1", "3", "4", "5"]
        assert records.dropped == 1


async def test_backfill_and_replay_are_no_zombies():
    """What is written later on purpose keeps its old epoch and passes."""
    given = [
        trade(0, writerEpoch=4),
        trade(1, writerEpoch=0, origin="backfill"),
        trade(2, writerEpoch=3, origin="replay"),
    ]
    async with testing.connect(given) as client:
        assert await ids(client.trades()) == ["0", "1", "2"]


async def test_markers_come_only_when_asked_for():
    """CaughtUp stands between history and live; a gap of the reader's own streams stands as GapMarker."""
    gap = testing.record(Gap, symbol="BTC/USDT", channel="agg-trade", detectedAt=T0 + SECOND, firstSequence=7)
    other_channel = testing.record(Gap, symbol="BTC/USDT", channel="depth", detectedAt=T0 + SECOND)
    other_symbol = testing.record(Gap, symbol="ETH/USDT", channel="trade", detectedAt=T0 + SECOND)
    given = [trade(0), gap, other_channel, other_symbol, trade(1)]
    async with testing.connect(given, live=True) as client:
        records = client.trades("BTC/USDT", start="earliest", markers=True)
        seen = [await anext(records) for _ in range(4)]
        assert seen[:3] == [trade(0), GapMarker(gap), trade(1)]
        assert isinstance(seen[3], CaughtUp)
        await client.feed(trade(2))
        assert await anext(records) == trade(2)
    async with testing.connect(given) as client:
        assert await ids(client.trades("BTC/USDT", start="earliest")) == ["0", "1"]


async def test_live_records_come_as_they_are_fed():
    """A live client waits for more, and ends when it is told that there is none."""
    async with testing.connect(live=True) as client:
        records = client.trades("BTC/USDT")
        waiting = asyncio.ensure_future(anext(records))
        await client.feed(trade(1, "ETH/USDT"), trade(2))
        assert (await waiting).id == "2"
        await client.feed(trade(3))
        await client.finish()
        assert await ids(records) == ["3"]


async def test_watching_gives_the_next_record():
    """``watch_ticker`` waits for one record of the symbol."""
    async with testing.connect(live=True) as client:
        waiting = asyncio.ensure_future(client.watch_ticker("BTC/USDT", timeout=300))
        await client.feed(testing.record(Ticker, symbol="BTC/USDT", last="84000.5"))
        assert (await waiting).last == Decimal("84000.5")


async def test_watching_in_vain_says_what_for():
    """A time-out names the structure, the symbol and the seconds."""
    async with testing.connect(live=True) as client:
        with pytest.raises(TimeoutError, match=r"no ticker of BTC/USDT came within 0\.01 s"):
            await client.watch_ticker("BTC/USDT", timeout=0.01)


async def test_giving_up_waiting_loses_nothing():
    """A time-out around one step of the iteration leaves the iteration whole."""
    async with testing.connect(live=True) as client:
        records = client.trades()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(records)
        await client.feed(trade(1))
        assert (await anext(records)).id == "1"


async def test_closing_the_client_ends_every_iteration():
    """Whoever waits for a record when the client closes comes to the end."""
    async with testing.connect(live=True) as client:
        waiting = asyncio.ensure_future(ids(client.trades()))
        await asyncio.sleep(0)
    assert await waiting == []


async def test_an_iterator_that_nobody_holds_is_closed():
    """Leaving a loop early lets go of the reading without waiting for the client's end."""
    async with testing.connect([trade(0), trade(1)], live=True) as client:
        async for record in client.trades():
            assert record.id == "0"
            break
        gc.collect()
        await asyncio.sleep(0)
        assert not client._readings


async def test_bytes_that_are_no_record_are_named_by_their_place():
    """A value that can't be decoded raises with topic, partition and offset, and reading can go on behind it."""
    async with testing.connect([trade(0), trade(1)]) as client:
        log = client._memory.log
        log[0] = msgspec.structs.replace(log[0], value=b"garbage")
        records = client.trades()
        with pytest.raises(
            DecodeError, match=r"binance\.prod\.unified\.trade, partition \d, offset 0: .* 6761"
        ):
            await anext(records)
        assert await ids(records) == ["1"]


async def test_a_batch_ends_before_bytes_that_are_no_record():
    """What came before them is given first, then the error, then what came behind."""
    async with testing.connect([trade(n) for n in range(4)]) as client:
        log = client._memory.log
        log[2] = msgspec.structs.replace(log[2], value=b"garbage")
        records = client.trades()
        assert [record.id for record in await records.batch()] == ["0", "1"]
        with pytest.raises(DecodeError, match="offset 2"):
            await records.batch()
        assert [record.id for record in await records.batch()] == ["3"]
        assert await records.batch() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.trades(start="gestern"), "start is 'gestern'"),
        (lambda c: c.trades(end=5), "end is 5, which looks like seconds"),
        (lambda c: c.trades([]), "symbols is empty"),
        (lambda c: c.trades(market="moon"), "market is 'moon'"),
        (lambda c: c.records("trades"), "no structure 'trades'; there are"),
        (lambda c: c.records("raw"), "market and channel; name both"),
        (lambda c: c.records("lifecycle", "BTC/USDT"), "no symbol"),
        (lambda c: c.raw("spot", "trade", "BTC/USDT"), "give that .BTCUSDT. instead of 'BTC/USDT'"),
        (lambda c: c.raw("spot", "trade", start="x"), "start is 'x'"),
    ],
)
async def test_wrong_arguments_are_named_at_once(call, message):
    """An argument that can't be understood is refused when the method is called, not when it is iterated."""
    async with testing.connect() as client:
        with pytest.raises(UsageError, match=message):
            call(client)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"environment": "production"}, "environment is 'production'; it is one of prod, demo, testnet"),
        ({"environment": "prod", "sasl_user": "me"}, "no option 'sasl_user'; did you mean sasl_username"),
        ({"environment": "prod", "security_protocol": "TLS"}, "security_protocol is 'TLS'"),
    ],
)
def test_wrong_connection_options_are_named(options, message):
    """``connect`` refuses an unknown environment or option before anything is contacted."""
    with pytest.raises(ConfigError, match=message):
        connect("127.0.0.1:1", **options)


def test_a_password_given_as_text_is_kept_secret():
    """No part of the client shows the password."""
    client = connect(
        "127.0.0.1:1", environment="prod", security_protocol="SASL_SSL", sasl_mechanism="PLAIN",
        sasl_username="me", sasl_password="hunter2",
    )  # fmt: skip
    assert "hunter2" not in repr(vars(client._source))


def test_records_are_loaded_from_json_lines(tmp_path):
    """A file as ``tail --json`` prints it feeds a client."""
    file = tmp_path / "trades.jsonl"
    given = [trade(n) for n in range(3)]
    lines = [jsonlines.line({"structure": "trade", "value": jsonlines.plain(t)}) for t in given]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with sync_sdk.Client(testing.connect(file)) as client:
        assert list(client.trades("BTC/USDT")) == given


def test_a_bad_line_is_named(tmp_path):
    """A line that is no record raises with its number."""
    file = tmp_path / "trades.jsonl"
    file.write_text('\n{"structure": "trade", "value": {}}\n', encoding="utf-8")
    with pytest.raises(DecodeError, match=r"trades\.jsonl, line 2: trade: symbol is None"):
        testing.load(file)


def test_records_are_loaded_from_an_avro_file(tmp_path):
    """An Avro file written with a schema of ``avro/`` feeds a client."""
    file = tmp_path / "trades.avro"
    given = [trade(n, price="1.5") for n in range(3)]
    with file.open("wb") as data:
        fastavro.writer(data, structure("trade").parsed, [testing._dictionary(t) for t in given])
    assert testing.load(file) == given


def test_an_unknown_field_of_a_made_record_is_named():
    """``testing.record`` refuses a field the class has not."""
    with pytest.raises(UsageError, match="Trade has no field colour"):
        testing.record(Trade, colour="red")


def test_without_await_the_same_records_come():
    """The synchronous client gives the same records and markers, and a time-out of its own."""
    given = [trade(n) for n in range(3)]
    with sync_sdk.Client(testing.connect(given, live=True)) as client:
        records = client.trades(start="earliest", markers=True)
        assert [next(records) for _ in range(3)] == given
        assert isinstance(next(records), CaughtUp)
        with pytest.raises(TimeoutError, match="no ticker of BTC/USDT"):
            client.watch_ticker("BTC/USDT", timeout=0.01)
        records.close()
        assert list(records) == []


def test_importing_the_sdk_imports_no_server():
    """``bridge.sdk`` and its parts pull in nothing of the bridge's inside, nor the command line."""
    code = (
        "import sys, bridge.sdk, bridge.sdk.kafka, bridge.sdk.sync, bridge.sdk.testing;"
        "print(*[n for n in sys.modules if n.split('.')[0] in {'typer', 'aiohttp', 'rich', 'websockets', 'picows'}"
        " or n.startswith(('bridge.app', 'bridge.binance', 'bridge.simulator', 'bridge.cli', 'bridge.config',"
        " 'bridge.pipeline', 'bridge.telemetry', 'bridge.kafka.publisher', 'bridge.credentials'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
