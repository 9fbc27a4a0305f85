"""Times as users write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from bridge.errors import UsageError
from bridge.sdk.times import milliseconds

NOW = 1_793_491_200_000  # 2026-11-01T00:00Z


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("-15m", NOW - 900_000),
        ("+1.5h", NOW + 5_400_000),
        ("-250ms", NOW - 250),
        ("-1w", NOW - 604_800_000),
        ("-10000000d", 0),
        ("now", NOW),
        ("earliest", 0),
        ("2026-11-01T00:00Z", NOW),
        ("2026-11-01T01:00:00.5+01:00", NOW + 500),
        (datetime(2026, 11, 1, tzinfo=UTC), NOW),
        (datetime(2026, 11, 1, 2, tzinfo=timezone(timedelta(hours=2))), NOW),
        (NOW, NOW),
        (str(NOW), NOW),
        (NOW * 1000 + 7, NOW),
        (0, 0),
    ],
)
def test_a_time_in_each_form(when, expected):
    """Every documented form gives its milliseconds."""
    assert milliseconds(when, now=NOW) == expected


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("2026-11-01", "has no time zone; for UTC end it with Z"),
        (datetime(2026, 11, 1), "has no time zone"),  # noqa: DTZ001 - that it has none is the point
        ("yesterday", "start is 'yesterday'; use '-15m'"),
        ("15m", "start is '15m'; use"),
        (NOW // 1000, "looks like seconds"),
        (-5, "no time between"),
        (True, "start is True"),
        (1.5, r"start is 1\.5"),
    ],
)
def test_a_time_that_is_none_says_what_would_be(when, message):
    """A time that can't be understood is refused by its argument's name, with the forms there are."""
    with pytest.raises(UsageError, match=message):
        milliseconds(when, now=NOW, what="start")
