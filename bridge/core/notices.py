"""Records of what did not go as it should: gaps and dead letters. Live and replay write the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.core.conversions import micros

if TYPE_CHECKING:
    from bridge.core.coverage import Gap
    from bridge.core.derive import Failure, Item, StreamDeriver
    from bridge.core.sequence import Missing
    from bridge.model import Market

_LONGEST_ERROR = 2000


class Notice(NamedTuple):
    """A record for the gaps or the dead-letter topic.

    Attributes:
        structure: ``gap`` or ``dead-letter``.
        key: the record's key.
        at: its time, microseconds.
        record: its fields.
    """

    structure: str
    key: bytes
    at: int
    record: dict[str, Any]


def missing_notice(deriver: StreamDeriver, missing: Missing, item: Item) -> Notice:
    """Return the gap that a message showed."""
    start = None if missing.start_time is None else micros(missing.start_time)
    end = None if missing.end_time is None else micros(missing.end_time)
    return _gap(deriver, missing.first, missing.last, start, end, deriver.cause(missing), item)


def restart_notice(deriver: StreamDeriver, missing: Missing, at: int) -> Notice:
    """Return the gap that the topics themselves show when a stream changes owners; ``at`` is in microseconds."""
    start, end = (None if t is None else micros(t) for t in (missing.start_time, missing.end_time))
    notice = _gap(deriver, missing.first, missing.last, start, end, "restart", None)
    notice.record["detectedAt"] = at
    return notice._replace(at=at)


def resumed_notice(deriver: StreamDeriver, gap: Gap, at: int) -> Notice:
    """Return the newest record of a gap that an earlier owner of the stream left open; ``at`` is in microseconds."""
    if deriver.known_by == "sequence":
        notice = _gap(deriver, gap.first, gap.last, None, None, gap.cause, None)
    else:
        notice = _gap(deriver, None, None, gap.first * 1000, gap.last * 1000, gap.cause, None)
    notice.record["detectedAt"] = gap.detected_at
    return notice._replace(at=at)


def dark_notice(deriver: StreamDeriver, since: int, until: int, cause: str = "disconnected") -> Notice:
    """Return the gap of a stream without ids that no connection carried for a while (microseconds)."""
    notice = _gap(deriver, None, None, since, until, cause, None)
    notice.record.update(status="unrecoverable", reason="the exchange keeps no history of it")
    return notice


def gap_id(market: Market, stream: str, first: int | None) -> str:
    """Return what names a gap: market, stream, and first missing id or time (microseconds)."""
    return f"{market}:{stream}:{first}"


def _gap(
    deriver: StreamDeriver, first: int | None, last: int | None, start_time: int | None, end_time: int | None,
    cause: str, item: Item | None,
) -> Notice:  # fmt: skip
    stream = deriver.stream
    symbol = deriver.instruments.get(stream.symbol).symbol if stream.symbol else stream.name
    at = item.received_at if item else end_time or 0
    record = {
        "id": gap_id(stream.market, stream.name, start_time if first is None else first),
        "symbol": symbol, "market": stream.market, "exchangeSymbol": stream.symbol, "channel": stream.channel,
        "stream": stream.name, "firstSequence": first, "lastSequence": last, "startTime": start_time,
        "endTime": end_time, "detectedAt": at, "cause": cause, "status": "open", "recovered": 0, "source": None,
        "connectionId": item.connection_id if item else None, "connectionSequence": item.number if item else None,
        "writerEpoch": deriver.writer.epoch, "reason": None,
    }  # fmt: skip
    return Notice("gap", symbol.encode(), at, record)


def failure_notice(deriver: StreamDeriver, failure: Failure, topic: str) -> Notice:
    """Return the dead letter of a message that made no record, though it was to go to ``topic``."""
    stream, item = deriver.stream, failure.item
    return dead_letter(
        key=(stream.symbol or stream.name).encode(), at=item.received_at, reason=failure.reason, error=failure.error,
        topic=topic, epoch=deriver.writer.epoch, payload=item.payload, market=stream.market, channel=stream.channel,
        stream=stream.name, symbol=stream.symbol, connection_id=item.connection_id, number=item.number,
    )  # fmt: skip


def dead_letter(
    *,
    key: bytes,
    at: int,
    reason: str,
    error: str,
    topic: str,
    epoch: int,
    payload: bytes,
    market: Market | None = None,
    channel: str | None = None,
    stream: str | None = None,
    symbol: str | None = None,
    connection_id: int | None = None,
    number: int | None = None,
) -> Notice:
    """Return a dead letter; ``at`` is in microseconds."""
    record = {
        "at": at, "reason": reason, "error": error[:_LONGEST_ERROR], "topic": topic, "market": market,
        "channel": channel, "stream": stream, "symbol": symbol, "connectionId": connection_id,
        "connectionSequence": number, "writerEpoch": epoch, "payload": payload,
    }  # fmt: skip
    return Notice("dead-letter", key, at, record)
