"""Encodes ``raw`` records: one message exactly as received."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.conversions import micros
from bridge.core.event_time import event_milliseconds
from bridge.core.varint import SIZES, long_bytes, text_bytes

if TYPE_CHECKING:
    from bridge.core.schema import Schema
    from bridge.model import Environment, Market, RawKind


def raw_prefix(
    schema: Schema,
    environment: Environment,
    market: Market,
    channel: str,
    stream: str,
    symbol: str | None,
    connection_id: int,
    epoch: int,
    kind: RawKind,
) -> bytes:
    """Return what is the same for all raw records of a stream on a connection, with the schema's header."""
    symbols = {f.name: f.symbols for f in schema.fields}
    return b"".join(
        (
            schema.header,
            long_bytes(symbols["environment"].index(environment)),
            long_bytes(symbols["market"].index(market)),
            text_bytes(channel),
            text_bytes(stream),
            b"\x00" if symbol is None else b"\x02" + text_bytes(symbol),
            long_bytes(connection_id),
            long_bytes(epoch),
            long_bytes(symbols["kind"].index(kind)),
        )
    )


NO_TIME = b"\x00"
"""``eventTime`` of a message that tells none, encoded."""


class EventTimes(dict[int | None, tuple[int | None, bytes]]):
    """``table[time]`` is an event's time in milliseconds and as ``eventTime`` encoded, of a time of the exchange.

    Where there is none, or it is not to be believed, that is None and null. Many events share a time.
    """

    def __missing__(self, time: int | None) -> tuple[int | None, bytes]:
        """Convert ``time`` for the first time.

        Raises:
            OverflowError: it does not fit a long.
        """
        if len(self) > _REMEMBERED:
            self.clear()
        event_ms = event_milliseconds(time)
        encoded = NO_TIME if event_ms is None or time is None else b"\x02" + long_bytes(micros(time))
        found = self[time] = event_ms, encoded
        return found


event_time_of = EventTimes().__getitem__  # subscripting a subclass of dict is slow
_REMEMBERED = 10_000


def raw_value(prefix: bytes, stamp: bytes, event_time: bytes, payload: bytes) -> bytes:
    """Return a raw record's value.

    Args:
        prefix: see :func:`raw_prefix`.
        stamp: ``connectionSequence`` and ``receivedAt``, encoded.
        event_time: ``eventTime``, encoded.
        payload: the bytes as received.
    """
    size = len(payload)
    shown = SIZES[size] if size < _SIZES else long_bytes(size)  # not by a call: every message comes here
    return b"".join((prefix, stamp, event_time, shown, payload))


_SIZES = len(SIZES)
