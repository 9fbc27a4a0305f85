"""Which stream a unified record is of, and which of the stream's positions it holds. Pure.

A unified record does not carry its stream's name. Of streams with ids and of candles it tells all but the speed:
market, channel, the exchange's symbol, a candle's interval and time zone. That is a :class:`Series`; two speeds of one
stream would be one series. Positions are those of :mod:`bridge.core.coverage`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.core.compile import UNDECODABLE
from bridge.core.conversions import milliseconds
from bridge.core.spans import Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.core.compile import CompiledChannel


class Series(NamedTuple):
    """A stream as its unified records know it.

    Attributes:
        market: the market.
        channel: the channel.
        symbol: the exchange's symbol; "" for a stream of all symbols.
        option: the interval of candles, or "".
        zone: their time zone as offset (``+08:00``), or "" for UTC.
    """

    market: str
    channel: str
    symbol: str
    option: str = ""
    zone: str = ""


class Place(NamedTuple):
    """Where a record stands in its series.

    Attributes:
        span: the positions it holds; None where it is no event of its own: an open candle.
        first: its first position, whether it holds that or not.
        event_ms: event time in milliseconds; None where it has none.
    """

    span: Span | None
    first: int
    event_ms: int | None


def series_of(record: Mapping[str, Any]) -> Series:
    """Return the series of a unified record of a channel with ids, or of candles."""
    return Series(
        record["market"],
        record["channel"],
        record["exchangeSymbol"],
        record.get("timeframe") or "",
        record.get("timeZone") or "",
    )


def place_of(compiled: CompiledChannel, record: Mapping[str, Any]) -> Place | None:
    """Return where a unified record stands; None where its channel has no positions, and of a book's snapshot."""
    if compiled.candle is not None and "closeTime" in record:
        first = record["timestamp"] // 1000
        span = Span(first, record["closeTime"] // 1000) if record["closed"] else None
        return Place(span, first, _milliseconds(record["eventTime"]))
    last = record["sequence"]
    if compiled.link is None or last is None or record.get("type") == "snapshot":
        return None
    first = last
    if "firstSequence" in record:
        previous = record["previousSequence"]
        first = record["firstSequence"] if previous is None else previous + 1
    at = record["eventTime"] if "eventTime" in record else record["timestamp"]
    return Place(Span(first, last), first, _milliseconds(at))


def has_silent(compiled: CompiledChannel) -> bool:
    """Whether a channel's messages take ids though not all of them make a record."""
    return compiled.link is not None and (not compiled.structures or bool(compiled.declaration.drop))


def silent_place(compiled: CompiledChannel, payload: bytes) -> Place | None:
    """Return where a message of raw stands that takes ids and makes no record; None where it makes one.

    Args:
        compiled: a channel that :func:`has_silent` messages.
        payload: the message.
    """
    drop = compiled.declaration.drop
    written = (f'"{key}":"{value}"'.encode() for key, value in drop.items())
    if compiled.structures and not any(text in payload for text in written):
        return None
    try:
        message = compiled.decode(payload).data
        at = compiled.event_time(message)
    except UNDECODABLE:
        return None
    if compiled.structures and any(getattr(message, f"f_{key}") != value for key, value in drop.items()):
        return None
    assert compiled.link is not None, "only of channels with silent messages"
    previous, last = compiled.link(message)
    return Place(Span(previous + 1, last), previous + 1, None if at is None else milliseconds(at))


def _milliseconds(time: int | None) -> int | None:
    return None if time is None else time // 1000
