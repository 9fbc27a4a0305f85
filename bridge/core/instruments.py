"""Instruments from exchangeInfo, with CCXT's symbols (docs/reference/records.md gives the rules).

Unified symbols: spot ``BASE/QUOTE``; perpetual contracts ``BASE/QUOTE:SETTLE``; dated contracts
``BASE/QUOTE:SETTLE-YYMMDD`` with the UTC date of delivery. Non-ASCII and numeric names pass as they are.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

from bridge.core.decimals import unscaled
from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.model import Market

PERPETUAL_DELIVERY_MS = 4133404800000
_RENAMED = {"XBT": "BTC", "BCHSV": "BSV", "YOYO": "YOYOW"}  # CCXT's table for Binance
_FEES = {
    "spot": ("0.001", "0.001"),
    "usdm": ("0.0005", "0.0002"),
    "coinm": ("0.0005", "0.0001"),
}  # taker, maker


@dataclass(frozen=True, slots=True)
class Instrument:
    """One instrument, with what deriving records needs at hand.

    Attributes:
        market: spot, usdm or coinm.
        id: the exchange's symbol.
        symbol: unified symbol.
        quote: unified quote currency.
        pair: the exchange's pair of a contract; the symbol itself on spot.
        contract_type: the exchange's contract type (``PERPETUAL``), "" on spot.
        contract_size: unscaled (times 10**18), None on spot.
        inverse: margined and settled in the base currency.
        price_decimals: decimals of the tick size.
        active: whether it trades now.
        record: values of the ``market`` structure, but for the envelope.
    """

    market: Market
    id: str
    symbol: str
    quote: str
    pair: str
    contract_type: str
    contract_size: int | None
    inverse: bool
    price_decimals: int
    active: bool
    record: Mapping[str, Any] = field(repr=False, compare=False)


def unknown(market: Market, exchange_symbol: str) -> Instrument:
    """Return a stand-in for a symbol exchangeInfo does not list (yet): CCXT's way, its own name is the symbol."""
    return Instrument(
        market=market, id=exchange_symbol, symbol=exchange_symbol, quote="", pair=exchange_symbol, contract_type="",
        contract_size=None, inverse=market == "coinm", price_decimals=8, active=False, record={},
    )  # fmt: skip


class Instruments:
    """The instruments of one market as of one exchangeInfo answer. Never changes."""

    def __init__(self, market: Market, instruments: Iterable[Instrument]) -> None:
        self.market = market
        self.by_id = {i.id: i for i in instruments}
        self.by_symbol = {i.symbol: i for i in self.by_id.values()}
        self._pairs: dict[str, Instrument] = {}
        for instrument in self.by_id.values():
            if instrument.contract_type.endswith("PERPETUAL") or instrument.pair not in self._pairs:
                self._pairs[instrument.pair] = instrument

    def __len__(self) -> int:
        return len(self.by_id)

    def find(self, name: str) -> Instrument | None:
        """Return the instrument of a unified or an exchange symbol."""
        return self.by_id.get(name) or self.by_symbol.get(name)

    def get(self, exchange_symbol: str) -> Instrument:
        """Return the instrument of an exchange symbol, a stand-in where it is not listed."""
        return self.by_id.get(exchange_symbol) or unknown(self.market, exchange_symbol)

    def pair(self, pair: str) -> Instrument:
        """Return the index of a pair (``BTCUSD``): its symbol is ``BASE/QUOTE`` without a settlement currency."""
        perpetual = self._pairs.get(pair)
        if perpetual is None:
            return unknown(self.market, pair)
        return _index(perpetual, pair)


def _index(instrument: Instrument, pair: str) -> Instrument:
    symbol = instrument.symbol.partition(":")[0]
    return Instrument(
        instrument.market, pair, symbol, instrument.quote, pair, "", None, instrument.inverse,
        instrument.price_decimals, instrument.active, {},
    )  # fmt: skip


class Answer(NamedTuple):
    """An exchangeInfo answer that was received.

    Attributes:
        received_at: microseconds.
        server_time: the exchange's own time of it, microseconds.
        number: ``connectionSequence`` of its raw record.
        table: the instruments it lists.
        epoch: ``writerEpoch`` of its raw record.
    """

    received_at: int
    server_time: int
    number: int
    table: Instruments
    epoch: int = 0


class InstrumentHistory:
    """Which instruments were known when: a reader of old messages sees what the bridge saw."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._found: tuple[int, int, Instruments | None] = 0, 0, None  # from when until when, and what

    def add(self, answer: Answer) -> None:
        """Note an answer."""
        self._found = 0, 0, None
        insort(self.answers, answer, key=lambda known: known.received_at)

    def stretch(self, received_at: int) -> tuple[int, int]:
        """Return from when until when (exclusive) :meth:`at` gives what it gives at that time, microseconds."""
        self.at(received_at)
        since, until, _ = self._found
        return since, until

    def at(self, received_at: int) -> Instruments | None:
        """Return the newest table received by then, else the oldest; None without any."""
        since, until, table = self._found
        if since <= received_at < until:
            return table
        answers = self.answers
        if not answers:
            self._found = 0, _EVER, None
            return None
        later = bisect_right(answers, received_at, key=lambda known: known.received_at)
        since = answers[later - 1].received_at if later else 0
        until = answers[later].received_at if later < len(answers) else _EVER
        table = answers[max(0, later - 1)].table
        self._found = since, until, table
        return table


_EVER = 1 << 62


def parse_exchange_info(market: Market, body: bytes) -> tuple[int, Instruments]:
    """Return the server time (microseconds) and the instruments of an exchangeInfo answer.

    Rows that cannot be understood are left out; a bridge must not stop for one odd listing.

    Raises:
        UnexpectedMessage: the body is not an exchangeInfo answer.
    """
    try:
        info = msgspec.json.decode(body, type=_Info)
    except msgspec.DecodeError as error:
        raise UnexpectedMessage(f"{market} exchangeInfo: {error}") from error
    found = []
    for row in info.symbols:
        try:
            msgspec.convert(row, _Row)
            found.append(_instrument(market, row))
        except (msgspec.ValidationError, UnexpectedMessage, ArithmeticError, KeyError, TypeError, ValueError):
            continue
    return info.server_time * 1000, Instruments(market, found)


_Time = Annotated[int, msgspec.Meta(ge=0, lt=1 << 52)]
_Name = Annotated[str, msgspec.Meta(min_length=1)]


class _Row(msgspec.Struct, rename="camel"):
    """The types of what is read of a row; numbers of filters are checked where they are read."""

    symbol: _Name
    base_asset: _Name
    quote_asset: _Name
    margin_asset: str | None = None
    pair: str | None = None
    contract_type: str | None = None
    status: str | None = None
    contract_status: str | None = None
    delivery_date: _Time | None = None
    onboard_date: _Time | None = None
    filters: list[dict[str, Any]] = []
    permissions: list[str] = []


class _Info(msgspec.Struct, rename="camel"):
    symbols: list[Any]
    server_time: _Time = 0


def currency_code(asset: str) -> str:
    """Return CCXT's code of a currency: a few assets have other names there."""
    return _RENAMED.get(asset.upper(), asset.upper())


