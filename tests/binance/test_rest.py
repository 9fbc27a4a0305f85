import asyncio
import itertools

import pytest
from aiohttp import web

from bridge.binance.clock import Clock
from bridge.binance.hosts import Hosts
from bridge.binance.market_look import MarketLook
from bridge.binance.rest import RestClient
from bridge.errors import ConnectionLost, RateLimited, RequestRefused, UnexpectedMessage
from tests.binance.scripted import Story, quick, rest_server, stream

MINUTE_MICROS = 1_700_000_040_000_000


class Host:
    """A REST host that answers from a list, and remembers what was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def __call__(self, request):
        self.asked.append(request.path_qs)
        self.headers = request.headers
        answer = self.answers.pop(0) if self.answers else web.Response(body=b"{}")
        return await answer(request) if callable(answer) else answer


def client(base, story, now=None, **changes):
    """Return a client whose every market is at ``base``."""
    hosts = Hosts(stream="ws://127.0.0.1:9", rest=base, ws_api=None)
    clock = Clock(micros=now) if now else None
    markets = {"spot": hosts, "usdm": hosts, "coinm": hosts}
    return RestClient(markets, story.telemetry, quick(**changes), clock=clock, random=lambda: 0.0)


async def test_the_body_is_exact_and_published_before_it_is_returned():
    """Bytes as received, with path and encoded query, go to the hook and to the caller."""
    body = '{"币安":"1.50000000" , "n":1}\n'.encode()
    host, story, seen = Host(web.Response(body=body)), Story(), []
    async with rest_server(host) as base, client(base, story) as rest:
        rest.on_reply = lambda *told: seen.append(told)
        reply = await rest.get(
            "spot", "/api/v3/depth", {"symbol": "币安USDT", "symbols": '["A","B"]', "limit": 5}
        )
    query = "/api/v3/depth?symbol=%E5%B8%81%E5%AE%89USDT&symbols=%5B%22A%22%2C%22B%22%5D&limit=5"
    assert (reply.status, reply.body) == (200, body)
    assert host.asked == [query]
    ((market, path, received_at, published),) = seen
    assert (market, path, published) == ("spot", query, body)
    assert received_at > 1_600_000_000_000_000
    assert story.metric("requests_resolved_total", market="spot") == 1


async def test_the_used_weight_of_the_header_holds_requests_back():
    """What the exchange says is used counts, and is shown; a full minute is not waited for longer than allowed."""
    full = web.Response(body=b"{}", headers={"X-MBX-USED-WEIGHT-1M": "5399"})
    host, story = Host(full), Story()
    now = MINUTE_MICROS + 1_000_000
    async with rest_server(host) as base, client(base, story, lambda: now, rest_wait_seconds=5) as rest:
        await rest.get("spot", "/api/v3/time")
        assert story.metric("request_weight_used", market="spot") == 5399
        with pytest.raises(RateLimited) as raised:
            await rest.get("spot", "/api/v3/depth", {"symbol": "BTCUSDT"})
        await rest.get("usdm", "/fapi/v1/time")
    assert 58 < raised.value.retry_after < 60
    assert len(host.asked) == 2


async def test_requests_wait_for_the_next_minute():
    """With room due soon, the request waits for it and then goes."""
    host, story = Host(web.Response(body=b"{}", headers={"X-MBX-USED-WEIGHT-1M": "5400"})), Story()
    micros = itertools.chain([MINUTE_MICROS + 59_990_000] * 6, itertools.repeat(MINUTE_MICROS + 60_600_000))
    async with rest_server(host) as base, client(base, story, lambda: next(micros)) as rest:
        await rest.get("spot", "/api/v3/time")
        await asyncio.wait_for(rest.get("spot", "/api/v3/time"), 60)
    assert len(host.asked) == 2


async def test_limits_come_from_exchange_info():
    """The budget follows the exchange's own statement, which both futures markets share."""
    info = b'{"rateLimits":[{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","intervalNum":1,"limit":1234}]}'
    async with rest_server(Host(web.Response(body=info))) as base, client(base, Story()) as rest:
        await rest.get("usdm", "/fapi/v1/exchangeInfo")
        assert {name: budget.limit for name, budget in rest.budgets.items()} == {
            "spot": 6000,
            "futures": 1234,
        }


