"""A small exchange whose events the test makes, and a simulator around it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import connect

from bridge.simulator import Answer, Emission, Limits, Simulator, SimulatorSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from websockets.asyncio.client import ClientConnection

    from bridge.model import Market

DEADLINE = 60.0


class ScriptedExchange:
    """Has the events that the test gave it; answers every request with its parameters."""

    def __init__(self) -> None:
        self.tracked: set[tuple[str, str]] = set()
        self.weight = 1
        self._waiting: list[Emission] = []
        self._made = 0

    def make(self, market: Market, stream: str, count: int = 1, padding: str = "") -> list[str]:
        """Make events, numbered through; return their payloads."""
        made = []
        for _ in range(count):
            data = f'{{"e":"trade","E":1700000000000,"t":{self._made},"T":1700000000001{padding}}}'
            event = Emission(market, stream, data.encode(), self._made, self._made, 1700000000000)
            self._waiting.append(event)
            made.append(data)
            self._made += 1
        return made

    def advance(self, until_ms: int) -> Iterator[Emission]:
        waiting, self._waiting = self._waiting, []
        yield from (e for e in waiting if (e.market, e.stream) in self.tracked)

    def track(self, market: Market, stream: str) -> bool:
        self.tracked.add((market, stream))
        return True

    def rest(self, market: Market, method: str, path: str, params: Mapping[str, str], now_ms: int) -> Answer:
        if path.endswith("/depth") and "symbol" not in params:
            return Answer(400, b'{"code":-1121,"msg":"Invalid symbol."}', self.weight)
        return Answer(200, json.dumps({"path": path, **params}).encode(), self.weight)


class Wire:
    """A simulator with a scripted exchange, and clients of it."""

    def __init__(self, simulator: Simulator, exchange: ScriptedExchange) -> None:
        self.simulator, self.exchange = simulator, exchange

    def connect(self, path: str, market: Market = "spot", **options: object) -> connect:
        base = self.simulator.endpoints[market]["stream"]
        return connect(
            base + path, proxy=None, compression=None, ping_interval=None, max_size=32 << 20, **options
        )

    async def until(self, condition: Callable[[dict[str, object]], bool]) -> None:
        """Wait until the simulator's state satisfies ``condition``."""
        async with asyncio.timeout(DEADLINE):
            while not condition(self.simulator.state()):  # noqa: ASYNC110 - the state has no event to wait for
                await asyncio.sleep(0.005)


async def ask(socket: ClientConnection, method: str, params: object = None, request_id: object = 1) -> object:
    """Send a control message and return the next message."""
    request = {"method": method, "id": request_id} | ({} if params is None else {"params": params})
    await socket.send(json.dumps(request))
    return json.loads(await receive(socket))


async def receive(socket: ClientConnection) -> str | bytes:
    """Return the next message, soon."""
    async with asyncio.timeout(DEADLINE):
        return await socket.recv()


@pytest.fixture
def start() -> Callable[..., contextlib.AbstractAsyncContextManager[Wire]]:
    """Start simulators; takes settings as a mapping and limits by keyword."""

    @contextlib.asynccontextmanager
    async def starting(settings: dict[str, object] | None = None, **limits: object) -> AsyncIterator[Wire]:
        exchange = ScriptedExchange()
        given = SimulatorSettings(limits=Limits(**limits), tick_seconds=0.001, **(settings or {}))
        async with Simulator(given, exchange) as simulator:
            yield Wire(simulator, exchange)

    return starting
