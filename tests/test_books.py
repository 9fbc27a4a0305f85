"""The shell that asks REST for snapshots, against a real HTTP server."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from bridge.binance.clock import Clock
from bridge.binance.hosts import Hosts
from bridge.binance.rest import RestClient
from bridge.books import Books, require_one_speed
from bridge.core.book_sync import Lost, Synced, Wanted
from bridge.errors import ConfigError
from bridge.model import Stream
from tests.binance.scripted import Story, quick, rest_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bridge.model import Market

DEADLINE = 60.0


def stream(symbol: str, market: Market = "spot", speed: str = "@100ms") -> Stream:
    """Return a stream of full-depth changes."""
    return Stream(market, "depth", f"{symbol.lower()}@depth{speed}", symbol, "", 1.0, None)


class Desk:
    """A REST host, the shell that asks it, and what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at: list[float] = []
        self.answers: list[web.Response] = []
        self.open = asyncio.Event()
        self.open.set()
        self.under_way = self.most = 0
        self.books: Any = None
        self.changed = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.Response:
        """Answer as told, else with an empty book."""
        self.asked.append(request.path_qs)
        self.at.append(time.monotonic())
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.changed.set()
        try:
            await self.open.wait()
        finally:
            self.under_way -= 1
        return (
            self.answers.pop(0)
            if self.answers
            else web.Response(body=b'{"lastUpdateId":1,"bids":[],"asks":[]}')
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self.changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), 0.02)


@asynccontextmanager
async def desk(now: Callable[[], float] = time.time) -> AsyncIterator[Desk]:
    """Run the shell against a host."""
    host = Desk()
    async with rest_server(host) as base:
        hosts = Hosts(stream="ws://127.0.0.1:9", rest=base, ws_api=None)
        async with RestClient(
            {"spot": hosts, "usdm": hosts, "coinm": hosts},
            Story().telemetry,
            quick(),
            clock=Clock(micros=lambda: int(now() * 1_000_000)),
        ) as rest:
            host.books = Books(rest, depth=1000, weight_share=0.5, busy=lambda _: 0, now=now)
            task = asyncio.ensure_future(host.books.run())
            try:
                yield host
            finally:
                host.open.set()
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def test_wanted_snapshots_are_asked_for() -> None:
    """Each by its market's own path, with the levels that the market gives."""
    async with desk() as host:
        for symbol in "ABC":
            host.books.happened(stream(symbol), Wanted("the stream has begun", "first"))
        host.books.happened(stream("币安USDT", "usdm"), Wanted("a hole", "resync"))
        host.books.happened(stream("D"), Lost("a hole", 1))
        assert host.books.waiting == 4
        await host.until(lambda: host.books.waiting == 0)
    assert sorted(host.asked) == [
        "/api/v3/depth?symbol=A&limit=1000",
        "/api/v3/depth?symbol=B&limit=1000",
        "/api/v3/depth?symbol=C&limit=1000",
        "/fapi/v1/depth?symbol=%E5%B8%81%E5%AE%89USDT&limit=1000",
    ]


async def test_a_few_are_asked_for_at_once() -> None:
    """The others wait, and one that has joined meanwhile is not asked for at all."""
    async with desk() as host:
        host.open.clear()
        for n in range(20):
            host.books.happened(stream(f"S{n}"), Wanted("the stream has begun", "first"))
        await host.until(lambda: host.under_way == 6)
        host.books.happened(stream("S19"), Synced(1, 1, 1, 0, refreshed=False))
        host.open.set()
        await host.until(lambda: host.books.waiting == 0)
        assert host.most == 6
        assert len(host.asked) == 19


async def test_refused_request_is_made_again() -> None:
    """An error of the exchange costs a pause, and is told."""
    async with desk() as host:
        host.answers.append(web.Response(status=400, body=b'{"code":-1121,"msg":"Invalid symbol."}'))
        host.books.happened(stream("A"), Wanted("the stream has begun", "first"))
        await host.until(lambda: len(host.asked) == 2 and host.books.waiting == 0)
    assert host.at[1] - host.at[0] >= 0.5


async def test_a_ban_is_sat_out() -> None:
    """418 holds all that the family of hosts is wanted for, as long as it says; others go on."""
    passed = 0.0
    async with desk(lambda: 1_700_000_000.0 + passed) as host:
        host.answers.append(web.Response(status=418, headers={"Retry-After": "9"}, body=b'{"code":-1003}'))
        host.books.happened(stream("A"), Wanted("the stream has begun", "first"))
        await host.until(lambda: host.books.estimate_seconds() > 8)
        host.books.happened(stream("B"), Wanted("the stream has begun", "first"))
        host.books.happened(stream("C", "usdm"), Wanted("the stream has begun", "first"))
        await host.until(lambda: host.books.waiting == 2)
        passed = 8.0
        host.books.happened(stream("D", "usdm"), Wanted("the stream has begun", "first"))
        await host.until(lambda: host.books.waiting == 2)
        assert ["/fapi/" in path for path in host.asked] == [False, True, True]
        passed = 10.0
        host.books.happened(stream("E", "usdm"), Wanted("the stream has begun", "first"))
        await host.until(lambda: host.books.waiting == 0)
    assert sorted(host.asked[3:]) == [
        "/api/v3/depth?symbol=A&limit=1000",
        "/api/v3/depth?symbol=B&limit=1000",
        "/fapi/v1/depth?symbol=E&limit=1000",
    ]


async def test_how_long_it_will_take_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A second after the first wish, for those that are still waiting."""
    caplog.set_level(logging.INFO, "bridge")
    async with desk() as host:
        host.open.clear()
        for n in range(70):
            host.books.happened(stream(f"S{n}"), Wanted("the stream has begun", "first"))
        await host.until(lambda: "wait for a snapshot" in caplog.text)
        assert host.books.waiting == 70
    assert "70 order books wait for a snapshot; the last will be asked for in about" in caplog.text


def test_one_speed_of_a_symbol() -> None:
    """Two chains of changes under one key could not be told apart."""
    require_one_speed("spot", [stream("A"), stream("B"), stream("A")])
    with pytest.raises(ConfigError, match="spot: a@depth@100ms and a@depth are both subscribed to"):
        require_one_speed("spot", [stream("A"), stream("B"), stream("A", speed="")])
    partial = Stream("spot", "partial-depth", "a@depth5", "A", "", 1.0, None)
    require_one_speed("spot", [stream("A"), partial])
