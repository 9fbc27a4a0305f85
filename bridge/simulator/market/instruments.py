"""What is traded: names, tick and lot sizes, contract terms.

Prices are whole ticks and quantities whole lots everywhere inside the market; :class:`DecimalText` turns them
into the exchange's digits (spot: eight decimals; futures: the contract's own).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.model import Market

PERPETUAL_DELIVERY_MS = 4_133_404_800_000
"""The delivery date that Binance gives a contract without one."""

SPOT_DIGITS = 8
"""Decimals of every number on spot, whatever the tick or lot."""

_TEXTS_KEPT = 4_096


class DecimalText(dict[int, str]):
    """Text of ``n * unit`` in units of ``10 ** -digits``; remembers what it made.

    Args:
        unit: how many units one step is (tick 0.10 printed with two digits: 10).
        digits: decimals of the unit, all of them printed.
    """

    __slots__ = ("_digits", "_unit")

    def __init__(self, unit: int, digits: int) -> None:
        super().__init__()
        self._unit, self._digits = unit, digits

    def __missing__(self, steps: int) -> str:
        if len(self) >= _TEXTS_KEPT:
            self.clear()
        text = self[steps] = decimal_text(steps * self._unit, self._digits)
        return text


def power_of_ten(exponent: int) -> int:
    """Return ``10 ** exponent``; the exponent is not negative."""
    return int(10**exponent)


def decimal_text(units: int, digits: int) -> str:
    """Return ``units * 10 ** -digits`` as text with exactly ``digits`` decimals."""
    if not digits:
        return str(units)
    sign = "-" if units < 0 else ""
    whole, part = divmod(abs(units), 10**digits)
    return f"{sign}{whole}.{part:0{digits}d}"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One symbol and its terms.

    Attributes:
        market: where it is traded.
        symbol: the exchange symbol.
        base: base asset.
        quote: quote asset.
        pair: underlying pair of a contract (the symbol itself on spot).
        price_ticks: the price it starts from, in ticks.
        price_digits: decimals of the price as the exchange counts them (futures print exactly these).
        tick_units: size of a tick in units of the last price digit.
        quantity_digits: decimals of a lot; one lot is one unit of the last of them.
        contract_type: ``PERPETUAL``, ``CURRENT_QUARTER``, …; empty on spot.
        delivery_ms: delivery time of a contract.
        contract_size: quote units per contract (coinm), else 1.
        underlying: ``COIN``, ``INDEX`` or ``COMMODITY``.
    """

    market: Market
    symbol: str
    base: str
    quote: str
    pair: str
    price_ticks: int
    price_digits: int
    tick_units: int
    quantity_digits: int
    contract_type: str = ""
    delivery_ms: int = PERPETUAL_DELIVERY_MS
    contract_size: int = 1
    underlying: str = "COIN"

    @property
    def margin(self) -> str:
        """The asset a contract settles in."""
        return self.base if self.market == "coinm" else self.quote

    @property
    def _contract_units(self) -> int:
        return self.contract_size * power_of_ten(8 + self.price_digits)

    @property
    def quote_digits(self) -> int:
        """Decimals of the integers that count quote volume (base volume on coinm)."""
        return 8 if self.market == "coinm" else self.price_digits + self.quantity_digits

    def price_text(self) -> DecimalText:
        """Return the text of prices given in ticks."""
        return self._text(self.tick_units, self.price_digits)

    def quantity_text(self) -> DecimalText:
        """Return the text of quantities given in lots."""
        return self._text(1, self.quantity_digits)

    def quote_text(self, units: int) -> str:
        """Return the text of a quote volume (base volume on coinm) in units of ``quote_digits``."""
        if self.market == "spot":
            return decimal_text(units * power_of_ten(SPOT_DIGITS - self.quote_digits), SPOT_DIGITS)
        return decimal_text(units, self.quote_digits)

    def _text(self, unit: int, digits: int) -> DecimalText:
        if self.market == "spot":
            return DecimalText(unit * power_of_ten(SPOT_DIGITS - digits), SPOT_DIGITS)
        return DecimalText(unit, digits)

    def quote_of(self, ticks: int, lots: int) -> int:
        """Return the quote volume (base volume on coinm, rounded down to 1e-8) of a fill, in its units."""
        if self.market == "coinm":
            return lots * self._contract_units // (ticks * self.tick_units)
        return ticks * self.tick_units * lots


