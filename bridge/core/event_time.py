"""Times of the exchange as Kafka's times of records."""

from __future__ import annotations

from bridge.core.conversions import MILLISECONDS_BELOW, milliseconds

LATEST_TIME = 1 << 52
"""Times of the exchange beyond it (year 2112 in microseconds) are not believed."""

MOST_AHEAD_MS = 3_000_000
"""How far ahead of its receipt an event's time may lie to be its records' time. Kafka refuses a record that is an hour
ahead of the broker's clock (``message.timestamp.after.max.ms``); ten minutes are for clocks that differ."""


def event_milliseconds(time: int | None) -> int | None:
    """Return a time of the exchange in milliseconds; None where there is none or it is not to be believed."""
    if time is None or not 0 < time < LATEST_TIME:
        return None
    return milliseconds(time)


def record_milliseconds(event_ms: int | None, received_at: int) -> int:
    """Return the Kafka time of an event's records: its own, or that of receipt (microseconds) where it has none.

    Or where its own lies so far ahead that Kafka would refuse the record, and with it what it holds.
    """
    received = received_at // 1000
    return received if event_ms is None or event_ms > received + MOST_AHEAD_MS else event_ms


def record_time(time: int | None, received_ms: int) -> int:
    """Return the Kafka time of the records of an event that has ``time``, as the exchange sent it."""
    if time is None or time <= 0:
        return received_ms
    event_ms = time if time < MILLISECONDS_BELOW else time // 1000
    return event_ms if event_ms <= received_ms + MOST_AHEAD_MS else received_ms
