"""Signed REST: against the simulator's guards, and against hosts that fail."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import parse_qsl

import pytest
from aiohttp import web

from bridge.binance.clock import Clock
from bridge.binance.exchange_clock import ExchangeClock
from bridge.binance.hosts import Hosts
from bridge.binance.rest import RestClient
from bridge.binance.signed_rest import SignedRest
from bridge.core.weight import weight_of
from bridge.errors import RateLimited, RequestRefused, UnexpectedMessage
from tests.binance.private import hasty, key, rig
from tests.binance.scripted import Hands, Story, quick, rest_server, until

MARKETS = ["spot", "usdm", "coinm"]
ENDPOINTS = [
    ("spot", "/api/v3/account", {}),
    ("spot", "/api/v3/openOrders", {}),
    ("spot", "/api/v3/openOrders", {"symbol": "BTCUSDT"}),
    ("spot", "/api/v3/allOrders", {"symbol": "币安人生USDT", "limit": 1000}),
    ("spot", "/api/v3/myTrades", {"symbol": "BTCUSDT", "limit": 1000}),
    ("spot", "/sapi/v1/account/apiRestrictions", {}),
    ("usdm", "/fapi/v3/account", {}),
    ("usdm", "/fapi/v3/balance", {}),
    ("usdm", "/fapi/v3/positionRisk", {}),
    ("usdm", "/fapi/v1/openOrders", {}),
    ("usdm", "/fapi/v1/openAlgoOrders", {}),
    ("usdm", "/fapi/v1/allOrders", {"limit": 1000}),
    ("usdm", "/fapi/v1/userTrades", {"symbol": "BTCUSDT"}),
    ("usdm", "/fapi/v1/allAlgoOrders", {"symbol": "BTCUSDT", "limit": 1000}),
    ("usdm", "/fapi/v1/income", {"limit": 1000, "page": 1}),
    ("coinm", "/dapi/v1/account", {}),
    ("coinm", "/dapi/v1/balance", {}),
    ("coinm", "/dapi/v1/positionRisk", {}),
    ("coinm", "/dapi/v1/openOrders", {"symbol": "BTCUSD_PERP"}),
]


@pytest.mark.parametrize("kind", ["hmac", "ed", "rsa"])
async def test_every_question_of_a_reconciliation_is_let_through(kind):
    """The simulator checks time, key and signature of each, non-ASCII symbols too; enough weight is reserved."""
    async with rig() as found:
        for market, path, params in ENDPOINTS:
            await found.signed.clocks[market].ready()
            budget = found.simulator._desk._budget(market, "127.0.0.1")
            before = budget.used
            reply = await found.signed.get(key(kind), market, path, params)
            assert json.loads(reply.body) is not None
            charged, reserved = budget.used - before, weight_of(market, path, params)
            # the table has the higher weight where both futures markets differ
            assert charged == reserved or (market == "coinm" and charged < reserved), path


async def test_each_attempt_is_signed_anew():
    """A request that is repeated has a time and a signature of its own; the answer tells when the last one left."""
    queries = []

    async def host(request):
        if request.path.endswith("time"):
            return web.json_response({"serverTime": 1_795_305_600_000})
        queries.append(dict(parse_qsl(request.query_string)))
        return web.Response(status=503) if len(queries) == 1 else web.json_response([])

    hands = Hands()
    async with rest_server(host) as base:
        signed, rest = _signed(base, clock=Clock(monotonic=hands))
        async with rest:
            await signed.clocks["spot"].ready()
            asking = asyncio.ensure_future(signed.get(key(), "spot", "/api/v3/openOrders", {"symbol": "A"}))
            await until(lambda: queries)
            hands.passed += 7.0
            reply = await asking
    first, second = queries
    assert int(second["timestamp"]) - int(first["timestamp"]) >= 7000
    assert first["signature"] != second["signature"]
    assert second["recvWindow"] == "5000"
    # By half of the way to the exchange and back: it must not be later than it was there.
    assert reply.asked_at // 1000 <= int(second["timestamp"])
    assert reply.asked_at > int(second["timestamp"]) * 1000 - 60_000_000


def _signed(base, story=None, clock=None, own=None):
    hosts = {market: Hosts("ws://127.0.0.1:9", base, None) for market in MARKETS}
    story = story or Story()
    rest = RestClient(hosts, story.telemetry, quick(), random=lambda: 0.0)
    return SignedRest(rest, own or hasty(), story.telemetry, clock), rest


@pytest.mark.parametrize("market", MARKETS)
async def test_a_time_that_is_refused_is_measured_anew(market):
    """-1021 costs one more measurement and one more request; a second one is told."""
    async with rig() as found:
        path = {"spot": "/api/v3/account", "usdm": "/fapi/v3/balance", "coinm": "/dapi/v1/balance"}[market]
        await found.signed.get(key(), market, path)
        found.fault("clock-skew", milliseconds=-20_000)
        await found.signed.get(key(), market, path)
        assert -21 < found.signed.clocks[market].offset_seconds < -19
        found.signed.timing = lambda _: {"timestamp": 1}
        with pytest.raises(RequestRefused) as refused:
            await found.signed.get(key(), market, path)
        assert refused.value.code == -1021


async def test_the_clock_is_measured_once_for_all_who_wait():
    """Many accounts that find their time refused together cause one measurement, of as many samples as are set."""
    asked = []

    async def host(request):
        asked.append(request.path)
        return web.json_response({"serverTime": 1_795_305_600_000})

    story = Story()
    async with rest_server(host) as base:
        signed, rest = _signed(base, story, own=hasty(clock_samples=3))
        async with rest:
            await asyncio.gather(*(signed.clocks["usdm"].measure() for _ in range(20)))
    assert asked == ["/fapi/v1/time"] * 3
    offset = story.metric("clock_offset_seconds", market="usdm")
    assert offset == pytest.approx(signed.clocks["usdm"].offset_seconds, abs=60)


async def test_an_old_measurement_is_made_anew_and_a_wall_clock_that_steps_is_nothing():
    """Time goes on by the monotonic clock; after some minutes it is measured again."""
    asked = []

    async def host(request):
        asked.append(request.path)
        return web.json_response({"serverTime": 1_000_000})

    hands, wall = Hands(), [5_000_000]
    async with rest_server(host) as base:
        _, rest = _signed(base)
        async with rest:
            clock = ExchangeClock(
                rest, "spot", hasty(clock_seconds=100.0), Story().telemetry, Clock(hands, lambda: wall[0])
            )
            assert clock.now_micros() == 5_000_000  # ours, before anything is known
            await clock.ready()
            before = clock.now_micros()
            wall[0] += 3_600_000_000
            hands.passed += 50
            await clock.ready()
            assert 50_000_000 <= clock.now_micros() - before < 110_000_000
            assert len(asked) == 1
            hands.passed += 60
            await clock.ready()
    assert len(asked) == 2


async def test_a_host_without_time_is_an_error():
    """An answer that is no time is told as such, and nothing is signed by a guess."""

    async def host(request):
        return web.json_response({"serverTime": "soon"})

    async with rest_server(host) as base:
        signed, rest = _signed(base)
        async with rest:
            with pytest.raises(UnexpectedMessage, match="/api/v3/time: the answer is no time"):
                await signed.get(key(), "spot", "/api/v3/account")


@pytest.mark.parametrize("market", ["usdm", "coinm"])
async def test_listen_keys_are_made_kept_and_ended(market):
    """Making one again gives the same; one that was ended can't be kept; it does not show when printed."""
    async with rig() as found:
        made = await found.signed.create_listen_key(key(), market)
        assert await found.signed.create_listen_key(key(), market) == made
        assert await found.signed.keep_listen_key(key(), market) == made
        assert made.get_secret_value() not in repr(made)
        await found.signed.close_listen_key(key(), market)
        with pytest.raises(RequestRefused) as refused:
            await found.signed.keep_listen_key(key(), market)
        assert refused.value.code == -1125
        assert await found.signed.create_listen_key(key(), market) != made


async def test_permissions_are_asked_for():
    """What the key may do, as the exchange says."""
    async with rig() as found:
        permissions = await found.signed.permissions(key("ed"))
        assert (permissions.enable_reading, permissions.excess()) == (True, ())
        found.simulator.accounts.named("main").keys["ed"].permissions.add("withdrawals")
        assert (await found.signed.permissions(key("ed"))).excess() == ("enableWithdrawals",)


async def test_a_ban_holds_private_requests_too():
    """Private and public requests share the weight of the IP, and its ban."""
    async with rig() as found:
        found.fault("ban", status=418, seconds=60)
        with pytest.raises(RateLimited):
            await found.rest.get("spot", "/api/v3/time")
        with pytest.raises(RateLimited) as held:
            await found.signed.get(key(), "spot", "/api/v3/account")
        assert held.value.banned
