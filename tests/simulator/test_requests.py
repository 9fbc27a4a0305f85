"""REST, the WebSocket API and the control endpoint over real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.simulator.conftest import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.simulator.conftest import Wire

    Start = Callable[..., AbstractAsyncContextManager[Wire]]


async def _get(wire: Wire, market: str, path: str) -> tuple[int, Any, Any]:
    """Return status, JSON and headers."""
    base = wire.simulator.endpoints[market]["rest"]
    async with aiohttp.ClientSession() as session, session.get(base + path) as response:
        return response.status, await response.json(), response.headers


async def test_rest_passes_path_and_parameters(start: Start) -> None:
    """The exchange sees the path and the decoded parameters, and its body comes as it is."""
    async with start() as wire:
        status, body, headers = await _get(wire, "usdm", "/fapi/v1/depth?symbol=%E5%B8%81USDT&limit=5")
    assert (status, body) == (200, {"path": "/fapi/v1/depth", "symbol": "币USDT", "limit": "5"})
    assert headers["Content-Type"] == "application/json;charset=UTF-8"


async def test_errors_have_code_and_message(start: Start) -> None:
    """A refused request is a 400 with Binance's code and text, and costs weight."""
    async with start() as wire:
        wire.exchange.weight = 5
        status, body, headers = await _get(wire, "spot", "/api/v3/depth")
    assert (status, body) == (400, {"code": -1121, "msg": "Invalid symbol."})
    assert headers["X-MBX-USED-WEIGHT-1M"] == "5"


async def test_too_much_weight_is_429_then_418(start: Start) -> None:
    """Beyond the minute's weight comes 429 with Retry-After; who goes on gets 418."""
    fixed = {"start_ms": 1_700_000_000_000}
    async with start(fixed, spot_weight=10, refusals_before_ban=2, ban_seconds=77) as wire:
        wire.exchange.weight = 10
        wire.simulator.stop_market()  # exchange time stands still, 20 s after a minute has begun
        replies = [await _get(wire, "spot", "/api/v3/trades") for _ in range(4)]
    assert [status for status, _, _ in replies] == [200, 429, 429, 418]
    assert [body["code"] for _, body, _ in replies[1:]] == [-1003] * 3
    assert [int(headers["Retry-After"]) for _, _, headers in replies[1:]] == [40, 40, 77]


async def test_both_futures_markets_share_one_budget(start: Start) -> None:
    """Weight of USDⓈ-M and COIN-M requests adds up; spot counts for itself."""
    async with start({"start_ms": 1_700_000_000_000}) as wire:
        wire.exchange.weight = 7
        wire.simulator.stop_market()
        await _get(wire, "usdm", "/fapi/v1/time")
        _, _, coinm = await _get(wire, "coinm", "/dapi/v1/time")
        _, _, spot = await _get(wire, "spot", "/api/v3/time")
    assert (coinm["X-MBX-USED-WEIGHT-1M"], spot["X-MBX-USED-WEIGHT-1M"]) == ("14", "7")


@pytest.mark.parametrize("status", [418, 429])
async def test_a_ban_refuses_requests_on_its_market(start: Start, status: int) -> None:
    """A ban fault answers with its status and Retry-After for its seconds, spot's leaving futures alone."""
    async with start() as wire:
        wire.simulator.stop_market()
        wire.simulator.inject({"fault": "ban", "market": "spot", "status": status, "seconds": 20})
        refused = await _get(wire, "spot", "/api/v3/time")
        assert (refused[0], refused[1]["code"]) == (status, -1003)
        assert int(refused[2]["Retry-After"]) == 20
        assert (await _get(wire, "usdm", "/fapi/v1/time"))[0] == 200


