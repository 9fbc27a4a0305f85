"""Each fault does what it says, to whom it says."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bridge.errors import ConfigError
from tests.simulator.conftest import DEADLINE, ask, receive

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from websockets.asyncio.client import ClientConnection

    from tests.simulator.conftest import Wire

    Start = Callable[..., AbstractAsyncContextManager[Wire]]


async def _end(socket: ClientConnection) -> ConnectionClosed:
    """Return how the connection ended; no further message may come before."""
    with pytest.raises(ConnectionClosed) as caught:
        await receive(socket)
    return caught.value


def _port(endpoints: Any) -> int:
    return int(endpoints["stream"].rpartition(":")[2])


def _events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_drop_aborts_without_a_close_frame(start: Start) -> None:
    """A dropped connection ends without a closing handshake, and only the one."""
    async with start() as wire, wire.connect("/ws") as one, wire.connect("/ws/a@trade", "coinm") as other:
        assert wire.simulator.inject({"fault": "drop", "market": "spot"})["connections"] == [1]
        end = await _end(one)
        assert end.rcvd is None
        (data,) = wire.exchange.make("coinm", "a@trade")
        assert await receive(other) == data


async def test_a_pattern_chooses_who_carries_the_stream(start: Start) -> None:
    """With a stream pattern a fault hits a connection that carries such a stream."""
    async with start() as wire, wire.connect("/ws/a@trade"), wire.connect("/ws/b@depth") as two:
        hit = wire.simulator.inject({"fault": "drop", "stream": "*@depth*", "count": "all"})
        assert hit["connections"] == [2]
        await _end(two)


async def test_the_seed_chooses_the_connection(start: Start) -> None:
    """The same seed hits the same connections in the same order, another seed others."""

    async def hits(seed: int) -> list[object]:
        async with start({"seed": seed}) as wire:
            sockets = [await wire.connect("/ws") for _ in range(8)]
            found = [wire.simulator.inject({"fault": "stall"})["connections"] for _ in range(6)]
            for socket in sockets:
                socket.transport.abort()
            return found

    assert await hits(1) == await hits(1) != await hits(2)


async def test_half_open_is_silent_and_deaf(start: Start) -> None:
    """A half-open connection gets nothing and answers nothing, not even pings, and is not closed."""
    async with start() as wire, wire.connect("/ws/a@trade") as lost, wire.connect("/ws/a@trade") as fine:
        wire.simulator.inject({"fault": "half-open", "stream": "a@trade", "count": 1})
        broken, whole = (
            (lost, fine) if wire.simulator.state()["connections"][0]["healthy"] is False else (fine, lost)
        )
        pong = await broken.ping()
        await broken.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        for _ in range(3):
            (data,) = wire.exchange.make("spot", "a@trade")
            assert await receive(whole) == data
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(broken.recv(), 0.1)
        assert not pong.done()
        assert len(wire.simulator.state()["connections"]) == 2
        broken.transport.abort()
        await wire.until(lambda state: len(state["connections"]) == 1)


async def test_half_open_is_reset_in_the_end(start: Start) -> None:
    """After its seconds a half-open connection is reset."""
    async with start() as wire, wire.connect("/ws") as socket:
        wire.simulator.inject({"fault": "half-open", "seconds": 0.05})
        assert (await _end(socket)).rcvd is None


async def test_stall_holds_frames_then_sends_them(start: Start) -> None:
    """A stalled connection gets nothing for its seconds and then everything in order."""
    async with start() as wire, wire.connect("/ws/a@trade") as socket:
        before = asyncio.get_running_loop().time()
        wire.simulator.inject({"fault": "stall", "seconds": 0.3})
        sent = wire.exchange.make("spot", "a@trade", 20)
        assert [await receive(socket) for _ in sent] == sent
        assert asyncio.get_running_loop().time() - before > 0.29


@pytest.mark.parametrize(
    ("fault", "order"),
    [
        ({"fault": "duplicate", "count": 2}, [0, 0, 1, 1, 2, 3, 4, 5]),
        ({"fault": "reorder", "count": 1}, [1, 0, 2, 3, 4, 5]),
        ({"fault": "skip", "count": 2}, [2, 3, 4, 5]),
    ],
)
async def test_event_faults_change_what_is_sent_but_not_the_truth(
    start: Start, tmp_path: Path, fault: dict[str, Any], order: list[int]
) -> None:
    """Duplicate, reorder and skip show on the wire; the ground truth has each event once, and the touched."""
    path = tmp_path / "truth.jsonl"
    async with start({"ground_truth": path}) as wire, wire.connect("/ws/a@trade") as socket:
        wire.simulator.inject(fault)
        made = wire.exchange.make("spot", "a@trade", 6)
        got = [await receive(socket) for _ in order]
    assert got == [made[number] for number in order]
    lines = _events(path)
    assert [line["data"] for line in lines if "n" in line] == made
    touched = [line["event"] for line in lines if line.get("fault") == fault["fault"] and "event" in line]
    assert len(touched) == fault["count"]


async def test_mute_silences_an_acknowledged_stream(start: Start) -> None:
    """A muted stream is acknowledged and silent for everyone, later subscribers too; others go on."""
    async with start() as wire, wire.connect("/ws/a@trade/b@trade") as socket:
        assert wire.simulator.inject({"fault": "mute", "stream": "a@*"})["muted"] == ["spot:a@trade"]
        async with wire.connect("/ws") as later:
            assert await ask(later, "SUBSCRIBE", ["a@trade", "b@trade"]) == {"result": None, "id": 1}
            wire.exchange.make("spot", "a@trade", 3)
            (data,) = wire.exchange.make("spot", "b@trade")
            assert await receive(socket) == data
            assert await receive(later) == data


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "upstream connect error or disconnect/reset before headers"),
        ("truncated", '{"stream":"btcusdt@trade","data":{"e":"trade","E":17953056'),
        ("unknown-event", '{"stream":"btcusdt@somethingNew","data":{"e":"somethingNew",'),
        ("binary", b"\x00\xff\xfe\x01\x80\xc1"),
    ],
)
async def test_garbage_is_one_bad_message(start: Start, kind: str, message: str | bytes) -> None:
    """Garbage is one message that no stream promises; the connection goes on."""
    async with start() as wire, wire.connect("/ws/a@trade") as socket:
        wire.simulator.inject({"fault": "garbage", "kind": kind})
        assert (await receive(socket))[: len(message)] == message
        (data,) = wire.exchange.make("spot", "a@trade")
        assert await receive(socket) == data


async def test_oversize_is_beyond_16_mib(start: Start) -> None:
    """An oversize message is more than 16 MiB."""
    async with start() as wire, wire.connect("/ws") as socket:
        wire.simulator.inject({"fault": "oversize"})
        assert len(await receive(socket)) > 16 << 20


async def test_disconnect_mid_frame_leaves_half_a_frame(start: Start) -> None:
    """The TCP connection ends within a frame: its header promises more than came."""
    async with start() as wire:
        reader, writer = await asyncio.open_connection("127.0.0.1", _port(wire.simulator.endpoints["spot"]))
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        wire.simulator.inject({"fault": "disconnect-mid-frame"})
        async with asyncio.timeout(DEADLINE):
            frame = await reader.read(-1)
        assert frame[0] == 0x81
        assert 0 < len(frame) - 2 < frame[1]
        writer.close()


async def test_rotate_closes_normally(start: Start) -> None:
    """A rotated connection is closed with a close frame, as after 24 hours."""
    async with start() as wire, wire.connect("/ws") as socket:
        wire.simulator.inject({"fault": "rotate"})
        end = await _end(socket)
        assert end.rcvd is not None
        assert end.rcvd.code == 1001


async def test_shutdown_is_announced_everywhere_then_closes(start: Start) -> None:
    """Raw, combined and WebSocket API connections each get the event in their own shape, then the close."""
    async with start() as wire, wire.connect("/ws") as raw, wire.connect("/stream") as combined:
        async with aiohttp.ClientSession() as session:
            url = wire.simulator.endpoints["spot"]["ws_api"]
            async with session.ws_connect(f"{url}/ws-api/v3") as api:
                await api.send_json({"id": 1, "method": "ping"})
                assert (await api.receive_json(timeout=DEADLINE))["status"] == 200
                wire.simulator.inject({"fault": "shutdown", "seconds": 0.05})
                assert list(await api.receive_json(timeout=DEADLINE)) == ["event"]
                assert (await api.receive(timeout=DEADLINE)).type is aiohttp.WSMsgType.CLOSE
        assert json.loads(await receive(raw))["e"] == "serverShutdown"
        assert json.loads(await receive(combined))["stream"] == "!serverShutdown"
        assert (await _end(raw)).rcvd is not None
        assert (await _end(combined)).rcvd is not None


async def test_expired_keys_are_told_to_private_streams_alone(start: Start) -> None:
    """Private connections learn that their key expired; public ones are left in peace."""
    key = "k" * 64
    async with start() as wire, wire.connect(f"/private/ws/{key}", "usdm") as private, wire.connect("/ws"):
        assert wire.simulator.inject({"fault": "expire-keys"})["connections"] == [1]
        event = json.loads(await receive(private))
        assert (event["e"], event["listenKey"]) == ("listenKeyExpired", key)
        assert key not in json.dumps(wire.simulator.state())


async def test_rejected_subscriptions_are_errors_for_a_while(start: Start) -> None:
    """So many SUBSCRIBEs are answered with an error and add nothing; other methods work on."""
    async with start() as wire, wire.connect("/ws") as socket:
        wire.simulator.inject({"fault": "reject-subscriptions", "count": 1})
        assert await ask(socket, "LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}
        refused = {"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": 1}
        assert await ask(socket, "SUBSCRIBE", ["a@trade"]) == refused
        assert await ask(socket, "LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}
        assert await ask(socket, "SUBSCRIBE", ["a@trade"]) == {"result": None, "id": 1}


async def test_refused_connections_get_the_status(start: Start) -> None:
    """A handshake is refused with the status that was asked for, on that market alone, so often."""
    async with start() as wire:
        wire.simulator.inject({"fault": "refuse-connections", "market": "usdm", "count": 1, "status": 403})
        async with wire.connect("/ws"):
            pass
        with pytest.raises(InvalidStatus) as caught:
            await wire.connect("/ws", "usdm")
        assert caught.value.response.status_code == 403
        async with wire.connect("/ws", "usdm"):
            pass


async def test_a_plan_runs_by_itself(start: Start) -> None:
    """What the plan says happens at its time, without anyone asking."""
    async with start() as wire, wire.connect("/ws") as socket:
        assert wire.simulator.plan([{"at": 0.05, "fault": "rotate"}]) == 1
        assert (await _end(socket)).rcvd is not None
        assert [fault["fault"] for fault in wire.simulator.state()["faults"]] == ["rotate"]


async def test_a_fault_at_once_takes_no_time(start: Start) -> None:
    """A fault that is injected now refuses to be given a time."""
    async with start() as wire:
        with pytest.raises(ConfigError, match="takes no 'at' or 'every'"):
            wire.simulator.inject({"fault": "drop", "at": 5})
