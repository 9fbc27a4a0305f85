"""The SDK against a real Kafka, fed by writers that are not ours."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.errors import DecodeError, KafkaUnavailable, TopicMismatch
from bridge.sdk import CaughtUp, Gap, GapMarker, Raw, Ticker, Topics, Trade, connect, sync, testing
from tests.sdk.broker import PARTITIONS, writer

pytestmark = pytest.mark.kafka

NAMESPACE = "sdk-test"
ENVIRONMENT = "testnet"  # where records have present times
PAST = "demo"  # where they lie in an hour of the past
TRADES = f"{NAMESPACE}.{ENVIRONMENT}.unified.trade"
EXAMPLES = Path(__file__).parents[2] / "examples"
START = time.time_ns() // 10**9 * 1000 - 86_400_000  # yesterday: Kafka takes no times of the future


@pytest.fixture
async def write(kafka):
    """Give a writer of the topics the tests here read."""
    topics = ["unified.trade", "unified.ticker", "raw.spot.trade", "gaps"]
    async with writer(kafka.bootstrap_servers, Topics(ENVIRONMENT, NAMESPACE), topics) as ready:
        yield ready


@pytest.fixture
async def write_binance(kafka):
    """Give a writer of the topics with their usual names, which the examples read."""
    async with writer(kafka.bootstrap_servers, Topics(ENVIRONMENT), ["unified.trade", "gaps"]) as ready:
        yield ready


@pytest.fixture
async def write_past(kafka):
    """Give a writer of the environment whose records lie in the past."""
    async with writer(
        kafka.bootstrap_servers, Topics(PAST, NAMESPACE), ["unified.trade", "unified.ticker"]
    ) as ready:
        yield ready


@pytest.fixture
async def past(kafka):
    """Give a client of the environment whose records lie in the past."""
    async with connect(kafka.bootstrap_servers, environment=PAST, namespace=NAMESPACE) as connected:
        yield connected


@pytest.fixture
async def client(kafka):
    """Give a client of the shared broker."""
    async with connect(kafka.bootstrap_servers, environment=ENVIRONMENT, namespace=NAMESPACE) as connected:
        yield connected


@pytest.fixture
def symbol():
    """A unified symbol that no other test has."""
    return f"{uuid.uuid4().hex[:10].upper()}/USDT"


def trade(symbol, number, millis=None, **fields):
    """Return trade ``number`` of ``symbol``; by default a second after the one before."""
    at = START + 1000 * number if millis is None else millis
    given = {"exchangeSymbol": symbol.replace("/", ""), "channel": "trade", "id": str(number)}
    return testing.record(Trade, symbol=symbol, timestamp=at * 1000, sequence=number, **given | fields)


def iso(second):
    """Return a second after START as text."""
    return datetime.fromtimestamp(START / 1000 + second, UTC).isoformat()


def now():
    """Return the present in milliseconds."""
    return time.time_ns() // 1_000_000


async def test_live_is_what_is_written_from_now_on(write, client, symbol):
    """Without a start only records that are written after the reading is ready come, in order and exact."""
    await write.write(trade(symbol, 0, now()))
    async with client.trades(symbol) as records:
        given = [trade(symbol, n, now(), price="84211.370000000000000001") for n in range(1, 50)]
        await write.write(*given)
        assert [await anext(records) for _ in given] == given


async def test_a_range_of_time_is_read_and_ends(write_past, past, symbol):
    """With start and end exactly the records whose time lies within come, late ones included, and then it ends."""
    given = [trade(symbol, n) for n in range(100)]
    late = given.pop(30)
    await write_past.write(*given, late)
    records = past.trades(symbol, start=iso(20), end=iso(40))
    found = [record.sequence async for record in records]
    assert found == [n for n in range(20, 40) if n != 30] + [30]


async def test_a_late_record_is_found_as_far_as_is_asked_for(write_past, past, symbol):
    """What was written up to ``late`` after its time is found; beyond it only ``late="all"`` finds it."""

    def ticker(minute, last):
        return testing.record(Ticker, symbol=symbol, timestamp=(START + 60_000 * minute) * 1000, last=last)

    await write_past.write(
        ticker(0, "0"), ticker(1, "1"), ticker(10, "2"), ticker(0, "3"), ticker(90, "4"), ticker(0, "5")
    )
    for late, expected in (("1m", [0]), ("20m", [0, 3]), ("1h", [0, 3]), ("all", [0, 3, 5])):
        records = past.tickers(symbol, start=START, end=START + 60_000, late=late)
        assert [record.last async for record in records] == expected


async def test_only_the_partitions_of_the_symbols_are_read(write, client, symbol):
    """A unified symbol needs one partition; an exchange symbol or none needs all."""
    await write.write(trade(symbol, 0))
    for symbols, expected in ((symbol, 1), (symbol.replace("/", ""), PARTITIONS), (None, PARTITIONS)):
        async with client.trades(symbols) as records:
            assert len(records._reading.places) == expected


async def test_symbols_of_either_kind_choose(write_past, past, symbol):
    """Unified and exchange symbols find the same records; neighbours in their partitions don't come along."""
    others = [f"{symbol[:-5]}{n}/USDT" for n in range(20)]
    await write_past.write(*[trade(s, 1) for s in (*others, symbol)])
    for symbols in (symbol, symbol.replace("/", "")):
        records = past.trades(symbols, start=START, end=START + 60_000)
        assert [record.symbol async for record in records] == [symbol]


