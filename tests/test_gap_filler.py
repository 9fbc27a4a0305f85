"""The shell that asks REST for what is missing, against a real HTTP server and the pipeline that it fills."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from bridge.binance.hosts import Hosts
from bridge.binance.rest import RestClient
from bridge.gap_filler import GapFiller
from tests.binance.scripted import Story, quick, rest_server, until
from tests.core.test_gap_filling import History

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridge.model import Market


class Desk:
    """A REST host that has the events 1 to ``newest``, and a stream that misses some."""

    def __init__(self) -> None:
        self.bench = History()
        self.newest = 10_000
        self.asked: list[str] = []
        self.answers: list[web.Response] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, request: web.Request) -> web.Response:
        """Answer as told, else with what was asked for."""
        self.asked.append(request.path_qs)
        await self.open.wait()
        if self.answers:
            return self.answers.pop(0)
        first, limit = int(request.query["fromId"]), int(request.query["limit"])
        rows = [self.bench.row(id_) for id_ in range(first, min(first + limit, self.newest + 1))]
        return web.Response(body=json.dumps(rows).encode())

    @property
    def settled(self) -> bool:
        """Whether nothing is open."""
        return self.bench.pipe.gaps.open == 0

    def reason(self) -> str:
        """Return why the newest gap is unrecoverable."""
        return str(self.bench.records("gaps")[-1]["reason"])


@asynccontextmanager
async def desk(attempts: int = 1) -> AsyncIterator[Desk]:
    """Run the shell against the host."""
    host = Desk()
    async with rest_server(host) as base:
        hosts = Hosts(stream="ws://127.0.0.1:9", rest=base, ws_api=None)
        markets = {"spot": hosts, "usdm": hosts, "coinm": hosts}
        async with RestClient(markets, Story().telemetry, quick(rest_attempts=1)) as rest:
            pipe = host.bench.pipe

            def keep(market: Market, endpoint: str, received_at: int, body: bytes) -> None:
                pipe.api_answer(market, endpoint, pipe.answered_at(received_at), body)

            rest.on_reply = keep
            filler = GapFiller(rest, pipe.gaps, weight_share=0.3, attempts=attempts)
            pipe.on_gap = filler.found
            task = asyncio.ensure_future(filler.run())
            try:
                yield host
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                host.open.set()


async def test_gaps_are_filled_as_they_are_found() -> None:
    """A long one page by page, and one found meanwhile."""
    async with desk() as host:
        host.bench.come(1, 1503)
        await until(lambda: len(host.asked) == 2)
        host.bench.come(1505)
        await until(lambda: host.settled)
    assert host.bench.ids("backfill") == [*range(2, 1503), 1504]
    assert host.asked[0] == "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=2&limit=1000"
    assert host.asked[1] == "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1002&limit=501"


async def test_history_that_lags_is_asked_again() -> None:
    """What is not there yet is recovered when it is."""
    async with desk() as host:
        host.newest = 3
        host.bench.come(1, 6)
        await until(lambda: host.bench.ids("backfill") == [2, 3])
        assert host.bench.gaps() == [(2, 3, "filled", 2), (4, 5, "open", 0)]
        host.newest = 9
        await until(lambda: host.settled)
    assert host.bench.ids("backfill") == [2, 3, 4, 5]


async def test_a_refusal_ends_a_gap() -> None:
    """The exchange's own words are the reason; the next gap is asked for all the same."""
    async with desk(attempts=5) as host:
        host.answers.append(web.Response(status=400, body=b'{"code":-4166,"msg":"Search window."}'))
        host.bench.come(1, 3)
        await until(lambda: host.settled)
        assert host.reason().endswith("HTTP 400, code -4166: Search window.")
        host.bench.come(5)
        await until(lambda: host.settled)
    assert host.bench.gaps() == [(2, 2, "unrecoverable", 0), (4, 4, "filled", 1)]


@pytest.mark.parametrize("status", [403, 500])
async def test_errors_use_up_attempts(status: int) -> None:
    """What may pass is tried as often as configured."""
    async with desk(attempts=1) as host:
        host.answers.append(web.Response(status=status, body=b"{}"))
        host.bench.come(1, 3)
        await until(lambda: host.settled)
        assert f"HTTP {status}" in host.reason()


async def test_a_ban_is_sat_out() -> None:
    """418 holds what is asked of the family of hosts, and costs no attempt."""
    async with desk(attempts=1) as host:
        host.answers.append(web.Response(status=418, headers={"Retry-After": "1"}, body=b'{"code":-1003}'))
        host.bench.come(1, 3)
        began = time.monotonic()
        await until(lambda: host.settled)
        assert time.monotonic() - began >= 1.0
    assert host.bench.gaps() == [(2, 2, "filled", 1)]


async def test_an_end_does_not_wait_for_an_answer() -> None:
    """Cancelled while a page is under way, it is gone at once and the gap stays open."""
    async with desk() as host:
        host.open.clear()
        host.bench.come(1, 3)
        await until(lambda: len(host.asked) == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 30, "half of what an answer may take"
    assert host.bench.gaps() == [(2, 2, "open", 0)]
