"""What order books cost: CPU per update by container, memory per book, snapshots, and the start-up of 400 books.

``python benchmarks/books.py`` prints the figures of docs/performance.md; ``--live DEPTH`` starts a simulator, a local
Kafka and a bridge with 400 books, and says when all were in sync (minutes: the request weight decides).
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
import urllib.request
from bisect import bisect_left, insort
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bridge.catalogue import TopicNames, catalogue  # noqa: E402 - the checkout comes first
from bridge.core.book import Book  # noqa: E402
from bridge.core.book_queue import Ask, BookKey, BookQueue  # noqa: E402
from bridge.core.book_sync import BookSync, Change  # noqa: E402
from bridge.core.derive import Writer  # noqa: E402
from bridge.core.levels import read_levels  # noqa: E402
from bridge.local.kafka import LocalKafka  # noqa: E402
from bridge.local.process import free_ports  # noqa: E402
from bridge.model import MARKETS, Leg, StreamState  # noqa: E402
from bridge.pipeline import Pipeline  # noqa: E402
from bridge.schema import schemas  # noqa: E402
from bridge.telemetry import Telemetry  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bridge.model import Market

BOOKS = 400


class Container(Protocol):
    """One side of a book, kept in some way; given price, quantity, price, quantity …, unscaled."""

    def __init__(self, numbers: Sequence[int]) -> None: ...

    def apply(self, numbers: Sequence[int]) -> None:
        """Set levels; 0 removes."""

    def best(self) -> int | None:
        """Return the highest price."""


def pairs(numbers: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Return prices and quantities."""
    each = iter(numbers)
    return zip(each, each, strict=True)


class DictMax:
    """A dict; the best price by ``max`` each time."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.levels = dict(pairs(numbers))

    def apply(self, numbers: Sequence[int]) -> None:
        """Set levels."""
        for price, amount in pairs(numbers):
            if amount:
                self.levels[price] = amount
            else:
                self.levels.pop(price, None)

    def best(self) -> int | None:
        """Return the highest price."""
        return max(self.levels, default=None)


class DictRemembered(DictMax):
    """A dict; the best price is remembered, and looked for anew when its level goes."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(numbers)
        self.known = max(self.levels, default=None)

    def apply(self, numbers: Sequence[int]) -> None:
        """Set levels."""
        levels, known = self.levels, self.known
        for price, amount in pairs(numbers):
            if amount:
                levels[price] = amount
                known = price if known is not None and price > known else known
            else:
                levels.pop(price, None)
                known = None if price == known else known
        self.known = max(levels, default=None) if known is None else known

    def best(self) -> int | None:
        """Return the highest price."""
        return self.known