async def test_a_long_429_is_told_and_holds_everyone():
    """The error carries how long; the next request doesn't even leave."""
    host, story = Host(web.Response(status=429, headers={"Retry-After": "171"})), Story()
    async with rest_server(host) as base, client(base, story) as rest:
        with pytest.raises(RateLimited) as raised:
            await rest.get("usdm", "/fapi/v1/trades", {"symbol": "BTCUSDT"})
        assert (raised.value.retry_after, raised.value.banned) == (171, False)
        with pytest.raises(RateLimited):
            await rest.get("coinm", "/dapi/v1/time")
        await rest.get("spot", "/api/v3/time")
    assert len(host.asked) == 2
    assert "request.rejected" in story.names()


async def test_a_short_429_is_waited_out():
    """Within the patience of the settings the request is made again after the time the exchange named."""
    host = Host(web.Response(status=429, headers={"Retry-After": "1"}))
    micros = itertools.chain([MINUTE_MICROS] * 4, itertools.repeat(MINUTE_MICROS + 2_000_000))
    async with rest_server(host) as base, client(base, Story(), lambda: next(micros)) as rest:
        reply = await asyncio.wait_for(rest.get("spot", "/api/v3/time"), 60)
    assert reply.status == 200
    assert len(host.asked) == 2


async def test_a_ban_is_never_argued_with():
    """418 ends at once, however short, and holds all requests of its family."""
    host = Host(web.Response(status=418, headers={"Retry-After": "1"}))
    async with rest_server(host) as base, client(base, Story(), lambda: MINUTE_MICROS) as rest:
        for _ in range(2):
            with pytest.raises(RateLimited) as raised:
                await rest.get("spot", "/api/v3/time")
            assert raised.value.banned
    assert len(host.asked) == 1


async def test_a_firewall_is_not_stormed():
    """403 is a refusal, and the next request waits."""
    host = Host(web.Response(status=403, body=b"<html>"))
    async with rest_server(host) as base, client(base, Story(), lambda: MINUTE_MICROS) as rest:
        with pytest.raises(RequestRefused, match="HTTP 403"):
            await rest.get("spot", "/api/v3/time")
        with pytest.raises(RateLimited):
            await rest.get("spot", "/api/v3/time")
    assert len(host.asked) == 1


async def test_5xx_and_broken_answers_are_tried_again():
    """Two failures of the host's side and the third answer counts."""

    async def cut(request):
        request.transport.abort()
        return web.Response()

    host = Host(web.Response(status=503), cut, web.Response(body=b"[1]"))
    async with rest_server(host) as base, client(base, Story()) as rest:
        reply = await rest.get("spot", "/api/v3/trades", {"symbol": "BTCUSDT"})
    assert reply.body == b"[1]"


async def test_attempts_end():
    """A host that only fails is given up, with its last status."""
    host = Host(*[web.Response(status=500, body=b'{"code":-1000,"msg":"boom"}') for _ in range(9)])
    async with rest_server(host) as base, client(base, Story(), rest_attempts=3) as rest:
        with pytest.raises(RequestRefused) as raised:
            await rest.get("spot", "/api/v3/time")
    assert (raised.value.status, raised.value.code) == (500, -1000)
    assert len(host.asked) == 3


async def test_a_slow_answer_is_lost():
    """No answer in time is a lost connection that names the endpoint."""

    async def slow(_request):
        await asyncio.sleep(0.3)
        return web.Response()

    async with (
        rest_server(Host(slow, slow)) as base,
        client(base, Story(), rest_seconds=0.05, rest_attempts=2) as rest,
    ):
        with pytest.raises(ConnectionLost, match=r"spot GET /api/v3/time\(\)"):
            await rest.get("spot", "/api/v3/time")


async def test_a_refusal_names_endpoint_and_parameters_but_no_values():
    """The exchange's code and words are there; the values of the query are not."""
    refusal = web.Response(status=400, body=b'{"code":-1121,"msg":"Invalid symbol."}')
    host, story = Host(refusal), Story()
    async with rest_server(host) as base, client(base, story) as rest:
        with pytest.raises(RequestRefused) as raised:
            await rest.get("spot", "/api/v3/trades", {"symbol": "SECRETVALUE", "signature": "abcdef"})
    assert str(raised.value) == (
        "spot GET /api/v3/trades(symbol, signature): HTTP 400, code -1121: Invalid symbol."
    )
    assert len(host.asked) == 1
    (told,) = story.told("request.rejected")
    assert "abcdef" not in str(told)
    assert story.metric("requests_rejected_total", market="spot") == 1