async def test_history_runs_into_live_without_a_seam(write, client, symbol):
    """While a producer keeps writing, start-then-live gives every record of every key once and in order."""
    symbols = [f"{symbol[:-5]}{n}/USDT" for n in range(3)]
    enough, total = asyncio.Event(), 0
    begun = now()

    async def produce():
        nonlocal total
        while not enough.is_set():
            await write.write(*[trade(s, total, now()) for s in symbols])
            total += 1

    producing = asyncio.create_task(produce())
    seen: dict[str, list[int]] = {s: [] for s in symbols}
    caught_up_after = None
    try:
        async with asyncio.timeout(300):
            while len(seen[symbols[0]]) < 50:  # let some of it be history
                async for record in client.trades(symbols[0], start=begun - 1000, end="now"):
                    seen[symbols[0]].append(record.sequence)
                seen[symbols[0]] = sorted(set(seen[symbols[0]]))
            seen = {s: [] for s in symbols}
            async with client.trades(symbols, start=begun - 1000, markers=True) as records:
                async for record in records:
                    if isinstance(record, CaughtUp):
                        caught_up_after = sum(map(len, seen.values()))
                        continue
                    seen[record.symbol].append(record.sequence)
                    count = sum(map(len, seen.values()))
                    if caught_up_after is not None and count > caught_up_after + 300:
                        enough.set()
                        await producing
                    if enough.is_set() and count == total * len(symbols):
                        break
    finally:
        enough.set()
        await producing
    assert seen == {s: list(range(total)) for s in symbols}
    assert caught_up_after is not None
    assert 0 < caught_up_after < total * len(symbols)


async def test_an_end_that_is_still_to_come_is_waited_for(write, client, symbol):
    """With an end ahead of now the iteration is live until then, and ends by itself."""
    written = now()
    await write.write(trade(symbol, 0, written))
    begun = now()
    async with client.trades(symbol, start=written, end=begun + 4000) as records:
        await write.write(
            trade(symbol, 1, begun + 1), trade(symbol, 2, begun + 5000), trade(symbol, 3, begun + 2)
        )
        async with asyncio.timeout(300):
            assert [record.sequence async for record in records] == [0, 1, 3]
    assert now() >= begun + 4000


async def test_gaps_come_as_markers(write, client, symbol):
    """With markers the gaps of the symbols and channels read stand between the records."""
    gap = testing.record(
        Gap, symbol=symbol, channel="trade", firstSequence=1, lastSequence=3, detectedAt=now() * 1000
    )
    async with client.trades(symbol, markers=True) as records:
        assert isinstance(await anext(records), CaughtUp)
        await write.write(gap)
        assert await anext(records) == GapMarker(gap)


async def test_a_tombstone_is_passed_over(write, client, symbol):
    """A record without a value (a deletion in a compacted topic) is no record to the consumer."""
    async with client.trades(symbol) as records:
        await write.send(TRADES, symbol.encode(), None, now())
        await write.write(trade(symbol, 1, now()))
        assert (await anext(records)).sequence == 1


async def test_a_value_that_is_no_record_is_located(write, client, symbol):
    """A poison value raises with its place; the next step goes on behind it."""
    async with client.trades(symbol) as records:
        await write.send(TRADES, symbol.encode(), b"poison", now())
        await write.write(trade(symbol, 1, now()))
        with pytest.raises(DecodeError, match=rf"{re.escape(TRADES)}, partition \d, offset \d+: .*706f"):
            await anext(records)
        assert (await anext(records)).sequence == 1