class DictAndList:
    """A dict and a sorted list of its prices: what the bridge has."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.levels = dict(pairs(numbers))
        self.prices = sorted(self.levels)

    def apply(self, numbers: Sequence[int]) -> None:
        """Set levels."""
        levels, prices = self.levels, self.prices
        for price, amount in pairs(numbers):
            if amount:
                if price not in levels:
                    insort(prices, price)
                levels[price] = amount
            elif levels.pop(price, None) is not None:
                del prices[bisect_left(prices, price)]

    def best(self) -> int | None:
        """Return the highest price."""
        return self.prices[-1] if self.prices else None


def containers() -> list[type[Container]]:
    """Return what is compared; sortedcontainers where it is installed."""
    found: list[type[Container]] = [DictMax, DictRemembered, DictAndList]
    try:
        from sortedcontainers import SortedDict
    except ImportError:
        return found

    class Sorted(DictMax):
        """``SortedDict`` of sortedcontainers."""

        def __init__(self, numbers: Sequence[int]) -> None:
            self.levels = SortedDict(pairs(numbers))

        def best(self) -> int | None:
            """Return the highest price."""
            return self.levels.peekitem(-1)[0] if self.levels else None

    return [*found, Sorted]


def flat(rows: object) -> list[int]:
    """Return levels as the exchange writes them, as a book takes them."""
    return read_levels(json.dumps(rows, separators=(",", ":")).encode())


def recorded() -> tuple[dict[str, dict[str, Any]], list[tuple[str, Change]]]:
    """Return the snapshots and changes of the captures, by market and symbol."""
    snapshots, changes = {}, []
    for market in ("spot", "usdm", "coinm"):
        with gzip.open(ROOT / "tests/captures" / f"{market}.jsonl.gz", "rt", encoding="utf-8") as file:
            for line in map(json.loads, file):
                if line["kind"] == "rest" and "/depth" in line["url"]:
                    symbol = line["url"].partition("symbol=")[2].partition("&")[0]
                    snapshots[market + symbol] = json.loads(line["body"])
                elif line["kind"] == "message" and "@depth" in line["message"][:60]:
                    data = json.loads(line["message"])["data"]
                    rows = [flat(data[side]) for side in "ba"]
                    previous = data.get("pu", data["U"] - 1)
                    changes.append((market + data["s"], Change(previous, data["u"], *rows)))
    return snapshots, changes


def best_of(times: int, work: Callable[[], float]) -> float:
    """Return the least of several measurements."""
    return min(work() for _ in range(times))


def updates() -> None:
    """Print what an update of the captures costs, by container and as a whole."""
    snapshots, changes = recorded()
    levels = sum(c.levels for _, c in changes) / len(changes)
    sides = {name: (flat(s["bids"]), flat(s["asks"])) for name, s in snapshots.items()}
    size = sum(len(s["bids"]) + len(s["asks"]) for s in snapshots.values()) / len(snapshots)
    print(
        f"{len(changes)} recorded updates of {levels:.1f} levels to books of {size:.0f} levels, µs an update:"
    )
    for kind in containers():

        def once(kind: type[Container] = kind) -> float:
            books = {name: (kind(bids), kind(asks)) for name, (bids, asks) in sides.items()}
            begin = time.perf_counter()
            for name, change in changes:
                bids, asks = books[name]
                bids.apply(change.bids)
                asks.apply(change.asks)
                bids.best(), asks.best()
            return time.perf_counter() - begin

        print(f"  {kind.__name__:16} {best_of(7, once) / len(changes) * 1e6:6.2f}")

    def whole() -> float:
        books: dict[str, BookSync] = defaultdict(lambda: BookSync(1 << 60))
        for name, snapshot in snapshots.items():
            first = next(change for of, change in changes if of == name)
            books[name].change(Change(0, first.previous, [], []), 0)
            body = json.dumps({**snapshot, "lastUpdateId": first.previous}).encode()
            books[name].answer(body, 1000, 0)
        begin = time.perf_counter()
        for name, change in changes:
            books[name].change(change, 0)
        return time.perf_counter() - begin

    print(
        f"  {'BookSync.change':16} {best_of(7, whole) / len(changes) * 1e6:6.2f}  (order, state, soundness included)"
    )


class Nowhere:
    """A publisher that keeps nothing."""

    buffered_bytes = 0

    def lane(self, topic: str, key: bytes) -> Nowhere:  # noqa: ARG002 - the port's
        """Return a lane."""
        return self

    def append(self, *record: object) -> None:
        """Forget a record."""


def messages() -> None:
    """Print what a recorded depth message costs from bytes to records, without books and with them."""
    for interval in (None, 60_000):
        total = frames = 0.0
        for market in MARKETS:
            with gzip.open(ROOT / "tests/captures" / f"{market}.jsonl.gz", "rt", encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
            depth = [line for line in lines if "@depth" in line.get("message", "")[:60]]

            def once(market: Market = market, lines: list[Any] = lines, depth: list[Any] = depth) -> float:
                return _received(market, lines, depth, interval)  # noqa: B023 - called at once

            total += best_of(5, once)
            frames += len(depth)
        print(
            f"{total / frames * 1e6:.1f} µs a depth message {'without' if interval is None else 'with'} books"
        )


def _received(market: Market, lines: list[Any], depth: list[Any], interval: int | None) -> float:
    pipe = Pipeline(
        catalogue=catalogue(), schemas=schemas(), names=TopicNames("prod"), publisher=Nowhere(), telemetry=Telemetry(),
        writer=Writer("live", 0), hold_ms=250, state_interval_ms=1000, snapshot_interval_ms=interval,
    )  # fmt: skip
    answers = [line for line in lines if line["kind"] == "rest"]
    info = next(line["body"] for line in answers if "exchangeInfo" in line["url"])
    pipe.exchange_info(market, 1, info.encode(), 0)
    symbols = {
        line["url"].partition("symbol=")[2].partition("&")[0] for line in answers if "/depth" in line["url"]
    }
    chosen = catalogue().choose(market, ["depth"], sorted(symbols), None, pipe.instruments[market])
    for one in chosen:
        pipe.add(one)
    leg = Leg(1, market, {c.stream.name.encode(): StreamState(c.stream) for c in chosen})
    pending = {}
    for line in answers:
        if "/depth" in line["url"]:
            symbol = line["url"].partition("symbol=")[2].partition("&")[0]
            pending[symbol] = json.loads(line["body"])["lastUpdateId"], line
    spent = 0.0
    for at, text, data in [
        (int(d["at"] * 1e6), d["message"], json.loads(d["message"])["data"]) for d in depth
    ]:
        frame = [text.encode()]
        begin = time.perf_counter()
        pipe.receive(leg, at, frame)
        spent += time.perf_counter() - begin
        last, line = pending.get(data["s"], (1 << 62, {}))
        if data["u"] >= last:
            del pending[data["s"]]
            pipe.api_answer(market, line["url"].partition(".com")[2], at, line["body"].encode())
    return spent


def made_up(count: int) -> tuple[bytes, bytes]:
    """Return a book of ``count`` levels a side; prices and amounts of its own."""
    bids = [(f"{84_000 - n / 100:.2f}", f"0.{n * 7919 % 99_991 + 1:05}") for n in range(count)]
    asks = [(f"{84_001 + n / 100:.2f}", f"0.{n * 6271 % 99_991 + 1:05}") for n in range(count)]
    bid_text, ask_text = (json.dumps(rows, separators=(",", ":")).encode() for rows in (bids, asks))
    return bid_text, ask_text


def memory() -> None:
    """Print what books take, and what their snapshots cost."""
    for count in (100, 1000, 5000):
        bids, asks = made_up(count)
        gc.collect()
        tracemalloc.start()
        books = [Book(read_levels(bids), read_levels(asks)) for _ in range(20)]
        size = tracemalloc.get_traced_memory()[0] / len(books)
        tracemalloc.stop()

        def encode(book: Book = books[0]) -> float:
            begin = time.perf_counter()
            book.encoded()
            return time.perf_counter() - begin

        def make(bids: bytes = bids, asks: bytes = asks) -> float:
            begin = time.perf_counter()
            Book(read_levels(bids), read_levels(asks))
            return time.perf_counter() - begin

        encoded = len(books[0].encoded()) / 1024
        times = f"{best_of(20, encode) * 1e3:.2f} ms to encode, {best_of(20, make) * 1e3:.2f} ms to make"
        print(f"{count} levels a side: {size / 1024:.0f} KiB a book, {encoded:.0f} KiB a snapshot, {times}")


def start_up() -> None:
    """Print how long 400 books take by the weight alone, on a simulated clock that starts with a minute."""
    plans: Iterable[tuple[Market, int]] = (
        ("spot", 100),
        ("spot", 500),
        ("spot", 1000),
        ("spot", 5000),
        ("usdm", 1000),
    )
    for market, depth in plans:
        queue, now = BookQueue(depth, 0.5), 60.0
        for n in range(BOOKS):
            queue.want(BookKey(market, str(n)), str(n), "first", now)
        estimate = queue.estimate_seconds(now)
        while (turn := queue.next(now, lambda _: 0)) is not None:
            if isinstance(turn, Ask):
                queue.joined(turn.key, now)
                queue.answered(turn.key)
            else:
                now += turn
        waited = f"{now - 60:.1f} s of waiting for weight, foretold {estimate:.1f}"
        print(f"{BOOKS} books of {market} at {depth} levels: {waited}")


def live(depth: int) -> None:
    """Start simulator, Kafka and bridge with 400 books; print when all are in sync, and what the process takes."""
    port = free_ports(1)[0]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder, LocalKafka() as kafka:
        command = [sys.executable, "-m", "bridge"]
        exchange = subprocess.Popen(
            [*command, "simulate", "--symbols", str(BOOKS), "--rate", "2000"], stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        assert exchange.stdout is not None
        endpoints = json.loads(exchange.stdout.readline())
        endpoints.pop("http")
        config = Path(folder, "bridge.yaml")
        settings = {
            "environment": "testnet",
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "endpoints": endpoints,
            "http": {"port": port},
            "replication_factor": 1,
            "books": {"depth": depth},
            "log": {"level": "WARNING"},
            "subscriptions": [{"market": "spot", "symbols": "*", "channels": ["depth"]}],
        }
        config.write_text(json.dumps(settings))
        began = time.monotonic()
        bridge = subprocess.Popen([*command, "run", "--config", str(config)], env=environment)
        try:
            _watch(bridge, f"http://127.0.0.1:{port}/status", began)
        finally:
            for process in (bridge, exchange):
                process.terminate()
                process.wait(30)
            exchange.stdout.close()


def _watch(bridge: subprocess.Popen[bytes], url: str, began: float) -> None:
    told = 0.0
    while True:
        time.sleep(1)
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                status = json.load(answer)
        except OSError:
            continue
        books, now = status["books"], time.monotonic() - began
        done = books["kept"] > 0 and books["synced"] == books["kept"]
        if done or now - told > 15:
            told = now
            usage = Path(f"/proc/{bridge.pid}/stat").read_text().rpartition(")")[2].split()
            cpu = (int(usage[11]) + int(usage[12])) / os.sysconf("SC_CLK_TCK")
            memory = int(usage[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
            rate = sum(m["messages_per_second"] for m in status["markets"])
            print(
                f"{now:6.0f} s: {books['synced']} of {books['kept']} in sync, {books['waiting']} wait, about "
                f"{books['estimate_seconds']:.0f} s more; {rate:.0f} messages/s, {cpu:.1f} s CPU, {memory:.0f} MiB, "
                f"weight {status['request_weight']}",
                flush=True,
            )
        if done:
            return


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--live", type=int, metavar="DEPTH")
    chosen = arguments.parse_args()
    if chosen.live is not None:
        live(chosen.live)
        return
    updates()
    messages()
    memory()
    start_up()


if __name__ == "__main__":
    main()
