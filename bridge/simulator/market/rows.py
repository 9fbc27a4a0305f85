"""What one symbol (or asset, or session) has to say at a time: the payloads of the streams with a pace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.simulator.market.bars import DAY, HOUR
from bridge.simulator.market.instruments import decimal_text
from bridge.simulator.market.payloads import FuturesPayloads, average_units, price8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.simulator.market.listing import Listing
    from bridge.simulator.market.pricing import ContractPrice, IndexPrice

WINDOWS = {"1h": HOUR, "4h": 4 * HOUR, "1d": DAY}
"""Windows of the rolling tickers."""

AVERAGE_WINDOW = 5 * 60_000

_COMPONENTS = (("AAVE", 25), ("UNI", 20), ("LINK", 20), ("CRV", 15), ("COMP", 10), ("SNX", 10))


def mini_ticker(listing: Listing, now: int) -> bytes:
    """Return the 24-hour mini ticker."""
    return listing.payloads.mini_ticker(now, listing.rolling(DAY).at(now)[0])


def ticker(listing: Listing, now: int) -> bytes:
    """Return the 24-hour ticker."""
    bar, prior = listing.rolling(DAY).at(now)
    return listing.payloads.ticker(now, bar, prior, listing.last_lots, listing.book.best())


def rolling_ticker(listing: Listing, window: str, now: int) -> bytes:
    """Return the rolling ticker of a window (spot)."""
    return listing.payloads.rolling_ticker(now, window, listing.rolling(WINDOWS[window]).at(now)[0])


def book_ticker(listing: Listing, now: int) -> bytes:
    """Return best bid and ask."""
    return listing.payloads.book_ticker(now, listing.book.update_id, listing.book.best())


def average_text(listing: Listing, now: int) -> str:
    """Return the average price of the last five minutes, the last price where nothing was traded."""
    bar, _ = listing.rolling(AVERAGE_WINDOW).at(now)
    if not bar.lots:
        return listing.payloads.price[listing.last_price]
    return price8(average_units(listing.instrument, bar, 8))


def average_price(listing: Listing, now: int) -> bytes:
    """Return the average price (spot)."""
    return listing.payloads.average_price(now, average_text(listing, now), listing.last_trade_ms)


def reference_text(listing: Listing, now: int) -> str | None:
    """Return the reference price: the middle of the book; None in one minute of twenty."""
    if (now // 60_000 + listing.rank) % 20 == 0:
        return None
    bid, _, ask, _ = listing.book.best()
    return decimal_text((bid + ask) * 5 * 10 ** (8 - listing.instrument.price_digits), 9)[:-1]


def reference_price(listing: Listing, now: int) -> bytes | None:
    """Return the reference price (spot); nothing for the symbols that never have one."""
    if not has_reference(listing):
        return None
    return listing.payloads.reference_price(reference_text(listing, now), now)


def has_reference(listing: Listing) -> bool:
    """Return whether the symbol ever has a reference price: two of three have."""
    return listing.rank % 3 != 2


def force_order(listing: Listing, now: int, *, every_symbol: bool) -> bytes | None:
    """Return the largest liquidation of the last second, if there was one (futures)."""
    order, payloads = listing.told_liquidation, listing.payloads
    if order is None or not isinstance(payloads, FuturesPayloads):
        return None
    return payloads.force_order(now, order, every_symbol=every_symbol)


def mark_price(price: ContractPrice, now: int) -> bytes:
    """Return the mark price of a contract."""
    payloads = price.listing.payloads
    assert isinstance(payloads, FuturesPayloads)
    return payloads.mark_price(now, price.now)


def composite_index(listing: Listing, indexes: Mapping[str, IndexPrice], now: int) -> bytes | None:
    """Return the composite index behind ``listing``, nothing where it is no index (usdm)."""
    instrument = listing.instrument
    if instrument.underlying != "INDEX":
        return None
    value = indexes[instrument.pair].value
    parts = []
    for base, share in _COMPONENTS:
        known = indexes.get(base + "USDT")
        price = known.value if known else share * 10**9
        parts.append(
            f'{{"b":"{base}","q":"USDT","w":"{price8(value * share * 10**6 // price)}","W":"0.{share:02d}000000",'
            f'"i":"{price8(price)}"}}'
        )
    return (
        f'{{"e":"compositeIndex","E":{now},"s":"{instrument.symbol}","p":"{price8(value)}","C":"baseAsset",'
        f'"c":[{",".join(parts)}]}}'
    ).encode()


def assets(indexes: Mapping[str, IndexPrice]) -> dict[str, str]:
    """Return the assets that have an index, with the pair it follows (empty for dollars)."""
    coins = {pair.removesuffix("T"): pair for pair in indexes if pair.endswith("USDT") and pair[0].isalpha()}
    return {"USDTUSD": "", "USDCUSD": "", **coins}


def asset_index(asset: str, pair: str, indexes: Mapping[str, IndexPrice], now: int) -> bytes:
    """Return the index of a margin asset and its buffers (usdm)."""
    value = indexes[pair].value if pair else 10**8
    margin, auto = (10, 5) if pair else (1, 1)
    percent, auto_percent = f"0.{margin:02d}000000", f"0.{auto:02d}000000"
    return (
        f'{{"e":"assetIndexUpdate","E":{now},"s":"{asset}","i":"{price8(value)}","b":"{percent}","a":"{percent}",'
        f'"B":"{price8(value * (100 - margin) // 100)}","A":"{price8(value * (100 + margin) // 100)}",'
        f'"q":"{auto_percent}","g":"{auto_percent}","Q":"{price8(value * (100 - auto) // 100)}",'
        f'"G":"{price8(value * (100 + auto) // 100)}"}}'
    ).encode()


# half hours of the day (UTC) at which a session begins; the first holds until then from the day before
_US = ((2, "OVERNIGHT"), (18, "PRE_MARKET"), (29, "REGULAR"), (42, "AFTER_MARKET"))
SESSIONS = {
    "EquityUpdate": _US,
    "CommodityUpdate": ((0, "REGULAR"),),
    "KR_EquityUpdate": ((0, "REGULAR"), (13, "NO_TRADING")),
    "HK_EquityUpdate": ((3, "REGULAR"), (16, "NO_TRADING")),
    "CN_EquityUpdate": ((3, "REGULAR"), (14, "NO_TRADING")),
}
"""Trading sessions of the markets behind TradFi contracts, by event type."""
_HALF_HOUR = HOUR // 2


def session(event: str, now: int) -> bytes:
    """Return which session a TradFi market is in (usdm); weekends have none."""
    day = now // DAY * DAY
    weekday = (now // DAY + 3) % 7
    plan = SESSIONS[event]
    starts = [(day + offset + half * _HALF_HOUR, name) for offset in (-DAY, 0, DAY) for half, name in plan]
    at = max(n for n, (start, _) in enumerate(starts) if start <= now)
    name = "NO_TRADING" if weekday > 4 else starts[at][1]
    end = starts[at + 1][0] if at + 1 < len(starts) else day + DAY
    return f'{{"e":"{event}","E":{now},"t":{starts[at][0]},"T":{end},"S":"{name}"}}'.encode()
