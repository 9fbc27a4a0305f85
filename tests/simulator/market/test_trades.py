"""Raw and aggregate trades: contiguous ids, and aggregates that are exactly the trades they cover."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.simulator.market.recording import START, Recording, of_symbols

if TYPE_CHECKING:
    from bridge.model import Market

SYMBOLS: dict[Market, list[str]] = {
    "spot": ["BTCUSDT", "币安人生USDT", "1INCHUSDT"],
    "usdm": ["BTCUSDT", "1000SHIBUSDT"],
    "coinm": ["BTCUSD_PERP"],
}
EACH = [(market, symbol) for market, symbols in SYMBOLS.items() for symbol in symbols]


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Return a stretch of market that all tests here read."""
    kinds = ("trade", "aggTrade")
    return Recording({m: of_symbols(s, kinds) for m, s in SYMBOLS.items()}, rate=1_500).run(START + 40_000)


@pytest.mark.parametrize(("market", "symbol"), EACH)
def test_trade_ids(recording: Recording, market: Market, symbol: str) -> None:
    """Trade ids of a symbol follow each other without a hole, and the emission says the same id."""
    trades = recording.payloads(market, f"{symbol.lower()}@trade")
    ids = [trade["t"] for trade in trades]
    assert len(ids) > 100
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    said = [(e.first_id, e.last_id) for e in recording.of(market, f"{symbol.lower()}@trade")]
    assert said == [(trade_id, trade_id) for trade_id in ids]
    assert {trade["s"] for trade in trades} == {symbol}


@pytest.mark.parametrize(("market", "symbol"), EACH)
def test_aggregates_cover_the_trades(recording: Recording, market: Market, symbol: str) -> None:
    """Aggregate ids have no hole, and each aggregate is the sum of consecutive trades of one price and side."""
    trades = {trade["t"]: trade for trade in recording.payloads(market, f"{symbol.lower()}@trade")}
    aggregates = recording.payloads(market, f"{symbol.lower()}@aggTrade")
    ids = [row["a"] for row in aggregates]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    covered = []
    for row in aggregates:
        if row["f"] not in trades:
            continue  # of before the start
        parts = [trades[trade_id] for trade_id in range(row["f"], row["l"] + 1)]
        assert {part["p"] for part in parts} == {row["p"]}
        assert {part["m"] for part in parts} == {row["m"]}
        assert sum(Decimal(part["q"]) for part in parts) == Decimal(row["q"])
        assert row["T"] == parts[0]["T"]
        assert parts[-1]["T"] - parts[0]["T"] < (1 if market == "spot" else 100)
        covered += range(row["f"], row["l"] + 1)
    executed = [trade_id for trade_id, trade in trades.items() if trade.get("X") != "NA"]
    assert covered == executed[: len(covered)]
    assert len(executed) - len(covered) < 10


def test_contracts_merge_fills_of_100_ms(recording: Recording) -> None:
    """On futures some aggregates hold fills of different milliseconds; on spot none does."""
    trades = {trade["t"]: trade["T"] for trade in recording.payloads("usdm", "btcusdt@trade")}
    aggregates = recording.payloads("usdm", "btcusdt@aggTrade")
    spans = [trades[a["l"]] - trades[a["f"]] for a in aggregates if a["f"] in trades]
    assert max(spans) > 0


def test_rows_that_traded_nothing() -> None:
    """Some futures trade rows only use up an id: zero price and quantity, and no aggregate covers them."""
    recording = Recording({"usdm": ["btcusdt@trade", "btcusdt@aggTrade"]}, rate=8_000).run(START + 30_000)
    rows = recording.payloads("usdm", "btcusdt@trade")
    nothing = [row for row in rows if row["X"] == "NA"]
    assert 0.001 < len(nothing) / len(rows) < 0.01
    assert {(row["p"], row["q"]) for row in nothing} == {("0", "0")}
    assert {row["X"] for row in rows} == {"MARKET", "NA"}
    covered = {i for a in recording.payloads("usdm", "btcusdt@aggTrade") for i in range(a["f"], a["l"] + 1)}
    assert covered.isdisjoint(row["t"] for row in nothing)
    in_rest = {row["id"] for row in recording.get("usdm", "/fapi/v1/trades", symbol="BTCUSDT", limit=1000)}
    assert in_rest.isdisjoint(row["t"] for row in nothing)


def test_retail_liquidity_is_told_apart(recording: Recording) -> None:
    """On usdm ``nq`` leaves out what RPI orders filled, as REST's ``isRPITrade`` marks it."""
    rows = recording.get("usdm", "/fapi/v1/trades", symbol="BTCUSDT", limit=1000)
    retail = {row["id"]: Decimal(row["qty"]) for row in rows if row["isRPITrade"]}
    assert retail
    first = rows[0]["id"]
    for row in recording.payloads("usdm", "btcusdt@aggTrade"):
        if row["f"] >= first:
            apart = sum((retail.get(i, Decimal(0)) for i in range(row["f"], row["l"] + 1)), Decimal(0))
            assert Decimal(row["q"]) - Decimal(row["nq"]) == apart


def test_block_trades_stand_apart() -> None:
    """Block trades of spot have ids of their own and can be read again; they are no trades of the book."""
    names = ["BTCUSDT", "ETHUSDT", "1INCHUSDT", "币安人生USDT"]
    recording = Recording({"spot": of_symbols(names, ("blockTrade", "trade"))}, rate=20).run(START + 400_000)
    told = {name: recording.payloads("spot", f"{name.lower()}@blockTrade") for name in names}
    name, blocks = max(told.items(), key=lambda item: len(item[1]))
    assert len(blocks) > 1
    ids = [block["t"] for block in blocks]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    rows = recording.get("spot", "/api/v3/historicalBlockTrades", symbol=name, fromId=ids[0])
    assert [(r["id"], r["price"], r["qty"], r["time"]) for r in rows] == [
        (b["t"], b["p"], b["q"], b["T"]) for b in blocks
    ]
    assert all(trade["t"] not in ids for trade in recording.payloads("spot", f"{name.lower()}@trade"))
