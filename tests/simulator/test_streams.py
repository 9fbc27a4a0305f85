"""Stream connections over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode

from tests.simulator.conftest import DEADLINE, ask, receive

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from websockets.asyncio.client import ClientConnection

    from tests.simulator.conftest import Wire

    Start = Callable[..., AbstractAsyncContextManager[Wire]]


async def _closed(socket: ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(DEADLINE):
        await socket.wait_closed()
    return socket.close_code, socket.close_reason


async def _drained(socket: ClientConnection) -> int:
    """Return how many messages come before the connection breaks."""
    number = 0
    try:
        while True:
            await receive(socket)
            number += 1
    except ConnectionClosed:
        return number


async def test_raw_and_combined_carry_the_same_payload(start: Start) -> None:
    """A raw connection gets the payload, a combined one the payload in its wrapper, byte for byte."""
    async with (
        start() as wire,
        wire.connect("/ws/a@trade") as raw,
        wire.connect("/stream?streams=a@trade/b@trade") as combined,
    ):
        (a,) = wire.exchange.make("spot", "a@trade")
        (b,) = wire.exchange.make("spot", "b@trade")
        assert await receive(raw) == a
        assert await receive(combined) == f'{{"stream":"a@trade","data":{a}}}'
        assert await receive(combined) == f'{{"stream":"b@trade","data":{b}}}'


async def test_set_property_switches_the_wrapper(start: Start) -> None:
    """A raw connection that sets ``combined`` gets wrapped payloads from then on."""
    async with start() as wire, wire.connect("/ws/a@trade") as socket:
        assert await ask(socket, "SET_PROPERTY", ["combined", True]) == {"result": None, "id": 1}
        (data,) = wire.exchange.make("spot", "a@trade")
        assert await receive(socket) == f'{{"stream":"a@trade","data":{data}}}'


async def test_nothing_comes_after_unsubscribing(start: Start) -> None:
    """After UNSUBSCRIBE the stream is silent and the others go on."""
    async with start() as wire, wire.connect("/ws") as socket:
        await ask(socket, "SUBSCRIBE", ["a@trade", "b@trade"])
        await ask(socket, "UNSUBSCRIBE", ["a@trade"])
        wire.exchange.make("spot", "a@trade")
        (data,) = wire.exchange.make("spot", "b@trade")
        assert await receive(socket) == data
        assert await ask(socket, "LIST_SUBSCRIPTIONS") == {"result": ["b@trade"], "id": 1}


async def test_non_ascii_names_are_echoed(start: Start) -> None:
    """A stream name with Chinese characters works in the URL and in SUBSCRIBE, and is echoed in UTF-8."""
    async with start() as wire, wire.connect("/stream?streams=%E5%B8%81usdt%40trade") as socket:
        (data,) = wire.exchange.make("spot", "币usdt@trade")
        assert await receive(socket) == f'{{"stream":"币usdt@trade","data":{data}}}'


async def test_microseconds_are_per_connection(start: Start) -> None:
    """Only the connection that asked for microseconds gets them."""
    async with (
        start() as wire,
        wire.connect("/ws/a@trade?timeUnit=MICROSECOND") as micro,
        wire.connect("/ws/a@trade") as milli,
    ):
        wire.exchange.make("spot", "a@trade")
        assert json.loads(await receive(micro))["E"] == 1700000000000000
        assert json.loads(await receive(milli))["E"] == 1700000000000


async def test_futures_paths_carry_their_own_streams(start: Start) -> None:
    """Asked on the wrong path a stream is acknowledged and silent; an unrouted URL carries /public alone."""
    asked = ["a@aggTrade", "a@bookTicker"]
    async with (
        start() as wire,
        wire.connect("/public/ws", "usdm") as public,
        wire.connect("/market/ws", "usdm") as market,
        wire.connect("/ws", "usdm") as unrouted,
    ):
        for socket in (public, market, unrouted):
            assert await ask(socket, "SUBSCRIBE", asked) == {"result": None, "id": 1}
            assert await ask(socket, "LIST_SUBSCRIPTIONS") == {"result": asked, "id": 1}
        (trade,) = wire.exchange.make("usdm", "a@aggTrade")
        (ticker,) = wire.exchange.make("usdm", "a@bookTicker")
        assert await receive(market) == trade
        assert await receive(public) == ticker
        assert await receive(unrouted) == ticker


async def test_a_stream_on_the_wrong_path_is_not_tracked(start: Start) -> None:
    """What nobody can receive is no event of the ground truth."""
    async with start() as wire, wire.connect("/public/ws", "usdm") as socket:
        await ask(socket, "SUBSCRIBE", ["a@aggTrade", "a@trade"])
        assert wire.exchange.tracked == {("usdm", "a@trade")}


@pytest.mark.parametrize(
    ("path", "market", "status"),
    [("/nothing", "spot", 404), ("/public/ws", "coinm", 404), ("/ws?timeUnit=x", "spot", 400)],
)
async def test_wrong_urls_are_refused(start: Start, path: str, market: Any, status: int) -> None:
    """A URL that does not exist is refused at the handshake."""
    async with start() as wire:
        with pytest.raises(InvalidStatus) as caught:
            await wire.connect(path, market)
    assert caught.value.response.status_code == status


@pytest.mark.parametrize(("market", "most"), [("spot", 5), ("usdm", 10)])
async def test_too_many_messages_close_the_connection(start: Start, market: Any, most: int) -> None:
    """The sixth message in a second (futures: the eleventh) closes with 1008, the others are answered."""
    async with start() as wire, wire.connect("/ws", market) as socket:
        for number in range(most + 1):
            await socket.send(f'{{"method":"LIST_SUBSCRIPTIONS","id":{number}}}')
        answers = [json.loads(await receive(socket))["id"] for _ in range(most)]
        assert await _closed(socket) == (1008, "Too many requests")
    assert answers == list(range(most))


async def test_pings_and_pongs_count_as_messages(start: Start) -> None:
    """Three pings and three pongs are six messages, one too many for spot."""
    async with start() as wire, wire.connect("/ws") as socket:
        for _ in range(3):
            await socket.ping()
            await socket.pong()
        assert await _closed(socket) == (1008, "Too many requests")


async def test_the_1025th_stream_is_refused(start: Start) -> None:
    """A connection carries 1024 streams; spot keeps them after one too many, futures close."""
    names = [f"s{number}@trade" for number in range(1024)]
    url = "/stream?streams=" + "/".join(names[:500])
    async with start() as wire, wire.connect(url) as spot, wire.connect("/ws", "coinm") as futures:
        for first in (500, 762):
            await ask(spot, "SUBSCRIBE", names[first : first + 262])
        refused = {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 1}
        assert await ask(spot, "SUBSCRIBE", ["one@more"]) == refused
        assert await ask(spot, "SUBSCRIBE", names[:5]) == {"result": None, "id": 1}
        assert await ask(futures, "SUBSCRIBE", names) == {"result": None, "id": 1}
        assert await ask(futures, "SUBSCRIBE", ["one@more"]) == refused
        assert await _closed(futures) == (1008, "Too many subscriptions")


async def test_too_many_connects_are_refused(start: Start) -> None:
    """Beyond the handshakes an address may make, the next is a 429."""
    async with start(connects=2) as wire, wire.connect("/ws"), wire.connect("/ws", "usdm"):
        with pytest.raises(InvalidStatus) as caught:
            await wire.connect("/ws")
    assert caught.value.response.status_code == 429


class Mutes:
    """Drops the pongs a client would send, or changes them."""

    def __init__(self, socket: ClientConnection, payload: bytes | None) -> None:
        self.pings: list[bytes] = []
        original = socket.protocol.send_frame

        def send_frame(frame: Any) -> None:
            if frame.opcode is not Opcode.PONG:
                original(frame)
                return
            self.pings.append(bytes(frame.data))
            if payload is not None:
                frame.data = payload
                original(frame)

        socket.protocol.send_frame = send_frame


@pytest.mark.parametrize("payload", [None, b"", b"1"])
async def test_who_does_not_answer_a_ping_is_disconnected(start: Start, payload: bytes | None) -> None:
    """No pong, or one that does not echo the ping's payload, ends the connection at the deadline."""
    async with start(ping_seconds=0.25, pong_seconds=0.5) as wire, wire.connect("/ws", "usdm") as socket:
        client = Mutes(socket, payload)
        assert await _closed(socket) == (1008, "Pong timeout")
    assert client.pings
    assert all(ping.isdigit() for ping in client.pings)


