"""``exchangeInfo`` of the three markets, in the shapes of November 2026."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bridge.simulator.market.instruments import decimal_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.simulator.market.listing import Listing

Json = dict[str, Any]


def spot(listings: Iterable[Listing], now_ms: int) -> Json:
    """Return spot's exchangeInfo."""
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [
            _limit("REQUEST_WEIGHT", "MINUTE", 1, 6000),
            _limit("ORDERS", "SECOND", 10, 100),
            _limit("ORDERS", "DAY", 1, 200_000),
            _limit("RAW_REQUESTS", "MINUTE", 5, 300_000),
        ],
        "exchangeFilters": [],
        "symbols": [_spot_symbol(listing) for listing in listings],
        "sors": [{"baseAsset": "BTC", "symbols": ["BTCUSDT", "BTCUSDC"]}],
    }


def usdm(listings: Iterable[Listing], now_ms: int) -> Json:
    """Return usdm's exchangeInfo."""
    assets = (("USDT", "-10000"), ("BTC", "-0.10000000"), ("BNB", "-10"), ("ETH", "-5"), ("USDC", "-10000"))
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "futuresType": "U_MARGINED",
        "rateLimits": _futures_limits(),
        "exchangeFilters": [],
        "assets": [{"asset": a, "marginAvailable": True, "autoAssetExchange": x} for a, x in assets],
        "symbols": [_usdm_symbol(listing) for listing in listings],
    }


def coinm(listings: Iterable[Listing], now_ms: int) -> Json:
    """Return coinm's exchangeInfo."""
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": _futures_limits(),
        "exchangeFilters": [],
        "symbols": [_coinm_symbol(listing) for listing in listings],
    }


def _limit(kind: str, interval: str, number: int, limit: int) -> Json:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def _futures_limits() -> list[Json]:
    return [
        _limit("REQUEST_WEIGHT", "MINUTE", 1, 2400),
        _limit("ORDERS", "MINUTE", 1, 1200),
        _limit("ORDERS", "SECOND", 10, 300),
    ]


def _spot_symbol(listing: Listing) -> Json:
    instrument, price, quantity = listing.instrument, listing.payloads.price, listing.payloads.quantity
    return {
        "symbol": instrument.symbol,
        "status": listing.status,
        "baseAsset": instrument.base,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": [
            "LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT",
        ],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": listing.rank < 20,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": price[1], "maxPrice": _most(instrument.price_ticks, price),
             "tickSize": price[1]},
            {"filterType": "LOT_SIZE", "minQty": quantity[1], "maxQty": "9000000.00000000", "stepSize": quantity[1]},
            {"filterType": "ICEBERG_PARTS", "limit": 100},
            {"filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000", "maxQty": "120000.00000000",
             "stepSize": "0.00000000"},
            {"filterType": "TRAILING_DELTA", "minTrailingAboveDelta": 10, "maxTrailingAboveDelta": 2000,
             "minTrailingBelowDelta": 10, "maxTrailingBelowDelta": 2000},
            {"filterType": "PERCENT_PRICE_BY_SIDE", "bidMultiplierUp": "5", "bidMultiplierDown": "0.2",
             "askMultiplierUp": "5", "askMultiplierDown": "0.2", "avgPriceMins": 5},
            {"filterType": "NOTIONAL", "minNotional": "0.00010000" if instrument.quote == "BTC" else "5.00000000",
             "applyMinToMarket": True, "maxNotional": "9000000.00000000", "applyMaxToMarket": False,
             "avgPriceMins": 5},
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
            {"filterType": "MAX_NUM_ORDER_LISTS", "maxNumOrderLists": 20},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
            {"filterType": "MAX_NUM_ORDER_AMENDS", "maxNumOrderAmends": 10},
        ],
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"] if listing.rank < 20 else ["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER"],
    }  # fmt: skip


def _most(price_ticks: int, price: dict[int, str]) -> str:
    return price[10 ** (len(str(price_ticks)) + 1)]


def _contract(listing: Listing) -> Json:
    """Return what usdm and coinm symbols have in common, in usdm's order; coinm names the status otherwise."""
    instrument = listing.instrument
    return {
        "symbol": instrument.symbol,
        "pair": instrument.pair,
        "contractType": instrument.contract_type,
        "deliveryDate": instrument.delivery_ms,
        "onboardDate": listing.onboard_ms,
        "status": listing.status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": instrument.base,
        "quoteAsset": instrument.quote,
        "marginAsset": instrument.margin,
        "pricePrecision": instrument.price_digits,
        "quantityPrecision": instrument.quantity_digits,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": instrument.underlying,
        "underlyingSubType": ["PoW"] if instrument.base == "BTC" else [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10000,
    }


def _contract_filters(listing: Listing) -> list[Json]:
    instrument, quantity = listing.instrument, listing.payloads.quantity
    tick = _plain(instrument.tick_units, instrument.price_digits, strip=False)
    lowest = _plain(instrument.price_ticks * instrument.tick_units // 100 or 1, instrument.price_digits)
    highest = _plain(instrument.price_ticks * instrument.tick_units * 50, instrument.price_digits)
    lot = {"minQty": quantity[1], "stepSize": quantity[1]}
    return [
        {"filterType": "PRICE_FILTER", "minPrice": lowest, "maxPrice": highest, "tickSize": tick},
        {"filterType": "LOT_SIZE", "maxQty": "1000000", **lot},
        {"filterType": "MARKET_LOT_SIZE", "maxQty": "100000", **lot},
        {"filterType": "MAX_NUM_ORDERS", "limit": 200},
    ]


_POSITION_RISK: Json = {"filterType": "POSITION_RISK_CONTROL", "positionControlSide": "NONE"}
_PERCENT_PRICE: Json = {
    "filterType": "PERCENT_PRICE", "multiplierUp": "1.0500", "multiplierDown": "0.9500", "multiplierDecimal": "4",
}  # fmt: skip
_ORDER_TYPES = [
    "LIMIT",
    "MARKET",
    "STOP",
    "STOP_MARKET",
    "TAKE_PROFIT",
    "TAKE_PROFIT_MARKET",
    "TRAILING_STOP_MARKET",
]


def _usdm_symbol(listing: Listing) -> Json:
    notional: Json = {
        "filterType": "MIN_NOTIONAL",
        "notional": "100" if listing.instrument.base == "BTC" else "5",
    }
    return {
        **_contract(listing),
        "filters": [*_contract_filters(listing), notional, _PERCENT_PRICE, _POSITION_RISK],
        "orderTypes": _ORDER_TYPES,
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD", "RPI"],
        "permissionSets": ["GRID", "COPY", "DCA"],
    }


def _coinm_symbol(listing: Listing) -> Json:
    common = {
        ("contractStatus" if key == "status" else key): value for key, value in _contract(listing).items()
    }
    return {
        **common,
        "contractSize": listing.instrument.contract_size,
        "equalQtyPrecision": 4,
        "filters": [*_contract_filters(listing), _PERCENT_PRICE],
        "orderTypes": _ORDER_TYPES,
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }


def _plain(units: int, digits: int, *, strip: bool = True) -> str:
    text = decimal_text(units, digits)
    return f"{Decimal(text).normalize():f}" if strip else text
