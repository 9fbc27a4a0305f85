"""What is known of an account's orders and trades, so that REST is asked for no more than what is missing. Pure.

It learns from stream events and from REST's answers alike, and never forgets a symbol: spot tells orders and trades by
symbol only. The wiring may fill one in from the state topics at the start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_OPEN = frozenset({"NEW", "PENDING_NEW", "PARTIALLY_FILLED", "PENDING_CANCEL"})
_OPEN_ALGOS = frozenset({"NEW", "TRIGGERING"})


class OrderId(NamedTuple):
    """An order: ids are unique within a symbol."""

    symbol: str
    order_id: int


@dataclass(slots=True)
class SymbolProgress:
    """The newest that is known of one symbol; None where nothing is."""

    order_id: int | None = None
    trade_id: int | None = None


class Balance(msgspec.Struct, frozen=True):
    """A spot balance, exactly as text."""

    free: str
    locked: str


class OrderRow(msgspec.Struct):
    """What of an order in a REST answer matters here."""

    symbol: str
    orderId: int  # noqa: N815 - the exchange's own names
    status: str = ""


class AlgoRow(msgspec.Struct):
    """What of a conditional order in a REST answer matters here."""

    symbol: str
    algoId: int  # noqa: N815
    algoStatus: str = ""  # noqa: N815


class BalanceRow(msgspec.Struct):
    """A balance of spot's ``account`` answer."""

    asset: str
    free: str
    locked: str


class AccountRow(msgspec.Struct):
    """What of spot's ``account`` answer matters here."""

    balances: list[BalanceRow]


class TradeRow(msgspec.Struct):
    """What of a trade in a REST answer matters here."""

    symbol: str
    id: int


class IncomeRow(msgspec.Struct):
    """What of an income row matters here."""

    time: int
    symbol: str = ""


class PositionRow(msgspec.Struct):
    """What of a position matters here."""

    symbol: str
    positionAmt: str = "0"  # noqa: N815


@dataclass(slots=True)
class AccountProgress:
    """What is known of one account on one market.

    Attributes:
        symbols: progress by exchange symbol.
        open_orders: orders that were open when last heard of.
        open_algos: the same of conditional orders, by their ``algoId``.
        balances: spot balances by asset, as last heard of; empty before the first answer.
        income_ms: time of the newest income row known, 0 where none is.
    """

    symbols: dict[str, SymbolProgress] = field(default_factory=dict)
    open_orders: set[OrderId] = field(default_factory=set)
    open_algos: set[OrderId] = field(default_factory=set)
    balances: dict[str, Balance] = field(default_factory=dict)
    income_ms: int = 0

    def copy(self) -> AccountProgress:
        """Return what is known at this moment, apart from what will be."""
        return AccountProgress(
            {name: replace(known) for name, known in self.symbols.items()},
            set(self.open_orders),
            set(self.open_algos),
            dict(self.balances),
            self.income_ms,
        )

    def know(self, symbols: Iterable[str]) -> None:
        """Note symbols to ask about."""
        for symbol in symbols:
            self.symbols.setdefault(symbol, SymbolProgress())

    def order(self, symbol: str, order_id: int, *, is_open: bool) -> None:
        """Note an order."""
        known = self.symbols.setdefault(symbol, SymbolProgress())
        known.order_id = max(order_id, known.order_id or 0)
        (self.open_orders.add if is_open else self.open_orders.discard)(OrderId(symbol, order_id))

    def order_row(self, row: OrderRow) -> None:
        """Note an order of a REST answer."""
        self.order(row.symbol, row.orderId, is_open=row.status in _OPEN)

    def algo(self, symbol: str, algo_id: int, status: str) -> None:
        """Note a conditional order."""
        self.symbols.setdefault(symbol, SymbolProgress())
        change = self.open_algos.add if status in _OPEN_ALGOS else self.open_algos.discard
        change(OrderId(symbol, algo_id))

    def trade(self, symbol: str, trade_id: int) -> None:
        """Note a trade."""
        known = self.symbols.setdefault(symbol, SymbolProgress())
        known.trade_id = max(trade_id, known.trade_id or 0)

    def published(self, structure: str, record: Mapping[str, Any]) -> None:
        """Learn from a unified record that was published earlier.

        Args:
            structure: ``order``, ``my-trade``, ``balance``, ``position`` or ``ledger``; others teach nothing.
            record: its fields; decimals exact, times microseconds.
        """
        symbol: str = record["exchangeSymbol"]
        match structure:
            case "order" if record["conditional"]:
                self.algo(symbol, int(record["id"]), "NEW" if record["status"] == "open" else "FINISHED")
            case "order":
                self.order(symbol, int(record["id"]), is_open=record["exchangeStatus"] in _OPEN)
            case "my-trade" if record["sequence"] is not None:
                self.trade(symbol, record["sequence"])
            case "balance" if record["market"] == "spot" and record["free"] is not None:
                self.balances[symbol] = Balance(f"{record['free']:f}", f"{record['used'] or 0:f}")
            case "position":
                self.know((symbol,))
            case "ledger" if record["origin"] == "backfill":
                # What came live says nothing of rows of other kinds before it.
                self.income_ms = max(self.income_ms, record["timestamp"] // 1000)
            case _:
                pass

    def event(self, payload: bytes) -> None:
        """Learn from a stream event; what is no event of orders or balances teaches nothing."""
        try:
            told = _read(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        match told:
            case _Report():
                self._executed(told, told.t)
            case _OrderUpdate():
                self._executed(told.o, told.o.t or -1)  # futures: 0 is no trade
            case _AlgoUpdate():
                self.algo(told.o.s, told.o.aid, told.o.X)
            case _AccountPosition():
                self.balances.update((one.a, Balance(one.f, one.l)) for one in told.B)
            case None:
                pass

    def _executed(self, report: _Report, trade_id: int) -> None:
        self.order(report.s, report.i, is_open=report.X in _OPEN)
        if trade_id >= 0:
            self.trade(report.s, trade_id)


class _Report(msgspec.Struct):
    s: str
    i: int
    X: str
    t: int = -1


class _OrderUpdate(msgspec.Struct):
    o: _Report


class _Algo(msgspec.Struct):
    s: str
    aid: int
    X: str


class _AlgoUpdate(msgspec.Struct):
    o: _Algo


class _Asset(msgspec.Struct):
    a: str
    f: str
    l: str  # noqa: E741 - the exchange's own name


class _AccountPosition(msgspec.Struct):
    B: list[_Asset]


class _Named(msgspec.Struct):
    e: str = ""
    event: msgspec.Raw = msgspec.Raw()


_decode_name = msgspec.json.Decoder(_Named).decode
_Told = _Report | _OrderUpdate | _AlgoUpdate | _AccountPosition
#: By event type, as letters mean different things in each: ``o`` is a text here and an object there.
_DECODERS: Mapping[str, Callable[[bytes | msgspec.Raw], _Told]] = {
    "executionReport": msgspec.json.Decoder(_Report).decode,
    "ORDER_TRADE_UPDATE": msgspec.json.Decoder(_OrderUpdate).decode,
    "ALGO_UPDATE": msgspec.json.Decoder(_AlgoUpdate).decode,
    "outboundAccountPosition": msgspec.json.Decoder(_AccountPosition).decode,
}


def _read(payload: bytes) -> _Told | None:
    named = _decode_name(payload)
    event: bytes | msgspec.Raw = payload
    if bytes(named.event):
        event = named.event
        named = _decode_name(event)
    decode = _DECODERS.get(named.e)
    return None if decode is None else decode(event)
