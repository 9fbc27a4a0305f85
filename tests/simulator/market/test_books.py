"""Order books: the rules of Binance's diffs hold, and a book built from a snapshot and diffs is the model's."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.simulator.market.recording import START, Recording, of_symbols

if TYPE_CHECKING:
    from bridge.model import Market
    from bridge.simulator.market.listing import Listing

SPEEDS = {
    "spot": ("depth", "depth@100ms"),
    "usdm": ("depth", "depth@500ms", "depth@100ms"),
    "coinm": ("depth@100ms",),
}
SYMBOLS: dict[Market, list[str]] = {
    "spot": ["BTCUSDT", "币安人生USDT"],
    "usdm": ["BTCUSDT", "1000SHIBUSDT"],
    "coinm": ["BTCUSD_PERP"],
}
EACH = [(m, symbol, kind) for m, symbols in SYMBOLS.items() for symbol in symbols for kind in SPEEDS[m]]
DEPTH = {"spot": "/api/v3/depth", "usdm": "/fapi/v1/depth", "coinm": "/dapi/v1/depth"}
PACE = {"depth@100ms": 100, "depth@500ms": 500}
Side = dict[Decimal, Decimal]


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Return a stretch of market that all tests here read."""
    return Recording({m: of_symbols(s, SPEEDS[m]) for m, s in SYMBOLS.items()}, rate=1_500).run(
        START + 12_000
    )


def levels(rows: list[list[str]]) -> Side:
    """Return quantity by price."""
    return {Decimal(price): Decimal(quantity) for price, quantity in rows}


def apply(side: Side, rows: list[list[str]]) -> None:
    """Apply a diff's rows as Binance says: absolute quantities, 0 removes."""
    for price, quantity in rows:
        if Decimal(quantity):
            side[Decimal(price)] = Decimal(quantity)
        else:
            side.pop(Decimal(price), None)


def model(listing: Listing) -> tuple[Side, Side]:
    """Return the exchange's own book, as the decimals it would print."""
    price, quantity = listing.payloads.price, listing.payloads.quantity
    bids, asks = listing.book.top(100_000)
    return levels([[price[p], quantity[q]] for p, q in bids]), levels(
        [[price[p], quantity[q]] for p, q in asks]
    )


@pytest.mark.parametrize(("market", "symbol", "kind"), EACH)
def test_update_ids(recording: Recording, market: Market, symbol: str, kind: str) -> None:
    """Spot diffs follow id on id; futures ids jump, and ``pu`` is the last id of the diff before at that speed."""
    diffs = recording.payloads(market, f"{symbol.lower()}@{kind}")
    assert len(diffs) > 10
    for before, after in pairwise(diffs):
        assert after["U"] <= after["u"]
        assert after["U"] > before["u"]
        if market == "spot":
            assert after["U"] == before["u"] + 1
        else:
            assert after["pu"] == before["u"]
    if market != "spot":
        assert any(after["U"] != before["u"] + 1 for before, after in pairwise(diffs))
    ids = [(e.first_id, e.last_id) for e in recording.of(market, f"{symbol.lower()}@{kind}")]
    assert ids == [(diff["U"], diff["u"]) for diff in diffs]


@pytest.mark.parametrize(("market", "symbol", "kind"), EACH)
def test_pace(recording: Recording, market: Market, symbol: str, kind: str) -> None:
    """Diffs come on the beat of their stream: 1000 ms (spot) or 250 ms (futures) where no speed is said."""
    pace = PACE.get(kind, 1000 if market == "spot" else 250)
    times = [diff["E"] for diff in recording.payloads(market, f"{symbol.lower()}@{kind}")]
    assert all(time % pace == 0 for time in times)
    assert min(b - a for a, b in pairwise(times)) == pace


@pytest.mark.parametrize(("market", "kind"), [(m, kind) for m in SYMBOLS for kind in SPEEDS[m]])
def test_snapshot_and_diffs_make_the_book(market: Market, kind: str) -> None:
    """From any snapshot on, applying the diffs gives the exchange's own book after every one of them."""
    symbol = SYMBOLS[market][0]
    stream = f"{symbol.lower()}@{kind}"
    # levels beyond a futures snapshot's thousand are unknown, so a symbol with fewer is taken
    if market != "spot":
        symbol = "ETHUSDT_261225" if market == "usdm" else "BNBUSD_PERP"
        stream = f"{symbol.lower()}@{kind}"
    recording = Recording({market: [stream]}, symbols=12, rate=3_000)
    listing = recording.exchange.world.listings[market][symbol]
    recording.run(START + 3_330)
    limit = 5000 if market == "spot" else 1000
    snapshot = recording.get(market, DEPTH[market], symbol=symbol, limit=limit)
    bids, asks = levels(snapshot["bids"]), levels(snapshot["asks"])
    assert (bids, asks) == model(listing)
    last, applied = snapshot["lastUpdateId"], 0
    for at in range(START + 3_400, START + 10_050, 50):
        known = len(recording.of(market, stream))
        # the pulse of a beat comes before what happens at its own millisecond
        recording.run(at - 1)
        before = model(listing)
        recording.run(at)
        for diff in recording.payloads(market, stream)[known:]:
            if diff["u"] <= last:
                continue
            assert diff["U"] <= last + 1 if market == "spot" else applied == 0 or diff["pu"] == last
            apply(bids, diff["b"])
            apply(asks, diff["a"])
            last, applied = diff["u"], applied + 1
            assert (bids, asks) == before
            assert max(bids) < min(asks)
    assert applied > 5


