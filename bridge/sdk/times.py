"""Times as users write them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TypeAlias

from bridge.errors import UsageError
from bridge.sdk.record import EPOCH

When: TypeAlias = str | int | datetime
"""A time: ``"-15m"`` (before now), ISO 8601 with its zone, ``"now"``, ``"earliest"``, an aware datetime, or an
integer: milliseconds, or microseconds from 10**14 on (so a record's own ``timestamp`` will do)."""

_RELATIVE = re.compile(r"([-+])(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LATEST_MS = 253_402_300_800_000  # the year 10000
_MICROSECONDS_FROM = 10**14
_SECONDS_BELOW = 10**10
_FORMS = "'-15m', '2026-11-01T00:00Z', 'now', 'earliest', an aware datetime, or milliseconds as an integer"


def milliseconds(when: When, *, now: int, what: str = "time") -> int:
    """Return ``when`` in milliseconds since the epoch.

    Args:
        when: the time; see :data:`When`.
        now: the present, in milliseconds.
        what: the argument's name, for the error.

    Raises:
        UsageError: it can't be understood, or has no time zone.
    """
    if isinstance(when, datetime):
        return _from_datetime(when, repr(when.isoformat()), what)
    if isinstance(when, bool) or not isinstance(when, (str, int)):
        raise UsageError(f"{what} is {when!r}; use {_FORMS}")
    if isinstance(when, int):
        return _from_integer(when, what)
    text = when.strip()
    if text.isascii() and text.isdecimal():
        return _from_integer(int(text), what)
    relative = _RELATIVE.fullmatch(text)
    if relative is not None:
        sign, count, unit = relative.groups()
        distance = round(float(count) * _SECONDS[unit] * 1000)
        return max(0, min(_LATEST_MS, now - distance if sign == "-" else now + distance))
    if text in {"now", "earliest"}:
        return now if text == "now" else 0
    try:
        return _from_datetime(datetime.fromisoformat(text), repr(text), what)
    except ValueError:
        raise UsageError(f"{what} is {when!r}; use {_FORMS}") from None


def _from_datetime(when: datetime, shown: str, what: str) -> int:
    if when.tzinfo is None:
        raise UsageError(
            f"{what} is {shown}, which has no time zone; for UTC end it with Z, as in '2026-11-01T00:00Z'"
        )
    return (when - EPOCH) // timedelta(milliseconds=1)


def _from_integer(when: int, what: str) -> int:
    if 0 < when < _SECONDS_BELOW:
        raise UsageError(f"{what} is {when}, which looks like seconds; give milliseconds")
    millis = when // 1000 if when >= _MICROSECONDS_FROM else when
    if not 0 <= millis <= _LATEST_MS:
        raise UsageError(f"{what} is {when}, which is no time between 1970 and the year 10000; use {_FORMS}")
    return millis
