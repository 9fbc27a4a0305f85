"""Which container keeps the price levels of the SDK's live book: measured on a made-up book and on captured ones.

python benchmarks/sdk_book.py [--deltas 4000]

Each candidate applies the same deltas and is asked for both best prices after each (the check for a crossed book
needs them), and for ten levels a side after every tenth. Figures are the best of three runs, in microseconds of the
processor per delta.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from bisect import bisect_left, insort
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sortedcontainers import SortedDict

from bridge.sdk import OrderBook, testing
from bridge.sdk.book_state import BookState, Ladder
from bridge.sdk.reading import decoder
from bridge.sdk.records import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

CAPTURES = Path(__file__).parents[1] / "tests/captures"
Delta = tuple[tuple[Level, ...], tuple[Level, ...]]


class Container(Protocol):
    """One side of a book."""

    def apply(self, levels: Iterable[Level]) -> None:
        """Set amounts; 0 removes."""

    def best(self) -> Decimal:
        """Return the best price."""

    def top(self, count: int) -> Sequence[Level]:
        """Return the best levels."""


class _LazilySorted:
    """A dict; the sorted prices are made when they are asked for, and thrown away when a price comes or goes."""

    def __init__(self, levels: Iterable[Level], *, descending: bool) -> None:
        self.amounts, self.descending = dict(levels), descending
        self.prices: list[Decimal] | None = None

    def apply(self, levels: Iterable[Level]) -> None:
        amounts = self.amounts
        for price, amount in levels:
            if not amount:
                if amounts.pop(price, None) is not None:
                    self.prices = None
            else:
                if price not in amounts:
                    self.prices = None
                amounts[price] = amount

    def best(self) -> Decimal:
        if self.prices is None:
            return (max if self.descending else min)(self.amounts)
        return self.prices[-1 if self.descending else 0]

    def top(self, count: int) -> list[Level]:
        if self.prices is None:
            self.prices = sorted(self.amounts)
        chosen = self.prices[: -count - 1 : -1] if self.descending else self.prices[:count]
        return [Level(price, self.amounts[price]) for price in chosen]


class _Bisected:
    """A dict, and its prices in a list kept sorted by bisection; ascending for both sides."""

    def __init__(self, levels: Iterable[Level], *, descending: bool) -> None:
        self.amounts, self.descending = dict(levels), descending
        self.prices = sorted(self.amounts)

    def apply(self, levels: Iterable[Level]) -> None:
        amounts, prices = self.amounts, self.prices
        for price, amount in levels:
            if not amount:
                if amounts.pop(price, None) is not None:
                    del prices[bisect_left(prices, price)]
            else:
                if price not in amounts:
                    insort(prices, price)
                amounts[price] = amount

    def best(self) -> Decimal:
        return self.prices[-1 if self.descending else 0]

    def top(self, count: int) -> list[Level]:
        chosen = self.prices[: -count - 1 : -1] if self.descending else self.prices[:count]
        return [Level(price, self.amounts[price]) for price in chosen]


class _Sorted:
    """``sortedcontainers.SortedDict``."""

    def __init__(self, levels: Iterable[Level], *, descending: bool) -> None:
        self.amounts, self.descending = SortedDict(levels), descending

    def apply(self, levels: Iterable[Level]) -> None:
        amounts = self.amounts
        for price, amount in levels:
            if not amount:
                amounts.pop(price, None)
            else:
                amounts[price] = amount

    def best(self) -> Decimal:
        return self.amounts.peekitem(-1 if self.descending else 0)[0]

    def top(self, count: int) -> list[Level]:
        keys = reversed(self.amounts) if self.descending else iter(self.amounts)
        return [Level(price, self.amounts[price]) for price in islice(keys, count)]


class _Ours:
    """What the SDK has: a dict and a bisected list with the best price last."""

    def __init__(self, levels: Iterable[Level], *, descending: bool) -> None:
        self.ladder = Ladder(descending=descending)
        self.ladder.replace(levels)
        self.apply, self.top = self.ladder.apply, self.ladder.top

    def best(self) -> Decimal:
        return self.ladder.best.price


CANDIDATES: dict[str, Callable[..., Container]] = {
    "dict, lazily sorted": _LazilySorted,
    "dict + bisected list": _Bisected,
    "SortedDict": _Sorted,
    "bridge.sdk.book_state.Ladder": _Ours,
}


class Load(NamedTuple):
    """A book and what happens to it."""

    name: str
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    deltas: list[Delta]


def made_up(depth: int, touched: int, count: int) -> Load:
    """Return a book of ``depth`` levels a side; each delta touches some, most of them near the middle."""
    chance = random.Random(7)
    tick, middle = Decimal("0.01"), 8_400_000

    def level(distance: int, sign: int, amount: str) -> Level:
        return Level((middle + sign * (1 + distance)) * tick, Decimal(amount))

    def side(sign: int) -> tuple[Level, ...]:
        return tuple(level(n * 2, sign, f"{chance.randrange(1, 10**6) / 1000:.3f}") for n in range(depth))

    def changes(sign: int) -> tuple[Level, ...]:
        found = {}
        for _ in range(touched // 2):
            near = 1 + int(chance.expovariate(1 / (depth / 20)))
            gone = chance.random() < 0.4
            amount = "0" if gone else f"{chance.randrange(1, 10**6) / 1000:.3f}"
            found[near] = level(min(near, depth * 2), sign, amount)
        return tuple(found.values())

    name = f"made up, {depth} levels a side, {touched} changes"
    return Load(name, side(-1), side(1), [(changes(-1), changes(1)) for _ in range(count)])


def captured(market: str, symbol: str, count: int) -> Load:
    """Return a captured book with its snapshot, the deltas over and over up to ``count``."""
    snapshot, found = None, []
    with gzip.open(CAPTURES / f"{market}.jsonl.gz", "rt") as lines:
        for line in map(json.loads, lines):
            if line["kind"] == "rest" and f"/depth?symbol={symbol}&" in line["url"]:
                snapshot = json.loads(line["body"])
            elif line["kind"] == "message":
                data = json.loads(line["message"]).get("data", {})
                if data.get("e") == "depthUpdate" and data["s"] == symbol:
                    found.append((levels(data["b"]), levels(data["a"])))
    assert snapshot is not None
    name = f"captured {market} {symbol}"
    return Load(
        name, levels(snapshot["bids"]), levels(snapshot["asks"]), (found * (count // len(found) + 1))[:count]
    )


def levels(rows: list[list[str]]) -> tuple[Level, ...]:
    """Return the exchange's rows as levels."""
    return tuple(Level(Decimal(price), Decimal(amount)) for price, amount in rows)


