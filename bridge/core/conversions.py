"""Named conversions a field map can ask for where a wire key alone does not say it.

Each is a pure function. Arguments named ``instrument`` and ``context`` are given by the compiler; the others are
wire values of the annotated type: ``Text`` (required), ``MaybeText`` (absent and "" are None), ``Int``,
``MaybeInt``, ``Flag``. Decimals are unscaled integers (times 10**18), times are microseconds.

Sources: the CCXT rules in docs/reference/records.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.decimals import ONE, UNSCALED, divide, multiply

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.core.instruments import Instrument

Text = str
MaybeText = str | None
Int = int
MaybeInt = int | None
Flag = bool

_unscaled = UNSCALED.__getitem__  # bound once: subscripting a subclass of dict is slow

HUNDRED = 100 * ONE
MILLISECONDS_BELOW = 10**14
"""Times below it are milliseconds (until the year 5138), the others microseconds, as in Binance's public archive."""


def micros(time: int) -> int:
    """Return a time of the exchange in microseconds; it comes in milliseconds or, where asked for, microseconds.

    :data:`MILLISECONDS_BELOW` tells them apart.
    """
    return time * 1000 if time < MILLISECONDS_BELOW else time


def milliseconds(time: int) -> int:
    """Return a time of the exchange in milliseconds, rounded down; see :func:`micros` for how it comes."""
    return time if time < MILLISECONDS_BELOW else time // 1000


def text(value: Int) -> str:
    """An id as text."""
    return str(value)


def known(value: MaybeInt) -> int | None:
    """An id, where -1 says "none"."""
    return None if value is None or value < 0 else value


def known_time(value: MaybeInt) -> int | None:
    """A time, where 0 says "none"."""
    return micros(value) if value and value > 0 else None


def taker_side(buyer_is_maker: Flag) -> str:
    """The taker's side: where the buyer was the maker, the taker sold."""
    return "sell" if buyer_is_maker else "buy"


def lower(value: Text) -> str:
    """Lower case (``BUY`` → ``buy``)."""
    return value.lower()


def cost(instrument: Instrument, price: Text, amount: Text) -> int | None:
    """Cost of a trade: price × amount; on inverse contracts amount × contractSize / price (base currency)."""
    if instrument.inverse:
        if instrument.contract_size is None:
            return None
        return divide(multiply(_unscaled(amount), instrument.contract_size), _unscaled(price))
    return multiply(_unscaled(price), _unscaled(amount))


def contracts_value(instrument: Instrument, contracts: Text) -> int | None:
    """Quote value of inverse contracts: contracts × contractSize."""
    return (
        None if instrument.contract_size is None else multiply(_unscaled(contracts), instrument.contract_size)
    )


def contract_size(instrument: Instrument) -> int | None:
    """The instrument's contract size."""
    return instrument.contract_size


def base_value(instrument: Instrument, contracts: Text, price: Text) -> int | None:
    """Value in base currency of a number of contracts."""
    value = contracts_value(instrument, contracts)
    if value is None or not instrument.inverse:
        return value
    return divide(value, _unscaled(price))


def quote_value(instrument: Instrument, contracts: Text, price: Text) -> int | None:
    """Value in quote currency of a number of contracts."""
    value = contracts_value(instrument, contracts)
    if value is None or instrument.inverse:
        return value
    return multiply(value, _unscaled(price))


def vwap(quote_volume: Text, base_volume: Text) -> int | None:
    """Volume-weighted average price, where the message has none; None when either volume is zero."""
    return divide(_unscaled(quote_volume), _unscaled(base_volume)) or None


def inverse_vwap(instrument: Instrument, contracts: Text, base_volume: Text) -> int | None:
    """The same for inverse contracts: quote volume is contracts × contractSize."""
    value = contracts_value(instrument, contracts)
    return None if value is None else divide(value, _unscaled(base_volume)) or None


def change(open_: Text, close: Text) -> int | None:
    """Close - open, where both are known (not zero)."""
    first, last = _unscaled(open_), _unscaled(close)
    return last - first if first and last else None


def percentage(open_: Text, close: Text) -> int | None:
    """Change in percent of open, truncated at 18 decimals; None without a trade."""
    first, last = _unscaled(open_), _unscaled(close)
    return multiply(divide(last - first, first) or 0, HUNDRED) if first and last else None


def given_percentage(percent: MaybeText, open_: Text, close: Text) -> int | None:
    """The exchange's percentage; zero is computed again, so that it is None where nothing ever traded (CCXT)."""
    return (_unscaled(percent) if percent else 0) or percentage(open_, close)


def average(instrument: Instrument, open_: Text, close: Text) -> int | None:
    """(open + close) / 2, truncated to the decimals of the instrument's tick size."""
    first, last = _unscaled(open_), _unscaled(close)
    if not first or not last:
        return None
    unit: int = 10 ** (18 - instrument.price_decimals)
    return (first + last) // 2 // unit * unit


CONVERSIONS: dict[str, Callable[..., object]] = {
    function.__name__: function
    for function in (
        text, known, known_time, taker_side, lower, cost, contracts_value, contract_size, base_value,
        quote_value, vwap, inverse_vwap, change, percentage, given_percentage, average,
    )
}  # fmt: skip