WS_API = [
    (
        "spot",
        {"id": 1, "method": "depth", "params": {"symbol": "BTCUSDT", "limit": 5}},
        {"id": 1, "status": 200, "result": {"path": "/api/v3/depth", "symbol": "BTCUSDT", "limit": "5"}},
    ),
    (
        "spot",
        {"id": "x", "method": "v3/ticker.book", "params": {"symbols": ["A", "B"]}},
        {"id": "x", "status": 200, "result": {"path": "/api/v3/ticker/bookTicker", "symbols": '["A", "B"]'}},
    ),
    (
        "usdm",
        {"id": None, "method": "ticker.price"},
        {"id": None, "status": 200, "result": {"path": "/fapi/v1/ticker/price"}},
    ),
    (
        "spot",
        {"id": 2, "method": "depth"},
        {"id": 2, "status": 400, "error": {"code": -1121, "msg": "Invalid symbol."}},
    ),
    (
        "spot",
        {"id": 3, "method": "order.dance"},
        {"id": 3, "status": 400, "error": {"code": -1020, "msg": "This operation is not supported."}},
    ),
    (
        "spot",
        {"id": 4},
        {
            "id": 4,
            "status": 400,
            "error": {
                "code": -1102,
                "msg": "Mandatory parameter 'method' was not sent, was empty/null, or malformed.",
            },
        },
    ),
    (
        "spot",
        [],
        {"id": None, "status": 400, "error": {"code": -1135, "msg": "Invalid JSON Request"}},
    ),
]


async def _call(
    wire: Wire, market: str, *requests: object, query: str = "?returnRateLimits=false"
) -> list[Any]:
    base = wire.simulator.endpoints[market]["ws_api"]
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{base}/ws-api/v3{query}") as socket:
        for request in requests:
            await socket.send_json(request)
        return [await socket.receive_json(timeout=DEADLINE) for _ in requests]


@pytest.mark.parametrize(("market", "request_", "answer"), WS_API)
async def test_the_ws_api_answers_as_rest_does(
    start: Start, market: str, request_: object, answer: object
) -> None:
    """Each method is answered from the REST path of the same data, in the WebSocket API's envelope."""
    async with start() as wire:
        assert await _call(wire, market, request_) == [answer]


async def test_the_ws_api_counts_the_same_weight(start: Start) -> None:
    """A handshake costs 2, a request its weight; REST continues the count; replies show it when wanted."""
    async with start({"start_ms": 1_700_000_000_000}) as wire:
        wire.simulator.stop_market()
        wire.exchange.weight = 5
        shown, hidden = await _call(
            wire,
            "spot",
            {"id": 1, "method": "time"},
            {"id": 2, "method": "time", "params": {"returnRateLimits": False}},
            query="",
        )
        _, _, headers = await _get(wire, "spot", "/api/v3/time")
    assert shown["rateLimits"] == [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000, "count": 7}
    ]
    assert "rateLimits" not in hidden
    assert headers["X-MBX-USED-WEIGHT-1M"] == "17"


async def test_a_ban_drops_ws_api_connections(start: Start) -> None:
    """A banned request is answered 418 with the time to retry at, and the connection is closed."""
    async with start() as wire, aiohttp.ClientSession() as session:
        base = wire.simulator.endpoints["spot"]["ws_api"]
        async with session.ws_connect(base) as socket:
            wire.simulator.stop_market()
            wire.simulator.inject({"fault": "ban", "seconds": 20})
            await socket.send_json({"id": 1, "method": "time"})
            reply = await socket.receive_json(timeout=DEADLINE)
            assert (reply["status"], reply["error"]["code"]) == (418, -1003)
            data = reply["error"]["data"]
            assert data["retryAfter"] - data["serverTime"] == 20_000
            assert (await socket.receive(timeout=DEADLINE)).type is aiohttp.WSMsgType.CLOSE
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(base)
        assert caught.value.status == 418