async def test_who_answers_pings_stays(start: Start) -> None:
    """A client that answers lives on past several deadlines, and its pings carry the time."""
    async with (
        start(ping_seconds=20, pong_seconds=60, futures_messages=100) as wire,
        wire.connect("/ws/a@trade", "coinm") as socket,
    ):
        (client,) = wire.simulator._hub.clients.values()
        for passed in range(21, 211, 21):  # seconds
            wire.simulator._now = lambda passed=passed: asyncio.get_running_loop().time() + passed
            due = client._next_ping
            await wire.until(lambda _, due=due: client._next_ping > due and client._ping is None)
        (data,) = wire.exchange.make("coinm", "a@trade")
        assert await receive(socket) == data


async def test_a_connection_ends_with_its_lifetime(start: Start) -> None:
    """The server closes a connection that has lived its time (24 hours, here less)."""
    async with start(lifetime_seconds=0.2) as wire, wire.connect("/ws") as socket:
        assert (await _closed(socket))[0] == 1001


async def test_a_client_that_does_not_read_is_disconnected(start: Start) -> None:
    """When more waits for a client than the exchange keeps, the connection is cut; others get everything."""
    async with (
        start(buffer_bytes=100_000) as wire,
        wire.connect("/ws/a@trade") as reader,
        wire.connect("/ws/a@trade") as sleeper,
    ):
        sleeper.transport.pause_reading()
        sent: list[str] = []
        while len(wire.simulator.state()["connections"]) == 2:
            batch = wire.exchange.make("spot", "a@trade", 10, f',"x":"{"x" * 20_000}"')
            sent += batch
            assert [await receive(reader) for _ in batch] == batch
        sleeper.transport.resume_reading()
        assert await _drained(sleeper) < len(sent)