async def test_raw_payloads_come_byte_for_byte(write, client, symbol):
    """Raw records are found by exchange symbol, the payload untouched."""
    name = symbol.replace("/", "")
    payload = b'{"p":"1.10",  "s":"\xff"}'
    given = testing.record(
        Raw, channel="trade", symbol=name, stream="s@trade", receivedAt=now() * 1000, payload=payload
    )
    async with client.raw("spot", "trade", name) as records:
        assert len(records._reading.places) == 1
        await write.write(given)
        assert (await anext(records)).payload == payload


async def test_giving_up_waiting_loses_nothing(write, client, symbol):
    """A time-out around one step leaves the iteration whole: the next record still comes."""
    async with client.trades(symbol) as records:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(records)
        await write.write(trade(symbol, 1, now()))
        assert (await anext(records)).sequence == 1


async def test_watching_a_ticker(write, client, symbol):
    """``watch_ticker`` gives the next ticker, or says in time that none came."""
    with pytest.raises(TimeoutError, match=f"no ticker of {symbol} came within 0.5 s"):
        await client.watch_ticker(symbol, timeout=0.5)
    watching = asyncio.ensure_future(client.watch_ticker(symbol, timeout=300))
    while not watching.done():
        await write.write(testing.record(Ticker, symbol=symbol, timestamp=now() * 1000, last="1.5"))
        await asyncio.wait([watching], timeout=0.05)
    assert str((await watching).last) == "1.5"


async def test_a_missing_topic_is_named_with_its_mend(client):
    """Reading a topic that does not exist fails at once, names it and the command that makes it."""
    with pytest.raises(
        TopicMismatch, match=r"sdk-test\.testnet\.unified\.liquidation .*binance-bridge topics apply"
    ):
        await anext(client.liquidations())


async def test_no_broker_is_named():
    """Where nothing listens the error names the address."""
    async with connect("127.0.0.1:1", environment="prod") as client:
        with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1"):
            await anext(client.trades())


def test_without_await_from_kafka(kafka, symbol):
    """The synchronous client reads a range of time from a real broker."""

    async def prepare():
        async with writer(kafka.bootstrap_servers, Topics(PAST, NAMESPACE), ["unified.trade"]) as ready:
            await ready.write(*[trade(symbol, n) for n in range(10)])

    asyncio.run(prepare())
    with sync.connect(kafka.bootstrap_servers, environment=PAST, namespace=NAMESPACE) as client:
        records = client.trades(symbol, start=START, end=START + 60_000)
        assert [record.sequence for record in records] == list(range(10))


@asynccontextmanager
async def example(name, *arguments):
    """Run an example as a user would; it must end well and say nothing on standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent)},
    )
    try:
        async with asyncio.timeout(300):
            yield process
            assert (await process.stderr.read(), await process.wait()) == (b"", 0)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_example_that_consumes_trades(kafka, write_binance, symbol):
    """``examples/consume_trades.py`` prints the trades of a symbol as they come."""
    arguments = (kafka.bootstrap_servers, ENVIRONMENT, symbol, "--count", "2")
    async with example("consume_trades.py", *arguments) as process:
        reading = asyncio.create_task(process.stdout.read())
        number = 0
        while not reading.done():
            given = {"side": "buy", "price": "84000.10", "amount": "0.5"}
            await write_binance.write(trade(symbol, number, now(), **given))
            number += 1
            await asyncio.wait([reading], timeout=0.05)
        lines = (await reading).decode().splitlines()
    assert len(lines) == 2
    assert re.fullmatch(rf"\S+Z {symbol} buy 0\.5 @ 84000\.1", lines[0])


async def test_the_example_that_replays_first(kafka, write_binance, symbol):
    """``examples/replay_then_live.py`` prints history, says where live begins, and goes on."""
    await write_binance.write(*[trade(symbol, n, now()) for n in range(5)])
    arguments = (kafka.bootstrap_servers, ENVIRONMENT, symbol, "--start=-5m", "--count=7")
    async with example("replay_then_live.py", *arguments) as process:
        history = [(await process.stdout.readline()).decode() for _ in range(6)]
        assert [symbol in line for line in history] == [True] * 5 + [False]
        assert history[5] == "— live from here on; 5 trades replayed\n"
        await write_binance.write(*[trade(symbol, n, now()) for n in range(5, 8)])
        assert (await process.stdout.read()).decode().count(symbol) == 2
