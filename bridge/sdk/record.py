"""What every record of the SDK can do beside holding its fields."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import ClassVar

import msgspec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Record(msgspec.Struct, frozen=True, gc=False):
    """Base of all record classes: immutable, without a ``__dict__``, compared by value.

    Fields have the names of ``avro/``. Decimals are exact; times are integers, microseconds since the epoch.

    Attributes:
        structure: name of the structure (``trade``).
        time_field: the field that ``time`` and ``datetime`` show.
    """

    structure: ClassVar[str]
    time_field: ClassVar[str]

    @property
    def time(self) -> datetime | None:
        """The record's time, aware and exact to the microsecond; None where it has none."""
        return as_time(getattr(self, self.time_field))

    @property
    def datetime(self) -> str | None:
        """The record's time as CCXT writes it (``2026-11-01T00:00:00.000Z``); None where it has none."""
        return as_text(getattr(self, self.time_field))


def as_time(micros: int | None) -> datetime | None:
    """Return microseconds since the epoch as an aware time; None for None and beyond the calendar."""
    if micros is None:
        return None
    try:
        return EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return None


def as_text(micros: int | None) -> str | None:
    """Return microseconds since the epoch as CCXT's ``iso8601``: milliseconds, cut off. None before 1970."""
    time = as_time(micros)
    if time is None or time < EPOCH:
        return None
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z"


def as_millis(micros: int | None) -> int | None:
    """Return microseconds as whole milliseconds, cut off, as CCXT counts time."""
    return None if micros is None else micros // 1000
