"""``make demo``: a real Kafka, the simulated exchange with faults on, the bridge, and a consumer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from bridge.app import Bridge
from bridge.config import load
from bridge.errors import BridgeError, SourceError
from bridge.local.broker import broker
from bridge.sdk import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridge.config import Settings
    from bridge.model import Environment
    from bridge.sdk import Record

FAULTS = """
- {every: 15, fault: drop}
- {every: 6, fault: duplicate, count: 3}
- {every: 8, fault: skip, stream: "*@trade"}
- {every: 8, fault: reorder, count: 2}
- {every: 20, fault: garbage}
- {every: 30, fault: shutdown, market: spot}
"""
SUBSCRIPTIONS: list[dict[str, Any]] = [
    {"market": "spot", "symbols": "*", "channels": ["trade", "book-ticker", "depth", "kline_1m", "ticker"]},
    {
        "market": "usdm",
        "symbols": "*",
        "channels": ["agg-trade", "book-ticker", "mark-price@1s", "liquidation"],
    },
    {"market": "coinm", "symbols": "*", "channels": ["agg-trade", "book-ticker", "kline_1m"]},
]
LIVE_SUBSCRIPTIONS: list[dict[str, Any]] = [
    {
        "market": "spot",
        "symbols": ["BTC/USDT", "ETH/USDT", "SOL/USDT"],
        "channels": ["trade", "book-ticker", "depth", "kline_1m", "ticker"],
    },
    {
        "market": "usdm",
        "symbols": ["BTC/USDT:USDT", "ETH/USDT:USDT"],
        "channels": ["agg-trade", "book-ticker", "mark-price@1s", "liquidation"],
    },
    {"market": "coinm", "symbols": ["BTC/USD:BTC"], "channels": ["agg-trade", "book-ticker"]},
]
_SHOWN = ("trade", "bid-ask", "mark-price")
_SHOWN_EVERY_SECONDS = 0.5
_STATUS_EVERY_SECONDS = 5.0
_READY_WITHIN_SECONDS = 60.0


class Consumer:
    """Reads what the bridge publishes, as any service would, and measures how old it is on arrival."""

    def __init__(self, console: Console) -> None:
        self.records: Counter[str] = Counter()
        self.ages_ms: list[float] = []
        self._console = console
        self._shown_at: dict[str, float] = {}

    async def read(self, servers: str, environment: Environment) -> None:
        """Read the shown structures until cancelled."""
        async with connect(servers, environment=environment) as client, asyncio.TaskGroup() as tasks:
            for structure in _SHOWN:
                tasks.create_task(self._follow(structure, client.records(structure)))

    async def _follow(self, structure: str, records: AsyncIterator[Record]) -> None:
        async for record in records:
            self.records[structure] += 1
            event_time = getattr(record, "eventTime", None) or getattr(record, "timestamp", None)
            if event_time is not None and len(self.ages_ms) < 1_000_000:
                self.ages_ms.append(time.time_ns() / 1e6 - event_time / 1e3)
            now = time.monotonic()
            if now - self._shown_at.get(structure, 0.0) >= _SHOWN_EVERY_SECONDS:
                self._shown_at[structure] = now
                self._console.print(_line(structure, record), highlight=False, markup=False, soft_wrap=True)


def _line(structure: str, record: Record) -> str:
    values: dict[str, Any] = {name: getattr(record, name, None) for name in _COLUMNS[structure]}
    shown = "  ".join(f"{name} {_short(value)}" for name, value in values.items() if value is not None)
    symbol: str = getattr(record, "symbol", "")
    return f"{structure:<11} {symbol}{' ' * (22 - cell_len(symbol))} {shown}"


_COLUMNS = {
    "trade": ("side", "price", "amount", "cost"),
    "bid-ask": ("bid", "bidVolume", "ask", "askVolume"),
    "mark-price": ("markPrice", "indexPrice"),
}


def _short(value: object) -> str:
    text = f"{value:f}" if hasattr(value, "as_tuple") else str(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


async def demo(seconds: float | None, stop: asyncio.Event, *, live: bool) -> None:
    """Show the whole system until ``stop``, or for ``seconds`` once it is up.

    Raises:
        BridgeError: a part did not come up, or nothing came in.
    """
    console = Console()
    async with AsyncExitStack() as stack:
        console.print("starting a real Apache Kafka …")
        kafka = await _entered(stack)
        endpoints: dict[str, Any] = {}
        if not live:
            console.print("starting the exchange simulator, with faults on …")
            endpoints = await stack.enter_async_context(_simulator())
        bridge = Bridge(_settings(kafka, endpoints, live=live))
        ending = asyncio.Event()
        running = asyncio.ensure_future(bridge.run(ending))
        try:
            await _until_ready(bridge, running, stop)
            console.print(f"the bridge runs; status page: {bridge.http.url}")
            consumer = Consumer(console)
            reading = asyncio.ensure_future(consumer.read(kafka, bridge.settings.environment))
            try:
                await _show(bridge, console, running, reading, stop, seconds)
            finally:
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reading
        finally:
            ending.set()
            await running
        _summary(bridge, consumer, console)
        if not stop.is_set() and not sum(bridge.counts.messages.values()):
            raise SourceError("no message came in; is the exchange reachable from here?")


async def _entered(stack: AsyncExitStack) -> str:
    """Start a broker beside the event loop; it stops when the stack unwinds."""
    context = broker()
    found = await asyncio.to_thread(context.__enter__)
    stack.push_async_callback(asyncio.to_thread, context.__exit__, None, None, None)
    return found.bootstrap_servers


@asynccontextmanager
async def _simulator() -> AsyncIterator[dict[str, Any]]:
    with TemporaryDirectory(prefix="binance-bridge-demo-") as folder:
        plan = Path(folder, "faults.yaml")
        plan.write_text(FAULTS, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bridge", "simulate", "--symbols", "8", "--rate", "300", "--faults", str(plan),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), 30)
            if not line:
                raise BridgeError("the simulator did not start; its messages stand above")
            yield {k: v for k, v in json.loads(line).items() if k in {"spot", "usdm", "coinm"}}
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


def _settings(kafka: str, endpoints: dict[str, Any], *, live: bool) -> Settings:
    return load(
        None,
        {},
        "prod" if live else "demo",
        {
            "instance": "demo",
            "kafka": {"bootstrap_servers": kafka},
            "replication_factor": 1,
            "topics": {"partitions": 3},
            "subscriptions": LIVE_SUBSCRIPTIONS if live else SUBSCRIPTIONS,
            "endpoints": endpoints,
            "http": {"port": 0},
            "stop_timeout_seconds": 20,
        },
    )


async def _until_ready(bridge: Bridge, running: asyncio.Future[None], stop: asyncio.Event) -> None:
    deadline = time.monotonic() + _READY_WITHIN_SECONDS
    while not bridge.reporter.ready()[0]:
        if running.done() or stop.is_set():
            return
        if time.monotonic() > deadline:
            raise BridgeError(
                f"the bridge is not ready after {_READY_WITHIN_SECONDS:.0f} s: {bridge.reporter.ready()[1]}"
            )
        await asyncio.sleep(0.05)


async def _show(
    bridge: Bridge,
    console: Console,
    running: asyncio.Future[None],
    reading: asyncio.Future[None],
    stop: asyncio.Event,
    seconds: float | None,
) -> None:
    """Print the status now and then until the time is over, ``stop`` is set or a part ends."""
    stopped = asyncio.ensure_future(stop.wait())
    end = None if seconds is None else time.monotonic() + seconds
    try:
        while end is None or time.monotonic() < end:
            left = (
                _STATUS_EVERY_SECONDS if end is None else min(_STATUS_EVERY_SECONDS, end - time.monotonic())
            )
            parts: tuple[asyncio.Future[Any], ...] = (stopped, running, reading)
            done, _ = await asyncio.wait(parts, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            console.print(_status_line(bridge), style="bold", highlight=False, soft_wrap=True)
    finally:
        stopped.cancel()


def _status_line(bridge: Bridge) -> str:
    status = bridge.reporter.status()
    markets = ", ".join(f"{m['market']} {m['messages_per_second']:.0f}/s" for m in status["markets"])
    return (
        f"— {status['reason']}: {markets}; gaps found {status['gaps']['found']}, "
        f"dead letters {status['dead_letters']}, buffer {status['buffer']['bytes']:,} bytes"
    )


def _summary(bridge: Bridge, consumer: Consumer, console: Console) -> None:
    status, counts = bridge.reporter.status(), bridge.counts
    table = Table(title="Summary", title_justify="left", box=None)
    table.add_column("what")
    table.add_column("how much", justify="right")
    for (market, channel), messages in sorted(counts.messages.items()):
        table.add_row(f"messages in: {market} {channel}", f"{messages:,}")
    for topic in status["topics"]:
        table.add_row(f"records out: {topic['topic']}", f"{topic['records']:,}")
    table.add_row("gaps found", f"{counts.gaps_found:,}")
    table.add_row("gap events filled", f"{counts.gap_events_recovered:,}")
    table.add_row("dead letters", f"{counts.dead_letters:,}")
    table.add_row("reconnects", f"{sum(m['reconnects'] for m in status['markets']):,}")
    table.add_row("records at the consumer", f"{sum(consumer.records.values()):,}")
    ages = sorted(consumer.ages_ms)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        shown = f"{ages[int((len(ages) - 1) * share)]:.1f} ms" if ages else "–"
        table.add_row(f"latency {name}, exchange to consumer", shown)
    console.print(table)