# name and price in the quote, most active first
_COINS = (
    "SOL 190.12", "XRP 2.3415", "BNB 905.3", "DOGE 0.18231", "ADA 0.5412", "TRX 0.28911", "LINK 14.223", "AVAX 15.871",
    "SUI 1.8234", "LTC 92.41", "DOT 2.7713", "TON 1.9127", "NEAR 2.0512", "UNI 7.4121", "AAVE 181.33", "ETC 15.122",
    "XLM 0.27113", "ICP 4.8133", "FIL 1.7212", "APT 2.9112", "ARB 0.24511", "OP 0.36122", "ATOM 2.9911", "INJ 7.1231",
    "HBAR 0.14881", "WLD 0.68113", "TIA 0.74121", "SEI 0.15112", "RSR 0.0061713", "ORDI 4.4113", "ENA 0.28331",
    "LDO 0.73112", "CRV 0.42113", "GALA 0.0081231", "SAND 0.16512", "MANA 0.17811", "EOS 0.41512", "BCH 541.2",
    "ALGO 0.16112", "VET 0.014512", "GRT 0.051234", "FTM 0.41233", "RUNE 0.81223", "SNX 0.71234", "COMP 34.112",
    "MKR 1512.3", "ZEC 541.31", "DASH 71.222", "XTZ 0.54112", "KAVA 0.13122",
)  # fmt: skip
_SPOT_FIRST = ("BTC/USDT 84199.9", "ETH/USDT 2789.41", "币安人生/USDT 0.12345", "1INCH/USDT 0.21431")
_SPOT_NEXT = (
    "ETH/BTC 0.03313",
    "BTC/USDC 84190.12",
    "ETH/USDC 2789.11",
    "BNB/BTC 0.010751",
    "PEPE/USDT 0.00000512",
)
_USDM_NEXT = ("XAU/USDT 4071.35", "1000PEPE/USDT 0.0051231", "BTC/USDC 84180.3", "ETH/USDC 2788.91")
_COINM_NEXT = (
    "BNB 905.31", "SOL 190.121", "XRP 2.3412", "DOGE 0.18233", "ADA 0.54122", "LINK 14.221", "LTC 92.41", "DOT 2.7712",
    "AVAX 15.872", "TRX 0.28912", "ETC 15.121", "BCH 541.22", "FIL 1.7213", "EOS 0.41513", "XLM 0.27114",
)  # fmt: skip


def listed(market: Market, symbols: int, start_ms: int) -> tuple[Instrument, ...]:
    """Return what ``market`` trades, most active first: ``symbols`` names, and never fewer than the ones always there.

    Always there: BTCUSDT, ETHUSDT, 币安人生USDT and 1INCHUSDT (spot); BTCUSDT, ETHUSDT, 1000SHIBUSDT, 币安人生USDT and
    the quarterly BTCUSDT contract (usdm); BTCUSD_PERP and the quarterly BTCUSD contract (coinm).
    """
    source = {"spot": _spot, "usdm": _usdm, "coinm": _coinm}[market]
    least = {"spot": 4, "usdm": 5, "coinm": 2}[market]
    found: dict[str, Instrument] = {}
    for instrument in source(start_ms):
        if len(found) == max(symbols, least):
            break
        found.setdefault(instrument.symbol, instrument)
    return tuple(found.values())


