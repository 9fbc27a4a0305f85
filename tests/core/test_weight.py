import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.weight import WeightBudget, family, weight_limit, weight_of

MINUTE = 1_700_000_040.0  # :00 of a minute in UTC


def test_room_runs_out_at_nine_tenths_and_comes_back_with_the_next_minute():
    """Requests go until 90 % of the limit; then the wait ends just after the turn of the minute."""
    budget = WeightBudget(100)
    assert budget.reserve(MINUTE + 10, 60) == 0
    assert budget.reserve(MINUTE + 10, 30) == 0
    wait = budget.reserve(MINUTE + 10, 1)
    assert 50 < wait < 52
    assert budget.reserve(MINUTE + 10 + wait, 1) == 0


def test_background_requests_leave_room_for_live_ones():
    """Backfill stops at 60 % while a snapshot still goes."""
    budget = WeightBudget(100)
    assert budget.reserve(MINUTE, 60, background=True) == 0
    assert budget.reserve(MINUTE, 1, background=True) > 0
    assert budget.reserve(MINUTE, 25) == 0


def test_the_exchanges_own_figure_counts_other_processes():
    """What others on the IP used, as the header tells, is not spent again."""
    budget = WeightBudget(100)
    budget.observed(MINUTE + 1, 89)
    assert budget.reserve(MINUTE + 1, 2) > 0
    assert budget.reserve(MINUTE + 1, 1) == 0


def test_a_refusal_holds_everything_until_it_ends():
    """After 429 or 418 nothing goes before the time the exchange named, full minute or not."""
    budget = WeightBudget(100)
    budget.refused(MINUTE, 130.0, banned=True)
    assert budget.reserve(MINUTE + 30, 1) == 100
    assert budget.banned(MINUTE + 129)
    assert not budget.banned(MINUTE + 131)
    assert budget.reserve(MINUTE + 131, 1) == 0


def test_a_request_heavier_than_the_share_goes_alone():
    """One exchangeInfo over the whole limit is not starved for ever."""
    budget = WeightBudget(10)
    assert budget.reserve(MINUTE, 20) == 0
    assert budget.reserve(MINUTE, 20) > 0


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50), st.booleans()), max_size=200))
def test_no_minute_ever_passes_the_limit(requests):
    """What is let through in one calendar minute stays under 90 % of the limit, or is one request alone."""
    budget, now = WeightBudget(200), MINUTE
    spent: dict[int, list[int]] = {}
    for pause, weight, background in requests:
        now += pause
        if budget.reserve(now, weight, background=background) == 0:
            spent.setdefault(int(now // 60), []).append(weight)
    assert all(sum(weights) <= 180 or len(weights) == 1 for weights in spent.values())


def test_a_clock_set_back_does_not_freeze_the_budget():
    """After the clock jumped an hour ahead and back, the next request still goes."""
    budget = WeightBudget(100)
    assert budget.reserve(MINUTE + 3600, 90) == 0
    assert budget.reserve(MINUTE, 50) == 0


def test_both_futures_markets_draw_on_one_budget():
    """The markets usdm and coinm share the limit of their IP; spot has its own."""
    assert family("usdm") == family("coinm") != family("spot")


def test_the_limit_is_read_from_exchange_info():
    """The answer names the weight per minute; anything else leaves the limit as it is."""
    info = (
        b'{"timezone":"UTC","rateLimits":[{"rateLimitType":"RAW_REQUESTS","interval":"MINUTE","intervalNum":5,'
        b'"limit":300000},{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","intervalNum":1,"limit":1200}],'
        b'"symbols":[]}'
    )
    assert weight_limit(info) == 1200
    assert weight_limit(b'{"rateLimits":[]}') is None
    assert weight_limit(b"[" * 200_000) is None
    assert weight_limit(b"\xff") is None


@pytest.mark.parametrize(
    ("market", "path", "params", "weight"),
    [
        ("spot", "/api/v3/exchangeInfo", {}, 20),
        ("spot", "/api/v3/depth", {"symbol": "BTCUSDT", "limit": 5000}, 250),
        ("spot", "/api/v3/depth", {"symbol": "BTCUSDT"}, 5),
        ("spot", "/api/v3/ticker/24hr", {"symbol": "BTCUSDT"}, 2),
        ("spot", "/api/v3/ticker/24hr", {}, 80),
        ("spot", "/api/v3/aggTrades", {"symbol": "BTCUSDT", "limit": 1000}, 4),
        ("usdm", "/fapi/v1/depth", {"symbol": "BTCUSDT", "limit": "1000"}, 20),
        ("usdm", "/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": 1500}, 10),
        ("usdm", "/fapi/v1/aggTrades", {"symbol": "BTCUSDT"}, 20),
        ("coinm", "/dapi/v1/premiumIndex", {}, 10),
        ("coinm", "/dapi/v1/premiumIndex", {"pair": "BTCUSD"}, 1),
        ("coinm", "/dapi/v1/whatever", {}, 20),
    ],
)
def test_weights_follow_the_exchanges_tables(market, path, params, weight):
    """Each request costs what the facts sheets say."""
    assert weight_of(market, path, params) == weight