def _instrument(market: Market, row: dict[str, Any]) -> Instrument:
    base, quote = currency_code(row["baseAsset"]), currency_code(row["quoteAsset"])
    contract_type = row.get("contractType") or ""
    contract = market != "spot"
    settle_id = row.get("marginAsset")
    settle = currency_code(settle_id) if settle_id else None
    symbol, expiry = f"{base}/{quote}", None
    if contract:
        symbol += f":{settle}"
        perpetual = contract_type == "PERPETUAL" or row.get("deliveryDate") == PERPETUAL_DELIVERY_MS
        if not perpetual:
            expiry = int(row["deliveryDate"])
            symbol += "-" + datetime.fromtimestamp(expiry / 1000, UTC).strftime("%y%m%d")
    linear = contract and settle == quote
    inverse = contract and settle == base
    filters = {f["filterType"]: f for f in row.get("filters", ())}
    price_filter, lot_size = filters.get("PRICE_FILTER", {}), filters.get("LOT_SIZE", {})
    tick = price_filter.get("tickSize") or _step(row.get("pricePrecision")) or "0.00000001"
    size = str(row.get("contractSize", "1"))
    status = row.get("status") or row.get("contractStatus")
    active = status == "TRADING" and not (market == "spot" and "TRD_GRP_003" in row.get("permissions", ()))
    taker, maker = _FEES[market]
    notional = filters.get("MIN_NOTIONAL") or filters.get("NOTIONAL") or {}
    record: dict[str, Any] = {
        "id": row["symbol"], "lowercaseId": row["symbol"].lower(),
        "base": base, "quote": quote, "settle": settle if contract else None,
        "baseId": row["baseAsset"], "quoteId": row["quoteAsset"], "settleId": settle_id if contract else None,
        "type": "spot" if not contract else "future" if expiry else "swap",
        "subType": "linear" if linear else "inverse" if inverse else None,
        "spot": not contract, "margin": bool(row.get("isMarginTradingAllowed")) and not contract,
        "swap": contract and not expiry, "future": contract and bool(expiry), "option": False,
        "index": None if contract else False,
        "active": active, "contract": contract,
        "linear": linear if contract else None, "inverse": inverse if contract else None,
        "contractSize": _number(size) if contract else None,
        "expiry": expiry * 1000 if expiry else None, "strike": None, "optionType": None,
        "taker": Decimal(taker), "maker": Decimal(maker), "percentage": True, "tierBased": False,
        "feeSide": "get",
        "precision": {
            "amount": _number(lot_size.get("stepSize") or _step(row.get("quantityPrecision"))),
            "price": _number(tick),
            "base": _number(_step(row.get("baseAssetPrecision"))),
            "quote": _number(_step(row.get("quotePrecision"))),
        },
        "limits": {
            "amount": _range(lot_size, "minQty", "maxQty"),
            "price": _range(price_filter, "minPrice", "maxPrice"),
            "cost": {
                "min": _number(notional.get("minNotional") or notional.get("notional")),
                "max": _number(notional.get("maxNotional")),
            },
            "leverage": {"min": None, "max": None},
            "market": _range(filters.get("MARKET_LOT_SIZE", {}), "minQty", "maxQty"),
        },
        "created": int(row["onboardDate"]) * 1000 if row.get("onboardDate") else None,
        "status": status, "contractType": contract_type or None, "pair": row.get("pair"),
    }  # fmt: skip
    return Instrument(
        market=market, id=row["symbol"], symbol=symbol, quote=quote, pair=row.get("pair") or row["symbol"],
        contract_type=contract_type, contract_size=unscaled(size) if contract else None, inverse=inverse,
        price_decimals=_decimals(tick), active=active, record=record,
    )  # fmt: skip


def _step(decimals: int | None) -> str | None:
    return None if decimals is None else f"{Decimal(1).scaleb(-decimals):f}"


def _decimals(step: str) -> int:
    exponent = Decimal(step).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _number(text: object) -> Decimal | None:
    if text is None:
        return None
    number = Decimal(str(text))
    unscaled(f"{number:f}")  # a limit beyond decimal(38, 18) leaves the row out
    return number


def _range(filter_: dict[str, Any], low: str, high: str) -> dict[str, Decimal | None]:
    return {"min": _number(filter_.get(low)), "max": _number(filter_.get(high))}