def test_futures_snapshot_lies_within_a_diff() -> None:
    """Within two tries, as Binance's procedure asks, a futures snapshot's id lies between a diff's ``U`` and ``u``."""
    recording = Recording({"usdm": ["btcusdt@depth@100ms"]}, rate=3_000).run(START + 1_000)
    for at in range(START + 1_030, START + 5_000, 530):
        recording.run(at)
        last = recording.get("usdm", DEPTH["usdm"], symbol="BTCUSDT", limit=1000)["lastUpdateId"]
        recording.run(at + 200)
        diffs: list[Any] = recording.payloads("usdm", "btcusdt@depth@100ms")
        assert any(diff["U"] <= last <= diff["u"] for diff in diffs)


def test_never_crossed_and_never_empty() -> None:
    """However long it runs, every book has best prices on both sides, bids below asks, and no stray level."""
    recording = Recording({}, seed=3, symbols=15, rate=20_000)
    world = recording.exchange.world
    for at in range(START, START + 10_000, 500):
        recording.run(at)
        for listings in world.listings.values():
            for listing in listings.values():
                book = listing.book
                bid, bid_lots, ask, ask_lots = book.best()
                assert 0 < bid < ask
                assert bid_lots > 0
                assert ask_lots > 0
    for listings in world.listings.values():
        for listing in listings.values():
            book = listing.book
            assert book.bid_keys == sorted(book.bids)
            assert book.ask_keys == sorted(-price for price in book.asks)
            assert min(book.bids.values()) > 0
            assert min(book.asks.values()) > 0
            assert min(book.bids) > 0
            assert 25 <= len(book.bids) < 3_000


def test_books_stay_near_their_price() -> None:
    """Half an hour of trading neither runs a price away nor empties or floods a book."""
    recording = Recording({}, seed=5, symbols=4, rate=60).run(START + 1_800_000)
    for listings in recording.exchange.world.listings.values():
        for listing in listings.values():
            home = listing.instrument.price_ticks
            assert home // 2 < listing.last_price < home * 2
            assert 25 <= len(listing.book.bids) <= 2_000


@pytest.mark.parametrize(
    ("market", "symbol"), [("spot", "BTCUSDT"), ("usdm", "BTCUSDT"), ("coinm", "BTCUSD_PERP")]
)
def test_partial_depth_is_the_top_of_the_book(market: Market, symbol: str) -> None:
    """Partial depth gives the best levels of the book at that time, best first."""
    stream = f"{symbol.lower()}@depth10@100ms"
    recording = Recording({market: [stream]}, rate=1_500)
    listing = recording.exchange.world.listings[market][symbol]
    told = 0
    for at in range(START + 100, START + 3_000, 100):
        recording.run(at - 1)
        bids, asks = model(listing)
        update_id = listing.book.update_id
        known = len(recording.of(market, stream))
        recording.run(at)
        for row in recording.payloads(market, stream)[known:]:
            names = ("bids", "asks") if market == "spot" else ("b", "a")
            assert [Decimal(price) for price, _ in row[names[0]]] == sorted(bids, reverse=True)[:10]
            assert levels(row[names[0]]).items() <= bids.items()
            assert [Decimal(price) for price, _ in row[names[1]]] == sorted(asks)[:10]
            assert levels(row[names[1]]).items() <= asks.items()
            assert row["lastUpdateId" if market == "spot" else "u"] == update_id
            told += 1
    assert told > 5


@pytest.mark.parametrize(
    ("market", "symbol"), [("spot", "BTCUSDT"), ("usdm", "BTCUSDT"), ("coinm", "BTCUSD_PERP")]
)
def test_book_ticker_follows_every_best_change(market: Market, symbol: str) -> None:
    """The book ticker's ids only grow, each frame differs from the one before, and the last is the book's best."""
    stream = f"{symbol.lower()}@bookTicker"
    recording = Recording({market: [stream]}, rate=1_500).run(START + 3_000)
    rows = recording.payloads(market, stream)
    assert len(rows) > 50
    for before, after in pairwise(rows):
        assert before["u"] < after["u"]
        assert [before[key] for key in "bBaA"] != [after[key] for key in "bBaA"]
        assert Decimal(after["b"]) < Decimal(after["a"])
    snapshot = recording.get(market, DEPTH[market], symbol=symbol, limit=5)
    assert [rows[-1]["b"], rows[-1]["B"]] == snapshot["bids"][0]
    assert [rows[-1]["a"], rows[-1]["A"]] == snapshot["asks"][0]


def test_trades_take_from_the_book() -> None:
    """Every trade is at the best price its side of the book had, or worse while one taker sweeps on."""
    recording = Recording({"spot": ["btcusdt@trade", "btcusdt@bookTicker"]}, rate=1_500).run(START + 5_000)
    bid = ask = None
    checked = 0
    for emission in recording.emissions:
        row = json.loads(emission.data)
        if emission.stream.endswith("bookTicker"):
            bid, ask = Decimal(row["b"]), Decimal(row["a"])
        elif bid is not None and ask is not None:
            assert Decimal(row["p"]) <= bid if row["m"] else Decimal(row["p"]) >= ask
            checked += 1
    assert checked > 50