async def test_an_unreachable_host_is_told_without_its_url():
    """Nobody listening: a lost connection, no query in the text or the chain of causes."""
    async with client("http://127.0.0.1:9", Story(), rest_attempts=1) as rest:
        with pytest.raises(ConnectionLost) as raised:
            await rest.get("spot", "/api/v3/time", {"signature": "abcdef"})
    assert "abcdef" not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_redirects_are_refused():
    """Nobody calls where a redirect points."""
    host = Host(web.Response(status=302, headers={"Location": "/elsewhere"}))
    async with rest_server(host) as base, client(base, Story()) as rest:
        with pytest.raises(RequestRefused, match="HTTP 302"):
            await rest.get("spot", "/api/v3/time")
    assert host.asked == ["/api/v3/time"]


async def test_proxies_of_the_environment_are_ignored(monkeypatch):
    """A proxy variable set by accident changes nothing."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with rest_server(Host()) as base, client(base, Story()) as rest:
        assert (await rest.get("spot", "/api/v3/time")).status == 200


@pytest.mark.parametrize(
    ("one", "asked", "body", "marker"),
    [
        (stream("btcusdt@trade"), "/api/v3/ticker/24hr?symbol=BTCUSDT", b'{"lastId":28460}', 28460),
        (
            stream("btcusdt@depth", channel="depth"),
            "/api/v3/depth?symbol=BTCUSDT&limit=5",
            b'{"lastUpdateId":7,"bids":[]}',
            7,
        ),
        (
            stream("btcusdt@markPrice", market="usdm", channel="mark-price"),
            "/fapi/v1/premiumIndex?symbol=BTCUSDT",
            b'{"symbol":"BTCUSDT","time":1700}',
            1700,
        ),
        (
            stream("btcusd@indexPrice", market="coinm", channel="index-price"),
            "/dapi/v1/premiumIndex?pair=BTCUSD",
            b'[{"symbol":"BTCUSD_PERP","time":1701}]',
            1701,
        ),
        (
            stream("btcusd_perp@trade", market="coinm"),
            "/dapi/v1/ticker/24hr?symbol=BTCUSD_PERP",
            b'[{"lastId":3}]',
            3,
        ),
        (
            stream("!assetIndex@arr", market="usdm", channel="asset-index"),
            "/fapi/v1/time",
            b'{"serverTime":9}',
            9,
        ),
    ],
)
async def test_each_kind_of_stream_has_its_cheapest_look(one, asked, body, marker):
    """Trades by the last trade's id, books by their update id, marks by their time."""
    host = Host(web.Response(body=body))
    async with rest_server(host) as base, client(base, Story()) as rest:
        look = MarketLook(rest, lambda: 0.0, 0.0)
        assert [await look(one), await look(one)] == [marker, marker]
    assert host.asked == [asked]


async def test_a_look_is_fresh_for_a_second_only():
    """The same question later is asked again."""
    host = Host(web.Response(body=b'{"lastId":1}'), web.Response(body=b'{"lastId":2}'))
    times = iter([0.0, 0.0, 5.0, 5.0])
    async with rest_server(host) as base, client(base, Story()) as rest:
        look = MarketLook(rest, lambda: next(times), 0.0)
        assert [await look(stream("a@trade")), await look(stream("a@trade"))] == [1, 2]


async def test_looks_are_spaced():
    """Three questions at once leave one after the other, so that backfill keeps its share."""
    loop, asked_at = asyncio.get_running_loop(), []

    async def answer(_request):
        asked_at.append(loop.time())
        return web.Response(body=b"{}")

    async with rest_server(answer) as base, client(base, Story()) as rest:
        look, began = MarketLook(rest, loop.time, 0.1), loop.time()
        await asyncio.gather(*(look(stream(f"{name}@trade")) for name in "abc"))
    assert [at - began >= least for at, least in zip(asked_at, (0, 0.09, 0.19), strict=True)] == [True] * 3


async def test_what_rest_cannot_tell_is_not_asked():
    """Liquidations come when they come."""
    host = Host()
    async with rest_server(host) as base, client(base, Story()) as rest:
        assert (
            await MarketLook(rest, lambda: 0.0, 0.0)(stream("!forceOrder@arr", channel="liquidation")) is None
        )
    assert host.asked == []


async def test_a_look_at_garbage_is_an_error_of_its_own_kind():
    """HTML with status 200 does not count as movement."""
    async with rest_server(Host(web.Response(body=b"<html>"))) as base, client(base, Story()) as rest:
        with pytest.raises(UnexpectedMessage):
            await MarketLook(rest, lambda: 0.0, 0.0)(stream("a@trade"))
