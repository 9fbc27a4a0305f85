"""``binance-bridge coverage`` against a real Kafka, its topics written by hand."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from bridge import cli
from bridge.core.coverage import Covered, Ledger
from bridge.core.schema import encode
from bridge.kafka.partitioner import partition_for
from bridge.schema import structure
from bridge.sdk import Gap, Ohlcv, Raw, Topics, Trade, testing
from tests.sdk.broker import PARTITIONS, writer

pytestmark = pytest.mark.kafka

TOPICS = [
    "coverage", "gaps", "dead-letter", "unified.trade", "unified.ohlcv", "raw.spot.ticker", "raw.usdm.trade",
]  # fmt: skip
T0 = 1_795_305_600_000_000
TRADES = Covered("spot", "agg-trade", "btcusdt@aggTrade", "BTCUSDT", "BTC/USDT", "sequence")
FUTURES = Covered("usdm", "trade", "ethusdt@trade", "ETHUSDT", "ETH/USDT:USDT", "sequence")
CANDLES = Covered("spot", "kline", "btcusdt@kline_1m", "BTCUSDT", "BTC/USDT", "candle")
TICKER = Covered("spot", "ticker", "btcusdt@ticker", "BTCUSDT", "BTC/USDT", "time")


def _envelope(stream, epoch, origin):
    return {
        "symbol": stream.symbol, "market": stream.market, "exchangeSymbol": stream.exchange_symbol,
        "channel": stream.channel, "writerEpoch": epoch, "origin": origin,
    }  # fmt: skip


def trade(number, stream=TRADES, *, epoch=1, origin="live"):
    """Return the trade of an id, one a second."""
    at = T0 + number * 1_000_000
    return testing.record(
        Trade, **_envelope(stream, epoch, origin), sequence=number, id=str(number), timestamp=at,
        eventTime=None if origin == "backfill" else at, receivedAt=at, price="1", amount="1",
    )  # fmt: skip


def trades(first, last, stream=TRADES, **how):
    """Return trades with ids from first to last."""
    return [trade(n, stream, **how) for n in range(first, last + 1)]


def candle(minute, *, closed):
    """Return an update of a candle, or its close."""
    opened = T0 + minute * 60_000_000
    return testing.record(
        Ohlcv, **_envelope(CANDLES, 1, "live"), timestamp=opened, closeTime=opened + 59_999_000, timeframe="1m",
        closed=closed, eventTime=opened + (60_001_000 if closed else 30_000_000), receivedAt=opened,
    )  # fmt: skip


def raw(stream, at, payload=b"{}"):
    """Return a message as received."""
    return testing.record(
        Raw, environment="demo", market=stream.market, channel=stream.channel, stream=stream.stream,
        symbol=stream.exchange_symbol, kind="stream", connectionId=7, receivedAt=at, payload=payload,
    )  # fmt: skip


def gap(stream, first, last, status="open", **fields):
    """Return a gap record, of ids or of times."""
    ids = stream.by == "sequence"
    known = {
        "id": f"{stream.market}:{stream.stream}:{first}", "symbol": stream.symbol, "market": stream.market,
        "exchangeSymbol": stream.exchange_symbol, "channel": stream.channel, "stream": stream.stream,
        "firstSequence": first if ids else None, "lastSequence": last if ids else None,
        "startTime": None if ids else first, "endTime": None if ids else last, "detectedAt": T0, "cause": "sequence",
        "status": status, "recovered": last - first + 1 if status == "filled" else 0, "writerEpoch": 1,
        "reason": "not among the rows" if status == "unrecoverable" else None,
    }  # fmt: skip
    return testing.record(Gap, **known | fields)


def ledger(stream, first, last, *gaps):
    """Return a coverage record."""
    made = Ledger(stream)
    made.begin(first, T0)
    made.reached(last)
    for one in gaps:
        made.note({name: getattr(one, name) for name in one.__struct_fields__})
    return made.record(T0 + 10**9, 2)


class Bench:
    """An environment of its own in the broker, and the command on it."""

    def __init__(self, kafka, namespace, capsys):
        self.servers, self.namespace, self._capsys = kafka.bootstrap_servers, namespace, capsys

    def write(self, *records, ledgers=()):
        """Write records, then coverage records."""

        async def go():
            topics = Topics("demo", self.namespace)
            async with writer(self.servers, topics, TOPICS) as ready:
                await ready.write(*records)
                for record in ledgers:
                    key = Ledger.restore(record).stream.key
                    await ready.send(
                        topics.of("coverage"), key, encode(structure("coverage"), record), T0 // 1000
                    )
                await ready.write()

        asyncio.run(go())

    def run(self, *arguments):
        """Return exit status, standard output and error of the command."""
        with pytest.raises(SystemExit) as exit_:
            cli.main(
                ["coverage", *arguments, "-e", "demo", "--bootstrap-servers", self.servers, "--namespace",
                 self.namespace]
            )  # fmt: skip
        out, err = self._capsys.readouterr()
        return exit_.value.code, out, err

    def json(self, *arguments):
        """Return exit status and the streams of the JSON report by name."""
        status, out, _ = self.run(*arguments, "--json")
        report = json.loads(out)
        assert report["whole"] == (status == 0)
        return status, {one["stream"]: one for one in report["streams"]}


@pytest.fixture
def bench(kafka, unique, capsys):
    """A bench nobody else uses; what the command does to the log is undone."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Bench(kafka, unique, capsys)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_whole_streams_of_every_kind(bench):
    """Ids, ids of which one makes no record, candles, and a stream known by time: status 0, told and recounted."""
    no_trade = (
        b'{"stream":"ethusdt@trade","data":{"e":"trade","E":1795305605000,"T":1795305605000,"s":"ETHUSDT","t":5,'
        b'"p":"0","q":"0","X":"NA","m":true}}'
    )
    updates = [candle(m, closed=c) for m in range(4) for c in (False, True)]
    bench.write(
        *trades(1, 40), *trades(1, 4, FUTURES), raw(FUTURES, T0, no_trade), *trades(6, 9, FUTURES), *updates,
        candle(4, closed=False), *[raw(TICKER, T0 + n) for n in (0, 5, 9)],
        ledgers=[
            ledger(TRADES, 1, 40), ledger(FUTURES, 1, 9),
            ledger(CANDLES, T0 // 1000, T0 // 1000 + 239_999), ledger(TICKER, T0, T0 + 9),
        ],
    )  # fmt: skip
    status, streams = bench.json()
    assert status == 0
    assert streams["btcusdt@aggTrade"]["published"] == 40
    assert streams["btcusdt@aggTrade"]["counted"] is None
    status, streams = bench.json("--recount")
    assert {name: one["disagreements"] + one["unexplained"] for name, one in streams.items()} == {
        "btcusdt@aggTrade": [], "ethusdt@trade": [], "btcusdt@kline_1m": [], "btcusdt@ticker": [],
    }  # fmt: skip
    assert status == 0
    assert streams["ethusdt@trade"]["counted"]["withoutRecord"] == 1
    assert streams["btcusdt@kline_1m"]["counted"]["events"] == 4
    assert streams["btcusdt@ticker"]["counted"]["events"] == 3
    assert bench.run()[0] == 0


def test_a_takeover_with_a_zombie_and_recovered_trades(bench):
    """Backfilled records behind live ones, a zombie's and a second copy: each is counted for what it is."""
    gaps = [
        gap(TRADES, 11, 16), gap(TRADES, 11, 12, "filled"), gap(TRADES, 13, 14, "unrecoverable"),
        gap(TRADES, 15, 16, "filled"), gap(TRADES, 45, 46),
    ]  # fmt: skip
    bench.write(
        *trades(1, 10), *trades(17, 31), *gaps[:1],
        *trades(31, 35, epoch=2), *trades(32, 34, epoch=1),  # 31: the zombie was first; 32 to 34: it was last
        *trades(15, 16, epoch=2, origin="backfill"), *trades(11, 12, epoch=2, origin="backfill"), *gaps[1:4],
        *trades(36, 44, epoch=2), *gaps[4:], *trades(47, 60, epoch=2), trade(50, epoch=2),
        ledgers=[ledger(TRADES, 1, 30), ledger(TRADES, 1, 60, *gaps)],
    )  # fmt: skip
    status, streams = bench.json("--recount")
    [stream] = streams.values()
    assert status == 1
    assert (stream["first"], stream["last"], stream["published"]) == (1, 60, 56)
    assert (stream["open"], stream["unrecoverable"], stream["gapsFilled"], stream["recovered"]) == (
        2,
        2,
        2,
        4,
    )
    counted = stream["counted"]
    assert (counted["events"], counted["backfilled"], counted["duplicates"], counted["zombies"]) == (
        56,
        4,
        1,
        4,
    )
    assert (stream["unexplained"], stream["both"], stream["disagreements"]) == ([], [], [])
    told = bench.json()[1]["btcusdt@aggTrade"]
    for same in ("first", "last", "published", "open", "unrecoverable", "gapsFilled", "recovered", "gaps"):
        assert told[same] == stream[same]
    status, out, _ = bench.run("--recount")
    assert status == 1
    assert "not among the rows" in out


def test_what_only_a_zombie_published_is_not_published(bench):
    """Readers drop a replaced writer's records, so an event that only it has is lost."""
    bench.write(*trades(1, 10), *trades(12, 20, epoch=2), trade(11), ledgers=[ledger(TRADES, 1, 20)])
    status, streams = bench.json("--recount")
    assert status == 1
    assert streams["btcusdt@aggTrade"]["unexplained"] == [[11, 11]]


def test_a_hole_without_a_word_shows_in_the_recount_alone(bench):
    """The ledger takes the bridge's word; the recount takes the topic's."""
    bench.write(*trades(1, 10), *trades(14, 20), ledgers=[ledger(TRADES, 1, 20)])
    assert bench.json()[0] == 0
    status, streams = bench.json("--recount")
    assert status == 1
    assert streams["btcusdt@aggTrade"]["unexplained"] == [[11, 13]]
    status, out, _ = bench.run("--recount")
    assert (status, "unexplained: 11..13" in out) == (1, True)


def test_ledger_and_gap_records_that_differ(bench):
    """A hole that only the ledger knows, an event both there and missing, a stream without a ledger."""
    bench.write(
        *trades(1, 20), *trades(1, 5, FUTURES), gap(TRADES, 8, 8),
        ledgers=[ledger(TRADES, 1, 20, gap(TRADES, 3, 3))],
    )  # fmt: skip
    status, streams = bench.json("--recount")
    assert status == 1
    assert streams["btcusdt@aggTrade"]["both"] == [[8, 8]]
    assert streams["btcusdt@aggTrade"]["disagreements"] == [
        "open in the ledger, not so in any gap record: 3..3",
        "missing by gap records, published by the ledger: 8..8",
    ]
    assert streams["ethusdt@trade"]["disagreements"] == ["it has no coverage record"]


def test_a_stretch_without_connections(bench):
    """Is missing for good; a message in the midst of it is a disagreement."""
    dark = gap(TICKER, T0 + 1000, T0 + 5000, "unrecoverable", cause="disconnected")
    bench.write(
        raw(TICKER, T0), raw(TICKER, T0 + 1000), dark, raw(TICKER, T0 + 5000),
        ledgers=[ledger(TICKER, T0, T0 + 5000, dark)],
    )  # fmt: skip
    status, streams = bench.json("--recount")
    assert (status, streams["btcusdt@ticker"]["disagreements"]) == (1, [])
    assert streams["btcusdt@ticker"]["unrecoverable"] == 3999
    bench.write(raw(TICKER, T0 + 3000))
    assert "within a stretch" in bench.json("--recount")[1]["btcusdt@ticker"]["disagreements"][0]


def test_asked_for_by_symbol_market_channel_and_time(bench):
    """Only what is asked for is told; of ids a range of time is known by the recount."""
    holed = gap(FUTURES, 4, 4, "unrecoverable")
    bench.write(
        *trades(1, 30), *trades(1, 3, FUTURES), holed, *trades(5, 9, FUTURES),
        ledgers=[ledger(TRADES, 1, 30), ledger(FUTURES, 1, 9, holed)],
    )  # fmt: skip
    for asked in (
        ("--symbol", "BTC/USDT"),
        ("--symbol", "BTCUSDT"),
        ("--market", "spot"),
        ("--channel", "agg-trade"),
    ):
        for how in ((), ("--recount",)):
            status, streams = bench.json(*asked, *how)
            assert (status, list(streams)) == (0, ["btcusdt@aggTrade"])
    at = T0 // 1000
    times = ("--from", str(at + 10_000), "--to", str(at + 20_000))
    _, streams = bench.json("--channel", "agg-trade", *times, "--recount")
    one = streams["btcusdt@aggTrade"]
    assert (one["first"], one["last"], one["published"], one["whole"]) == (10, 19, 10, True)
    status, streams = bench.json("--channel", "agg-trade", *times)
    assert (status, streams["btcusdt@aggTrade"]["published"]) == (0, None)
    status, _, err = bench.run("--symbol", "DOGEUSDT")
    assert (status, "no stream is covered" in err) == (1, True)


def test_it_counts_from_where_the_topic_begins(bench):
    """What retention has deleted is said, and no hole."""
    bench.write(*trades(1, 30), ledgers=[ledger(TRADES, 1, 30)])
    topic = f"{bench.namespace}.demo.unified.trade"
    place = TopicPartition(topic, partition_for(b"BTC/USDT", PARTITIONS), 20)
    admin = AdminClient({"bootstrap.servers": bench.servers})
    for deleted in admin.delete_records([place]).values():
        deleted.result(60)
    status, streams = bench.json("--recount")
    one = streams["btcusdt@aggTrade"]
    assert (status, one["first"], one["published"]) == (0, 21, 10)
    assert "counted from 21 on" in one["remarks"][0]


def test_an_aborted_transaction_publishes_nothing(bench):
    """The recount reads as a ``read_committed`` reader does."""
    bench.write(*trades(1, 3), *trades(5, 9), ledgers=[ledger(TRADES, 1, 9)])
    producer = Producer({"bootstrap.servers": bench.servers, "transactional.id": bench.namespace})
    producer.init_transactions(60)
    producer.begin_transaction()
    topic, key = f"{bench.namespace}.demo.unified.trade", b"BTC/USDT"
    partition = partition_for(key, PARTITIONS)
    producer.produce(topic, testing.encode(trade(4)), key, partition=partition)
    producer.flush(60)
    producer.abort_transaction(60)
    assert bench.json("--recount")[1]["btcusdt@aggTrade"]["unexplained"] == [[4, 4]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--market", "margin"], "--market is one of spot, usdm, coinm"),
        (["--channel", "trades"], "--channel 'trades' is none of"),
        (["--from", "yesterday"], "--from is 'yesterday'"),
        (["--from", "-1h", "--to", "-2h"], "--from is not before --to"),
    ],
)
def test_bad_usage(bench, arguments, said):
    """One clear message, status 2."""
    status, _, err = bench.run(*arguments)
    assert status == 2
    assert said in err


def test_without_a_coverage_topic(bench):
    """Says which topic is missing; status 1."""
    for how in ((), ("--recount",)):
        status, _, err = bench.run(*how)
        assert status == 1
        assert f"{bench.namespace}.demo." in err
