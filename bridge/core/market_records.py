"""Instruments as ``market`` records: all of them at first, then those that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bridge.core.schema import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.core.derive import Writer
    from bridge.core.instruments import Instruments
    from bridge.core.schema import Schema


class MarketRecord(NamedTuple):
    """One record of the ``market`` structure."""

    key: bytes
    value: bytes


def market_records(
    schema: Schema,
    before: Instruments | None,
    now: Instruments,
    writer: Writer,
    server_time: int,
    received_at: int,
    number: int,
) -> Iterator[MarketRecord]:
    """Yield a record for each instrument that is new or differs from ``before``.

    Args:
        schema: the ``market`` schema.
        before: the table published last.
        now: the new table.
        writer: who derives; the origin is a live bridge's ``snapshot``, or replay.
        server_time: when the exchange answered, microseconds.
        received_at: when the answer came, microseconds.
        number: ``connectionSequence`` of the raw record of the answer.
    """
    for instrument in now.by_id.values():
        known = before.by_id.get(instrument.id) if before is not None else None
        if known is not None and known.record == instrument.record:
            continue
        record = {
            "symbol": instrument.symbol,
            "market": now.market,
            "exchangeSymbol": instrument.id,
            "channel": "api",
            "origin": "snapshot" if writer.origin == "live" else writer.origin,
            "writerEpoch": writer.epoch,
            "connectionId": 0,
            "connectionSequence": number,
            "receivedAt": received_at,
            "sequence": None,
            "timestamp": server_time,
            **instrument.record,
        }
        yield MarketRecord(instrument.symbol.encode(), encode(schema, record))
