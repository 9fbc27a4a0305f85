"""A market whose books and trades the test decides, and an account on it that keeps what it was told."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.simulator.accounts.params import Params
from bridge.simulator.accounts.registry import Registry
from bridge.simulator.accounts.venue import Level, Print, Terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bridge.model import Market
    from bridge.simulator.accounts.registry import Account, UserEvent

NOW = 1_795_305_600_000
EXAMPLES: dict[str, Any] = json.loads((Path(__file__).parent / "examples.json").read_text(encoding="utf-8"))
_TERMS = {
    ("spot", "BTCUSDT"): Terms(
        "spot", "BTCUSDT", "BTC", "USDT", "USDT", "BTCUSDT", Decimal("0.01"), Decimal("0.00001")
    ),
    ("usdm", "BTCUSDT"): Terms(
        "usdm", "BTCUSDT", "BTC", "USDT", "USDT", "BTCUSDT", Decimal("0.10"), Decimal("0.001")
    ),
    ("coinm", "BTCUSD_PERP"): Terms(
        "coinm", "BTCUSD_PERP", "BTC", "USD", "BTC", "BTCUSD", Decimal("0.1"), Decimal(1), Decimal(100)
    ),
}


class Stage:
    """A venue; every symbol trades around ``price``, with one level of ``offered`` on each side (coinm: a thousand)."""

    def __init__(self, price: str = "80000", offered: str = "1") -> None:
        self.price, self.offered = Decimal(price), Decimal(offered)
        self.tape: list[Print] = []

    def print(self, price: str, quantity: str, time_ms: int = NOW) -> None:
        """Let the market trade."""
        self.price = Decimal(price)
        self.tape.append(Print(self.price, Decimal(quantity), time_ms))

    def terms(self, market: Market, symbol: str) -> Terms | None:
        return _TERMS.get((market, symbol))

    def symbols(self, market: Market) -> Sequence[str]:
        return [symbol for of, symbol in _TERMS if of == market]

    def book(self, market: Market, symbol: str) -> tuple[Sequence[Level], Sequence[Level]]:
        offered = self.offered * 1000 if market == "coinm" else self.offered
        return [Level(self.price - 1, offered)], [Level(self.price + 1, offered)]

    def position(self, market: Market, symbol: str) -> int:
        return len(self.tape)

    def prints(self, market: Market, symbol: str, since: int) -> Iterator[Print]:
        return iter(self.tape[since:])

    def last_price(self, market: Market, symbol: str) -> Decimal:
        return self.price

    def mark_price(self, symbol: str) -> Decimal:
        return self.price


class Cast:
    """An account on a stage, and the events it made."""

    def __init__(self, *, scripted: bool = False, **stage: str) -> None:
        self.stage = Stage(**stage)
        self.told: list[UserEvent] = []
        self.registry = Registry(self.stage, 1, self.told.append)
        self.account: Account = self.registry.open("main", scripted=scripted)

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """Return the events since the last time, of one type or of all; the rest is forgotten."""
        found = [json.loads(event.data) for event in self.told if kind in ("", event.kind)]
        self.told.clear()
        return found


def limit(side: str, quantity: str, price: str, symbol: str = "BTCUSDT", **more: str) -> Params:
    """Return the parameters of a limit order."""
    fields = {"symbol": symbol, "side": side, "type": "LIMIT", "timeInForce": "GTC"}
    return Params({**fields, "quantity": quantity, "price": price, **more})


def market(side: str, quantity: str, symbol: str = "BTCUSDT", **more: str) -> Params:
    """Return the parameters of a market order."""
    return Params({"symbol": symbol, "side": side, "type": "MARKET", "quantity": quantity, **more})


def shape(value: object) -> object:
    """Return what kinds of values a payload has, keys in their order."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, str) and value.replace(".", "").lstrip("-").isdecimal():
        return "number as text"
    return type(value).__name__
