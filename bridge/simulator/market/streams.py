"""Stream names: which one means what, at which pace it speaks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from bridge.simulator.market.bars import INTERVALS

if TYPE_CHECKING:
    from bridge.model import Market


class Wanted(NamedTuple):
    """What a stream name asks for.

    Attributes:
        kind: the name's fixed part, without options (``kline``, ``depth``, ``!ticker@arr``).
        subject: symbol, pair or asset in lower case; empty for streams of all symbols.
        argument: interval, window or levels; empty where there is none.
        offset_ms: the time zone of a ``@+08:00`` kline.
        period_ms: how often it may speak; 0 as things happen.
    """

    kind: str
    subject: str
    argument: str
    offset_ms: int
    period_ms: int


_INTERVAL = "|".join(INTERVALS)
_SPOT = re.compile(
    rf"(?P<subject>[^@!][^@]*)@(?:"
    r"(?P<kind>aggTrade|trade|blockTrade|bookTicker|miniTicker|ticker|avgPrice|referencePrice)"
    rf"|(?P<kline>kline)_(?P<interval>{_INTERVAL})(?P<zone>@\+08:00)?"
    r"|(?P<rolling>ticker)_(?P<window>1h|4h|1d)"
    r"|(?P<depth>depth)(?P<levels>5|10|20)?(?P<speed>@100ms)?)"
)
_FUTURES = re.compile(
    rf"(?P<subject>[^@!][^@]*)@(?:"
    r"(?P<kind>aggTrade|trade|bookTicker|miniTicker|ticker|forceOrder|compositeIndex|assetIndex)"
    r"|(?P<price>markPrice|indexPrice)(?P<second>@1s)?"
    rf"|(?P<kline>kline|continuousKline|indexPriceKline|markPriceKline)_(?P<interval>{_INTERVAL})"
    r"|(?P<depth>depth)(?P<levels>5|10|20)?(?P<speed>@500ms|@100ms)?"
    r"|(?P<rpi>rpiDepth)@500ms)"
)
_ALL: dict[str, dict[str, int]] = {
    "spot": {"!miniTicker@arr": 1000, "!ticker_1h@arr": 1000, "!ticker_4h@arr": 1000, "!ticker_1d@arr": 1000},
    "futures": {
        "!miniTicker@arr": 1000, "!ticker@arr": 1000, "!bookTicker": 5000, "!forceOrder@arr": 1000,
        "!markPrice@arr": 3000, "!markPrice@arr@1s": 1000, "!contractInfo": 0,
    },
    "usdm": {"!assetIndex@arr": 1000, "tradingSession": 1000},
}  # fmt: skip
_PERIODS = {
    "spot": {"miniTicker": 1000, "ticker": 1000, "avgPrice": 1000, "referencePrice": 1000, "kline": 2000},
    "usdm": {
        "miniTicker": 2000, "ticker": 2000, "forceOrder": 1000, "compositeIndex": 1000, "assetIndex": 1000,
        "kline": 250,
    },
    "coinm": {"miniTicker": 500, "ticker": 500, "forceOrder": 1000, "kline": 250},
}  # fmt: skip
_ONLY = {"compositeIndex": "usdm", "assetIndex": "usdm", "indexPrice": "coinm"}
_EIGHT_HOURS = 8 * 3_600_000


def well_formed(stream: str) -> bool:
    """Return whether the exchange takes ``stream`` for a stream name at all, known or not."""
    if stream.startswith("!") or stream == "tradingSession":
        return True
    subject, at, kind = stream.partition("@")
    return bool(subject and at and kind) and not any(c.isspace() for c in stream)


def wanted(market: Market, stream: str) -> Wanted | None:
    """Return what ``stream`` asks for, None where ``market`` has no such stream (it is acknowledged and silent)."""
    spot = market == "spot"
    everything = _ALL["spot" if spot else "futures"] | _ALL.get(market, {})
    if stream in everything:
        kind = "!ticker_@arr" if stream.startswith("!ticker_") else stream.removesuffix("@1s")
        argument = stream[len("!ticker_") : -len("@arr")] if stream.startswith("!ticker_") else ""
        return Wanted(kind, "", argument, 0, everything[stream])
    found = (_SPOT if spot else _FUTURES).fullmatch(stream)
    if found is None or found["subject"] != found["subject"].lower():
        return None
    part = found.groupdict("")
    return _kline(market, part) if part["kline"] else _of_one(market, part)


def _of_one(market: Market, part: dict[str, str]) -> Wanted | None:
    subject, kind, periods = part["subject"], part["kind"], _PERIODS[market]
    if part["depth"]:
        unsaid = 1000 if market == "spot" else 250
        return Wanted(
            "depth", subject, part["levels"], 0, int(part["speed"][1:-2]) if part["speed"] else unsaid
        )
    if part.get("rolling"):
        return Wanted("ticker_", subject, part["window"], 0, 1000)
    if part.get("rpi"):
        return Wanted("depth", subject, "", 0, 500) if market == "usdm" else None
    if part.get("price"):
        kind = part["price"]
        periods = {kind: 1000 if part["second"] else 3000}
    return Wanted(kind, subject, "", 0, periods.get(kind, 0)) if _ONLY.get(kind, market) == market else None


def _kline(market: Market, part: dict[str, str]) -> Wanted | None:
    interval, kind = part["interval"], part["kline"]
    if interval == "1s":
        return (
            Wanted("kline", part["subject"], "1s", 0, 1000) if market == "spot" and not part["zone"] else None
        )
    offset = _EIGHT_HOURS if part.get("zone") else 0
    return Wanted(kind, part["subject"], interval, offset, _PERIODS[market]["kline"])