async def _control(wire: Wire, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    url = f"{wire.simulator.endpoints['http']}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, data=body) as response:
        return response.status, await response.json()


async def test_faults_come_by_http(start: Start) -> None:
    """POST /faults takes one fault or a list: those without a time happen at once, the others later."""
    async with start() as wire, wire.connect("/ws") as socket:
        plan = '[{"fault":"rotate"},{"at":3600,"fault":"drop"}]'
        status, body = await _control(wire, "POST", "/faults", plan)
        assert (status, body["planned"], [fault["connections"] for fault in body["done"]]) == (200, 2, [[1]])
        async with asyncio.timeout(DEADLINE):
            await socket.wait_closed()
        assert socket.close_code == 1001


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("nope", "not JSON"),
        ('{"fault":"dropp"}', "faults[0].fault: 'dropp' is not known; did you mean 'drop'?"),
    ],
)
async def test_wrong_faults_by_http_are_refused(start: Start, body: str, message: str) -> None:
    """A fault that is none is a 400 that says why, and nothing happens."""
    async with start() as wire:
        status, answer = await _control(wire, "POST", "/faults", body)
        assert (status, wire.simulator.state()["faults"]) == (400, [])
    assert message in answer["error"]


async def test_state_shows_connections_and_faults(start: Start) -> None:
    """GET /state tells each connection's streams and messages, events made and faults done."""
    async with start() as wire, wire.connect("/stream?streams=a@trade") as socket:
        wire.exchange.make("spot", "a@trade", 3)
        for _ in range(3):
            await socket.recv()
        _, state = await _control(wire, "GET", "/state")
    (connection,) = state["connections"]
    assert (connection["streams"], connection["messages_sent"], connection["combined"]) == (
        ["a@trade"],
        3,
        True,
    )
    assert (state["events"], state["running"], state["done"], state["failed"]) == (3, True, False, None)


async def test_a_stopped_market_makes_no_events(start: Start) -> None:
    """While the market is stopped exchange time stands still and nothing comes; then it goes on."""
    async with start() as wire, wire.connect("/ws/a@trade") as socket:
        assert await _control(wire, "POST", "/stop-market") == (200, {"running": False, "events": 0})
        before = wire.simulator.clock.now_ms()
        (data,) = wire.exchange.make("spot", "a@trade")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.05)
        assert wire.simulator.clock.now_ms() == before
        resumed = time.monotonic()
        assert await _control(wire, "POST", "/resume") == (200, {"running": True})
        assert await asyncio.wait_for(socket.recv(), DEADLINE) == data
        assert wire.simulator.clock.now_ms() - before <= (time.monotonic() - resumed) * 1000


async def test_flush_writes_the_ground_truth(start: Start, tmp_path: Path) -> None:
    """After GET /flush the file has every event and connection so far."""
    path = tmp_path / "truth.jsonl"
    async with start({"ground_truth": path}) as wire, wire.connect("/ws/a@trade") as socket:
        (data,) = wire.exchange.make("spot", "a@trade")
        await socket.recv()
        assert await _control(wire, "GET", "/flush") == (200, {"events": 1})
        opened, subscribed, event = [json.loads(line) for line in path.read_text().splitlines()]
    assert (opened["connection"], opened["market"], opened["path"]) == ("opened", "spot", "/ws/a@trade")
    assert (subscribed["connection"], subscribed["streams"]) == ("subscribed", ["a@trade"])
    assert event.pop("at_ms") >= opened["at_ms"]
    assert event == {
        "n": 0, "market": "spot", "stream": "a@trade", "first_id": 0, "last_id": 0,
        "event_time": 1700000000000, "data": data,
    }  # fmt: skip


async def test_a_broken_market_is_told(start: Start) -> None:
    """When the market fails, the state says so and whoever waits for the simulator gets the error."""

    async def run() -> None:
        async with start() as wire:
            wire.exchange.advance = lambda until_ms: iter((until_ms // 0,))
            await wire.until(lambda state: "ZeroDivisionError" in str(state["failed"]))
            await wire.simulator.wait()

    with pytest.raises(ZeroDivisionError):
        await run()
