"""The same seed and calls give the same bytes; nothing else has a say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bridge.simulator.market import MarketExchange
from tests.simulator.market.recording import START, Recording, of_symbols

if TYPE_CHECKING:
    from bridge.model import Market

KINDS = ("trade", "aggTrade", "depth@100ms", "bookTicker", "kline_1m", "ticker", "miniTicker")
STREAMS: dict[Market, list[str]] = {
    "spot": [*of_symbols(["BTCUSDT", "币安人生USDT"], KINDS), "!miniTicker@arr"],
    "usdm": [*of_symbols(["BTCUSDT"], KINDS), "!markPrice@arr", "!forceOrder@arr", "!contractInfo"],
}
SCRIPT = """
import hashlib
from tests.simulator.market.test_determinism import STREAMS
from tests.simulator.market.recording import START, Recording
run = Recording(STREAMS, seed=9).run(START + 4_000)
print(hashlib.sha256(repr(run.emissions).encode()).hexdigest())
"""


def test_the_same_calls_give_the_same_bytes() -> None:
    """Two exchanges of one seed emit the same, and those of another seed something else."""
    first, second = (Recording(STREAMS, seed=9).run(START + 4_000).emissions for _ in range(2))
    assert first == second
    assert first
    assert first != Recording(STREAMS, seed=10).run(START + 4_000).emissions


def test_hash_seeds_have_no_say() -> None:
    """Another process, with another hash seed, emits the same."""
    hashes = set()
    for seed in ("0", "12345"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        hashes.add(done.stdout)
    assert len(hashes) == 1


def test_step_size_has_no_say() -> None:
    """Advancing in one go, by steps, or by odd steps emits the same."""
    whole = Recording(STREAMS, seed=9).run(START + 4_000).emissions
    for step in (1, 37, 1000):
        stepped = Recording(STREAMS, seed=9)
        for at in range(START, START + 4_000, step):
            stepped.run(at)
        assert stepped.run(START + 4_000).emissions == whole


def test_tracking_has_no_say_in_the_market() -> None:
    """What a stream says does not depend on which others are tracked, nor on questions asked in between."""
    alone = Recording({"spot": ["btcusdt@trade", "btcusdt@depth@100ms"]}, seed=9)
    among = Recording(STREAMS, seed=9)
    for at in range(START, START + 4_000, 250):
        alone.run(at)
        among.run(at)
        among.get("spot", "/api/v3/klines", symbol="BTCUSDT", interval="1h")
        among.get("usdm", "/fapi/v1/ticker/24hr")
    for stream in ("btcusdt@trade", "btcusdt@depth@100ms"):
        assert alone.of("spot", stream) == among.of("spot", stream)


def test_tracking_later_misses_only_what_was_before() -> None:
    """A stream tracked later says from then on what it says when tracked from the start."""
    early = Recording({"usdm": ["btcusdt@trade"]}, seed=9).run(START + 4_000)
    late = Recording({}, seed=9).run(START + 2_000)
    assert late.exchange.track("usdm", "btcusdt@trade")
    late.run(START + 4_000)
    rows = late.of("usdm", "btcusdt@trade")
    assert rows
    assert rows == [e for e in early.of("usdm", "btcusdt@trade") if e.event_time_ms > START + 2_000]


def test_events_come_in_order_and_in_time() -> None:
    """Event times never go back and lie within what was asked for."""
    exchange = MarketExchange(2, 4, 500, START)
    for market, streams in STREAMS.items():
        for stream in streams:
            exchange.track(market, stream)
    last = START
    for until in range(START + 100, START + 3_000, 130):
        for emission in exchange.advance(until):
            assert last <= emission.event_time_ms <= until
            last = emission.event_time_ms


def test_rate_is_what_was_asked_for() -> None:
    """The market makes about ``rate`` changes of its books a second."""
    recording = Recording({}, rate=2_000)
    books = [x.book for market in recording.exchange.world.listings.values() for x in market.values()]
    happenings = 0
    times = {id(book): book.update_id for book in books}
    for at in range(START + 1, START + 2_001):
        recording.run(at)
        for book in books:
            happenings += book.update_id != times[id(book)]
            times[id(book)] = book.update_id
    # several changes of one book in one millisecond count once
    assert 2_700 < happenings < 4_200


def test_a_busy_market_is_quick() -> None:
    """A market with 50 symbols and 20,000 happenings a second, all streamed, takes less than real time of one core."""
    recording = Recording({}, symbols=17, rate=20_000)
    world = recording.exchange.world
    for market, listings in world.listings.items():
        for stream in of_symbols(listings, ("trade", "bookTicker", "depth@100ms")):
            recording.exchange.track(market, stream)
    began = time.process_time()
    emitted = sum(1 for _ in recording.exchange.advance(START + 2_000))
    assert time.process_time() - began < 2
    assert emitted > 20_000
