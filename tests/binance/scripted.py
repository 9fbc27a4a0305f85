"""Small exchanges for the tests of this folder: a WebSocket server that does as it is told, and a REST server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from http import HTTPStatus

from aiohttp import web
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response
from websockets.protocol import State

from bridge.binance.hosts import Hosts
from bridge.core.connection_settings import ConnectionSettings
from bridge.model import Stream
from bridge.telemetry import Telemetry

#: What every test has to sit through is short. What must not run out in a test that is not about it is long,
#: however slow the machine: such a test asks for the short time itself.
QUICK = {
    "tick_seconds": 0.02,
    "open_seconds": 60.0,
    "acknowledgement_seconds": 60.0,
    "close_seconds": 60.0,
    "send_seconds": 60.0,
    "ping_seconds": 12.0,
    "pong_seconds": 60.0,
    "retry_minimum_seconds": 0.01,
    "retry_maximum_seconds": 0.05,
    "settled_seconds": 0.2,
    "overlap_seconds": 0.1,
    "prove_seconds": 60.0,
    "attempts_burst": 1000,
    "spot_control_frames_per_second": 40,
    "market_look_seconds": 0.05,
    "market_grace_seconds": 0.05,
    "learned_minimum_seconds": 60.0,
    "rest_seconds": 60.0,
}


def quick(**changes):
    """Return settings for tests: what has to pass in fractions of a second, what must not run out in minutes."""
    return ConnectionSettings(**{**QUICK, **changes})


def stream(name, *, market="spot", channel="trade", path="", first=60.0, cadence=None):
    """Return a stream of that name."""
    return Stream(market, channel, name, name.split("@")[0].upper(), path, first, cadence)


async def until(condition, seconds=60.0):
    """Wait until ``condition`` holds; fail when it doesn't within the time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition may be waited for
            await asyncio.sleep(0.005)


class Exchange:
    """A WebSocket server of Binance's manners. Its attributes are its faults.

    Attributes:
        url: where it listens.
        statuses: HTTP statuses (or responses) to refuse the next handshakes with.
        sockets: open sockets, oldest first.
        accepted: how many handshakes it completed.
        paths: request targets, in order of arrival.
        requests: control frames received, with the socket's number.
        mute: whether to leave control frames without answer.
        refuse: names to refuse.
        silent: names to acknowledge and never send.
        greet: messages to send to each new socket.
        rate: seconds between two frames of each subscribed stream; None sends none.
        answering: while it is not set, handshakes are left without an answer.
    """

    def __init__(self):
        self.url = ""
        self.statuses = []
        self.sockets = []
        self.accepted = 0
        self.paths = []
        self.requests = []
        self.mute = False
        self.refuse = set()
        self.silent = set()
        self.greet = []
        self.rate = 0.02
        self.answering = asyncio.Event()
        self.answering.set()
        self.number = 0

    async def __aenter__(self):
        self._server = await serve(
            self._carry,
            "127.0.0.1",
            0,
            process_request=self._request,
            ping_interval=None,
            compression="deflate",
        )
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        for socket in self.sockets:
            socket.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    @property
    def hosts(self):
        """Return hosts that lead here."""
        return Hosts(stream=self.url, rest="http://127.0.0.1:9", ws_api=None)

    async def send(self, payload, socket=-1):
        """Send bytes as one text message."""
        await self.sockets[socket].send(payload, text=True)

    async def _request(self, connection, request):
        self.paths.append(request.path)
        self.last_request = request
        await self.answering.wait()
        if self.statuses:
            refusal = self.statuses.pop(0)
            return (
                refusal if isinstance(refusal, Response) else connection.respond(HTTPStatus(refusal), "no\n")
            )
        return None

    async def _carry(self, socket):
        self.accepted += 1
        self.sockets.append(socket)
        subscribed = []
        feeding = asyncio.get_running_loop().create_task(self._feed(socket, subscribed))
        try:
            for payload in self.greet:
                await socket.send(payload, text=True)
            async for text in socket:
                request = json.loads(text)
                self.requests.append((self.accepted, request))
                if not self.mute:
                    await socket.send(json.dumps(self._answer(request, subscribed)))
        except ConnectionClosed:
            pass
        finally:
            feeding.cancel()
            with contextlib.suppress(ValueError):
                self.sockets.remove(socket)

    def _answer(self, request, subscribed):
        names = request["params"]
        if self.refuse & set(names):
            return {"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": request["id"]}
        if request["method"] == "SUBSCRIBE":
            subscribed += [name for name in names if name not in subscribed]
        else:
            subscribed[:] = [name for name in subscribed if name not in names]
        return {"result": None, "id": request["id"]}

    async def _feed(self, socket, subscribed):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(self.rate or 0.02)
                for name in list(subscribed):
                    gone = socket.state is not State.OPEN or socket.transport.is_closing()
                    if self.rate is not None and name not in self.silent and not gone:
                        self.number += 1
                        await socket.send(frame(name, t=self.number), text=True)


def frame(name, **data):
    """Return a combined-stream message."""
    return json.dumps({"stream": name, "data": data}, separators=(",", ":")).encode()


class Pipeline:
    """A ``Receive`` that keeps everything and does what the real one promises: count, and note activity."""

    def __init__(self):
        self.calls = []
        self.legs = []

    def __call__(self, leg, received_at, payloads):
        self.calls.append((leg, received_at, list(payloads)))
        if leg not in self.legs:
            self.legs.append(leg)
        for payload in payloads:
            leg.next_sequence += 1
            state = leg.streams.get(payload[11:].partition(b'"')[0])
            if state is not None:
                state.frames += 1
                state.first_received_at = state.first_received_at or received_at
                state.last_received_at = received_at

    @property
    def payloads(self):
        """Return all messages in order of arrival."""
        return [payload for _, _, payloads in self.calls for payload in payloads]

    def numbers(self):
        """Return the numbers of all data frames in order of arrival."""
        return [json.loads(one)["data"]["t"] for one in self.payloads if one.startswith(b'{"stream":"')]


class Hands:
    """A clock whose hands the test moves on: what it says has passed passes at once, and nothing else does."""

    def __init__(self):
        self.passed = 0.0

    def __call__(self):
        return time.monotonic() + self.passed


class Story:
    """A telemetry and everything it was told."""

    def __init__(self):
        self.telemetry = Telemetry()
        self.events = []
        self.telemetry.listeners["test"] = self.events.append

    def told(self, event):
        """Return the events of that name so far."""
        return [one for one in self.events if one.event == event]

    def names(self):
        """Return the names of all events so far."""
        return [one.event for one in self.events]

    def metric(self, name, **labels):
        """Return a metric's value, without the prefix."""
        return self.telemetry.registry.get_sample_value(f"binance_bridge_{name}", labels)


@contextlib.asynccontextmanager
async def rest_server(handler):
    """Serve ``handler`` (request to response) on every path; yield the base URL."""

    async def answer(request):
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def raw_server(handler):
    """Serve raw TCP with ``handler(reader, writer)``; yield the port; nothing is left open afterwards."""
    writers = []

    async def serve_one(reader, writer):
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn
        await asyncio.sleep(0)