def run(candidate: Callable[..., Container], load: Load) -> float:
    """Return microseconds per delta."""
    bids, asks = candidate(load.bids, descending=True), candidate(load.asks, descending=False)
    began = time.process_time()
    for number, (new_bids, new_asks) in enumerate(load.deltas):
        bids.apply(new_bids)
        asks.apply(new_asks)
        bids.best()
        asks.best()
        if number % 10 == 0:
            bids.top(10)
            asks.top(10)
    return (time.process_time() - began) / len(load.deltas) * 1e6


def encoded(load: Load) -> tuple[OrderBook, list[bytes]]:
    """Return the load as the records of the topic: the snapshot, and the changes."""
    fields = {"symbol": "BTC/USDT", "channel": "depth", "exchangeSymbol": "BTCUSDT"}
    first = testing.record(OrderBook, type="snapshot", sequence=0, bids=load.bids, asks=load.asks, **fields)
    numbered = enumerate(load.deltas, start=1)
    return first, [
        testing.encode(
            testing.record(
                OrderBook, type="delta", firstSequence=n, sequence=n, bids=bids, asks=asks, **fields
            )
        )
        for n, (bids, asks) in numbered
    ]


def whole(first: OrderBook, values: list[bytes]) -> tuple[float, float]:
    """Return microseconds per delta of decoding, and of taking it: link, faults, levels and crossing."""
    decode, state = decoder().decode, BookState("BTC/USDT", "spot")
    state.take(first)
    began = time.process_time()
    records = [decode(value) for value in values]
    decoded = time.process_time()
    for record in records:
        state.take(record)
    taken = time.process_time()
    assert state.in_sync, state.reason
    return (decoded - began) / len(values) * 1e6, (taken - decoded) / len(values) * 1e6


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--deltas", type=int, default=4000)
    count = arguments.parse_args().deltas
    loads = [
        captured("usdm", "SUSHIUSDT", count),
        captured("coinm", "ETHUSD_210924", count),
        made_up(1000, 20, count),
        made_up(5000, 50, count),
        made_up(20_000, 50, count),
    ]
    for load in loads:
        changes = sum(len(bids) + len(asks) for bids, asks in load.deltas) / len(load.deltas)
        print(f"{load.name} ({changes:.1f} changes a delta)")
        for name, candidate in CANDIDATES.items():
            print(f"  {name:28} {min(run(candidate, load) for _ in range(3)):9.2f} µs")
        if load.name.startswith("captured"):
            continue  # played over and over its book is crossed
        first, values = encoded(load)
        decoding, taking = map(min, zip(*(whole(first, values) for _ in range(3)), strict=True))
        print(f"  {'decoding the record':28} {decoding:9.2f} µs")
        print(f"  {'BookState.take, all of it':28} {taking:9.2f} µs")


if __name__ == "__main__":
    main()