def quarter_deliveries(start_ms: int) -> tuple[int, int]:
    """Return the next two quarterly deliveries after ``start_ms``: 08:00 UTC on a quarter's last Friday."""
    now = datetime.fromtimestamp(start_ms / 1000, UTC)
    ahead = (_last_friday(now.year + (q // 4), q % 4) for q in count((now.month - 1) // 3))
    later = (int(d.timestamp() * 1000) for d in ahead if d > now)
    return next(later), next(later)


def _last_friday(year: int, quarter: int) -> datetime:
    first_after = datetime(year + (quarter == 3), 1 if quarter == 3 else quarter * 3 + 4, 1, 8, tzinfo=UTC)
    last = first_after - timedelta(days=1)
    return last - timedelta(days=(last.weekday() - 4) % 7)


def _names(texts: tuple[str, ...], quote: str) -> Iterator[tuple[str, str, str]]:
    for text in texts:
        name, price = text.split()
        base, _, quoted = name.partition("/")
        yield base, quoted or quote, price


def _made_up() -> Iterator[tuple[str, str, str]]:
    """Yield further coins without end, for a market of any size."""
    for n in count(1):
        yield f"SIM{n}", "USDT", f"{n % 9 + 1}.{n % 7 + 1}{n % 10}31"


def _spot(_: int) -> Iterator[Instrument]:
    names = chain(
        _names(_SPOT_FIRST, "USDT"), _names(_COINS[:6] + _SPOT_NEXT + _COINS[6:], "USDT"), _made_up()
    )
    for base, quote, price in names:
        size = _magnitude(price)
        digits = min(max(5 - size, 2), 8)
        ticks = _units(price, digits)
        symbol = base + quote
        yield Instrument(
            "spot", symbol, base, quote, symbol, ticks, digits, 1, min(max(size, 0), 8 - digits, 5)
        )


def _usdm(start_ms: int) -> Iterator[Instrument]:
    this_quarter, next_quarter = quarter_deliveries(start_ms)
    first = ("BTC/USDT 84199.9", "ETH/USDT 2789.31", "1000SHIB/USDT 0.005173", "币安人生/USDT 0.12341")
    for base, quote, price in _names(first, "USDT"):
        yield _linear(base, quote, price)
    yield _linear("BTC", "USDT", "84985.6", "CURRENT_QUARTER", this_quarter)
    for base, quote, price in _names(_COINS[:4], "USDT"):
        yield _linear(base, quote, price)
    yield _linear("DEFI", "USDT", "754.41", underlying="INDEX")
    yield _linear("ETH", "USDT", "2811.12", "CURRENT_QUARTER", this_quarter)
    yield _linear("BTC", "USDT", "85714.2", "NEXT_QUARTER", next_quarter)
    for base, quote, price in chain(_names(_USDM_NEXT + _COINS[4:], "USDT"), _made_up()):
        yield _linear(base, quote, price)


def _linear(
    base: str,
    quote: str,
    price: str,
    contract_type: str = "PERPETUAL",
    delivery_ms: int = PERPETUAL_DELIVERY_MS,
    underlying: str = "COIN",
) -> Instrument:
    if base == "XAU":
        contract_type, underlying = "TRADIFI_PERPETUAL", "COMMODITY"
    size = _magnitude(price)
    digits = min(max(5 - size, 2), 7)
    tick_units = 10 if base == "BTC" else 1
    ticks = _units(price, digits) // tick_units
    pair = base + quote
    symbol = pair if delivery_ms == PERPETUAL_DELIVERY_MS else f"{pair}_{_date(delivery_ms)}"
    lots = 3 if size > 3 else max(size - 1, 0)
    return Instrument(
        "usdm",
        symbol,
        base,
        quote,
        pair,
        ticks,
        digits,
        tick_units,
        lots,
        contract_type,
        delivery_ms,
        1,
        underlying,
    )


def _coinm(start_ms: int) -> Iterator[Instrument]:
    this_quarter, next_quarter = quarter_deliveries(start_ms)
    perpetual = ("PERPETUAL", PERPETUAL_DELIVERY_MS)
    yield _inverse("BTC", "84203.1", *perpetual)
    yield _inverse("BTC", "84985.6", "CURRENT_QUARTER", this_quarter)
    yield _inverse("ETH", "2789.22", *perpetual)
    yield _inverse("ETH", "2811.41", "CURRENT_QUARTER", this_quarter)
    yield _inverse("BTC", "85711.4", "NEXT_QUARTER", next_quarter)
    for base, _, price in chain(_names(_COINM_NEXT, "USD"), _names(_COINS[12:], "USD"), _made_up()):
        yield _inverse(base, price, *perpetual)


def _inverse(base: str, price: str, contract_type: str, delivery_ms: int) -> Instrument:
    digits = 1 if base == "BTC" else min(max(5 - _magnitude(price), 2), 7)
    pair = base + "USD"
    suffix = "PERP" if delivery_ms == PERPETUAL_DELIVERY_MS else _date(delivery_ms)
    size = 100 if base == "BTC" else 10
    ticks = _units(price, digits)
    return Instrument(
        "coinm", f"{pair}_{suffix}", base, "USD", pair, ticks, digits, 1, 0, contract_type, delivery_ms, size
    )


def _date(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%y%m%d")


def _magnitude(price: str) -> int:
    """Return the place of the first digit: 5 for 84199.9, 0 for 0.18, -2 for 0.005."""
    whole, _, part = price.partition(".")
    if whole != "0":
        return len(whole)
    return len(part.lstrip("0")) - len(part)


def _units(price: str, digits: int) -> int:
    whole, _, part = price.partition(".")
    return int(whole + part.ljust(digits, "0")[:digits])
