"""Asks REST whether a stream's market moves: the cheapest answer that changes when the stream must speak."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridge.binance.rest import RestClient
    from bridge.core.liveness import Marker
    from bridge.model import Market, Stream

_PREFIX: Mapping[Market, str] = {"spot": "/api/v3", "usdm": "/fapi/v1", "coinm": "/dapi/v1"}
#: Whose market stands for streams without a symbol: if nothing trades there, the exchange is closed.
_REFERENCE: Mapping[Market, str] = {"spot": "BTCUSDT", "usdm": "BTCUSDT", "coinm": "BTCUSD_PERP"}
_FRESH_SECONDS = 1.0

_TRADES = frozenset(
    {
        "agg-trade",
        "trade",
        "kline",
        "continuous-kline",
        "mini-ticker",
        "ticker",
        "rolling-ticker",
        "avg-price",
    }
)
_BOOK = frozenset({"book-ticker", "partial-depth", "depth", "rpi-depth"})
_MARK = frozenset({"mark-price", "index-price", "mark-price-kline", "index-price-kline"})
_CLOCK = frozenset({"composite-index", "asset-index"})


class _Marks(msgspec.Struct):
    lastId: int | None = None  # noqa: N815 - the exchange's own names
    lastUpdateId: int | None = None  # noqa: N815
    time: int | None = None
    serverTime: int | None = None  # noqa: N815


_decode = msgspec.json.Decoder(_Marks | list[_Marks]).decode


class MarketLook:
    """Looks at markets through REST, in the background share of the weight.

    Answers are kept for a second: many streams of one symbol fall silent together. Looks are spaced, so that
    thousands of sleepy streams leave the background share to backfill.

    Args:
        rest: whom to ask.
        monotonic: the clock, in seconds.
        spacing_seconds: least time between two requests.
    """

    def __init__(self, rest: RestClient, monotonic: Callable[[], float], spacing_seconds: float) -> None:
        self._rest = rest
        self._monotonic = monotonic
        self._spacing = spacing_seconds
        self._next_at = 0.0
        self._seen: dict[tuple[Market, str, str], tuple[float, Marker | None]] = {}

    async def __call__(self, stream: Stream) -> Marker | None:
        """Return the marker of the stream's market, or None where REST can't tell (liquidations, for one).

        Raises:
            SourceError: REST did not answer, or not as expected.
        """
        question = _question(stream)
        if question is None:
            return None
        path, params = question
        key = (stream.market, path, str(params))
        now = self._monotonic()
        kept = self._seen.get(key)
        if kept is not None and now - kept[0] < _FRESH_SECONDS:
            return kept[1]
        self._next_at = max(now, self._next_at) + self._spacing
        if self._next_at - self._spacing > now:
            await asyncio.sleep(self._next_at - self._spacing - now)
        reply = await self._rest.get(stream.market, path, params, background=True)
        marker = _marker(reply.body)
        self._seen = {old: (at, what) for old, (at, what) in self._seen.items() if now - at < _FRESH_SECONDS}
        self._seen[key] = (self._monotonic(), marker)
        return marker


def _question(stream: Stream) -> tuple[str, dict[str, str | int]] | None:
    prefix = _PREFIX[stream.market]
    symbol = stream.symbol or _REFERENCE[stream.market]
    if stream.market == "coinm" and "_" not in symbol and stream.channel not in _MARK:
        symbol = f"{symbol}_PERP"  # a pair: its perpetual stands for it
    if stream.channel in _TRADES:
        return f"{prefix}/ticker/24hr", {"symbol": symbol}
    if stream.channel in _BOOK:
        return f"{prefix}/depth", {"symbol": symbol, "limit": 5}
    if stream.channel in _MARK and stream.market != "spot":
        by_pair = stream.market == "coinm" and "_" not in symbol
        return f"{prefix}/premiumIndex", {"pair" if by_pair else "symbol": symbol}
    return (f"{prefix}/time", {}) if stream.channel in _CLOCK else None


def _marker(body: bytes) -> Marker | None:
    try:
        decoded = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnexpectedMessage(f"a market look: {error}") from None
    marks = (decoded[0] if decoded else _Marks()) if isinstance(decoded, list) else decoded
    known = (marks.lastUpdateId, marks.lastId, marks.time, marks.serverTime)
    return next((mark for mark in known if mark is not None), None)
