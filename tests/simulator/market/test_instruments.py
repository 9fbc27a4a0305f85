"""What is listed: the names that are always there, dated contracts, and digits that fit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator.market import MarketExchange
from bridge.simulator.market.instruments import DecimalText, decimal_text, listed, quarter_deliveries
from bridge.simulator.market.tape import Rows
from tests.simulator.market.recording import START


def test_some_names_are_always_listed() -> None:
    """However few symbols are asked for, each market lists its usual and its odd names."""
    names = {market: {i.symbol for i in listed(market, 1, START)} for market in ("spot", "usdm", "coinm")}
    assert names["spot"] == {"BTCUSDT", "ETHUSDT", "币安人生USDT", "1INCHUSDT"}
    assert names["usdm"] == {"BTCUSDT", "ETHUSDT", "1000SHIBUSDT", "币安人生USDT", "BTCUSDT_261225"}
    assert names["coinm"] == {"BTCUSD_PERP", "BTCUSD_261225"}


@pytest.mark.parametrize("market", ["spot", "usdm", "coinm"])
def test_any_number_of_symbols(market: str) -> None:
    """A market lists as many different symbols as asked for, each with digits that Binance could print."""
    found = listed(market, 300, START)
    assert len({instrument.symbol for instrument in found}) == 300
    for instrument in found:
        assert instrument.price_ticks > 400
        if market == "spot":
            assert instrument.price_digits + instrument.quantity_digits <= 8
        assert len(instrument.symbol) <= 20


@pytest.mark.parametrize(
    ("now", "this_quarter", "next_quarter"),
    [
        ("2026-11-22T20:31", "2026-12-25T08:00", "2027-03-26T08:00"),
        ("2026-12-25T07:59", "2026-12-25T08:00", "2027-03-26T08:00"),
        ("2026-12-25T08:00", "2027-03-26T08:00", "2027-06-25T08:00"),
        ("2026-01-01T00:00", "2026-03-27T08:00", "2026-06-26T08:00"),
    ],
)
def test_quarters_end_on_their_last_friday(now: str, this_quarter: str, next_quarter: str) -> None:
    """Dated contracts are delivered at 08:00 UTC on the last Friday of a quarter."""

    def ms(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)

    assert quarter_deliveries(ms(now)) == (ms(this_quarter), ms(next_quarter))


@given(st.integers(-(10**20), 10**20), st.integers(0, 8))
def test_decimals_are_exact(units: int, digits: int) -> None:
    """Text has exactly the digits asked for and is the number, whatever its size and sign."""
    text = decimal_text(units, digits)
    assert Decimal(text) == Decimal(units).scaleb(-digits)
    assert len(text.partition(".")[2]) == digits


@given(st.lists(st.integers(0, 10**12), max_size=50), st.sampled_from([1, 10]), st.integers(0, 8))
def test_texts_of_steps(steps: list[int], unit: int, digits: int) -> None:
    """The text of a number of steps is the same whether made or remembered."""
    text = DecimalText(unit, digits)
    for step in steps * 2:
        assert text[step] == decimal_text(step * unit, digits)


@given(st.lists(st.integers(0, 3), max_size=300), st.integers(1, 40), st.integers(0, 320))
def test_rows_keep_the_newest(steps: list[int], retention: int, asked: int) -> None:
    """Rows can be read by id and found by time as far back as retention says, and no further."""
    rows, time_ms, model = Rows(3, 1, 1000, retention), 0, []
    for number, step in enumerate(steps):
        time_ms += step
        rows.append((number, time_ms, -number))
        model.append((1000 + number, number, time_ms, -number))
    model = model[-retention:]
    assert len(rows) == len(model)
    assert list(rows.read(0, 10**9)) == model
    assert list(rows.read(1000 + asked, 1000 + asked + 7)) == [
        r for r in model if asked <= r[0] - 1000 < asked + 7
    ]
    later = [row[0] for row in model if row[2] >= asked]
    assert rows.first_at(asked) == (later[0] if later else rows.next_id)


@pytest.mark.parametrize(("rate", "retention"), [(0, 10), (-1.0, 10), (5, 0)])
def test_senseless_settings_are_refused(rate: float, retention: int) -> None:
    """A rate or retention that makes no market is refused."""
    with pytest.raises(ValueError, match="must be"):
        MarketExchange(1, 1, rate, START, rest_retention=retention)
