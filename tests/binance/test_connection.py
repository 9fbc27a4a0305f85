"""One connection over real sockets, with both transports."""

import asyncio
import json

import pytest

from bridge.binance.clock import Clock
from bridge.binance.connection import Connection
from bridge.binance.transport import OpenFailed, opener
from bridge.errors import ConnectionLost
from bridge.model import Leg
from tests.binance.scripted import Exchange, Hands, Pipeline, Story, frame, quick, stream, until


@pytest.fixture(params=["websockets", "picows"])
def transport(request):
    """Both transports."""
    return request.param


@pytest.fixture
async def exchange():
    """An exchange that sends a frame per stream each 20 ms."""
    async with Exchange() as server:
        yield server


class Rig:
    """A connection with everything around it."""

    def __init__(self, exchange, transport, look=None, lifetime=3600.0, clock=None, receive=None, **changes):
        self.story = Story()
        self.pipeline = receive or Pipeline()
        self.leg = Leg(0x1234, "spot")
        self.looked = []
        self.connection = Connection(
            self.leg,
            exchange.hosts.stream_url(""),
            quick(**changes),
            open_transport=opener(transport),
            receive=self.pipeline,
            telemetry=self.story.telemetry,
            look=look or self._look,
            lifetime_seconds=lifetime,
            clock=clock,
        )

    async def _look(self, one):
        self.looked.append(one.name)
        return len(self.looked)


def others():
    """Return the tasks of the connection that still run."""
    return [
        task for task in asyncio.all_tasks() if "connection" in task.get_name() or "picows" in task.get_name()
    ]


async def test_the_life_of_a_connection(exchange, transport):
    """Opened, subscribed, data, closed: in this order, with nothing left behind."""
    rig = Rig(exchange, transport)
    await rig.connection.open([stream("a@trade"), stream("b@trade")])
    await until(lambda: rig.connection.proven)
    view = rig.connection.view()
    assert (view.connection_id, view.state, view.streams) == (
        "0000000000001234",
        "live",
        ("a@trade", "b@trade"),
    )
    assert view.url == exchange.url + "/stream"
    assert view.messages == len(rig.pipeline.payloads) > 0
    assert view.last_received_at >= view.opened_at > 1_600_000_000_000_000
    await rig.connection.close(1000, "done")
    assert rig.story.names() == [
        "connection.opening",
        "connection.started",
        "connection.subscribed",
        "connection.first-message",
        "connection.closed",
    ]
    closed = rig.story.told("connection.closed")[0]
    assert (closed.code, closed.reason, closed.streams) == (1000, "done", ("a@trade", "b@trade"))
    assert closed.last_sequence == closed.messages - 1 == len(rig.pipeline.payloads) - 1
    assert rig.story.metric("connections_open", market="spot") == 0
    assert rig.story.metric("connection_first_update_seconds_count", market="spot") == 1
    assert others() == []


async def test_every_message_goes_to_receive_acknowledgements_and_garbage_included(exchange, transport):
    """Raw is the truth: what the session reads is published all the same, byte for byte and in order."""
    exchange.rate = None
    exchange.greet = [b"\xff\xfe", b"not json", frame("a@trade", t=1)]
    rig = Rig(exchange, transport)
    await rig.connection.open([stream("a@trade")])
    await until(lambda: rig.connection.subscribed)
    await exchange.send(b'{"data":{},"stream":"a@trade"}')
    await until(lambda: len(rig.pipeline.payloads) == 5)
    assert rig.pipeline.payloads == [
        *exchange.greet,
        b'{"result": null, "id": 1}',
        b'{"data":{},"stream":"a@trade"}',
    ]
    await rig.connection.close(1000, "")


async def test_one_call_and_one_stamp_for_each_wake_up(exchange, transport):
    """Many messages that came together carry one time."""
    exchange.rate = None
    stamps = iter(range(1, 10_000))
    rig = Rig(exchange, transport, clock=Clock(micros=lambda: next(stamps)))
    await rig.connection.open([])
    await until(lambda: exchange.sockets)
    for number in range(500):
        await exchange.send(frame("a@trade", t=number))
    await until(lambda: len(rig.pipeline.payloads) == 500)
    assert rig.pipeline.numbers() == list(range(500))
    assert len(rig.pipeline.calls) < 250
    assert len({received_at for _, received_at, _ in rig.pipeline.calls}) == len(rig.pipeline.calls)
    await rig.connection.close(1000, "")


async def test_stream_states_are_there_before_the_subscribe(exchange, transport):
    """The first frame of a stream always finds its state in the leg."""
    seen = []

    def receive(leg, _received_at, payloads):
        seen.extend((payload, set(leg.streams)) for payload in payloads)

    rig = Rig(exchange, transport, receive=receive)
    await rig.connection.open([stream("币安人生usdt@trade")])
    rig.connection.add([stream("b@trade")])
    await until(
        lambda: (
            {json.loads(payload).get("stream") for payload, _ in seen} >= {"b@trade", "币安人生usdt@trade"}
        )
    )
    for payload, known in seen:
        name = json.loads(payload).get("stream")
        assert name is None or name.encode() in known
    await rig.connection.close(1000, "")


async def test_streams_are_added_and_removed_while_it_runs(exchange, transport):
    """Only what changes is sent."""
    rig = Rig(exchange, transport)
    await rig.connection.open([stream("a@trade")])
    await until(lambda: rig.connection.proven)
    rig.connection.add([stream("b@trade")])
    await until(lambda: rig.leg.streams[b"b@trade"].frames > 0)
    rig.connection.remove(["a@trade"])
    await until(lambda: len(exchange.requests) == 3)
    assert [(one["method"], one["params"]) for _, one in exchange.requests] == [
        ("SUBSCRIBE", ["a@trade"]),
        ("SUBSCRIBE", ["b@trade"]),
        ("UNSUBSCRIBE", ["a@trade"]),
    ]
    await rig.connection.close(1000, "")


async def test_a_refused_stream_is_named_and_the_rest_flows(exchange, transport):
    """subscription-rejected names the stream with the exchange's words."""
    exchange.refuse = {"bad@trade"}
    rig = Rig(exchange, transport)
    await rig.connection.open([stream("a@trade"), stream("bad@trade"), stream("c@trade")])
    await until(lambda: rig.connection.proven and rig.connection.subscribed)
    (rejected,) = rig.story.told("connection.subscription-rejected")
    assert (rejected.streams, rejected.code) == (("bad@trade",), 2)
    assert rig.connection.view().streams == ("a@trade", "c@trade")
    await rig.connection.close(1000, "")


async def test_a_peer_that_stops_reading_and_speaking_is_stale_and_cut_off(exchange, transport):
    """No frame, ping or pong after our ping: connection.stale, then closed."""
    exchange.rate = None
    hands = Hands()
    rig = Rig(exchange, transport, clock=Clock(monotonic=hands), ping_seconds=300, pong_seconds=300)
    await rig.connection.open([stream("a@trade", first=3600)])
    await until(lambda: rig.connection.subscribed)
    exchange.sockets[0].transport.pause_reading()

    def closed():
        hands.passed += 10
        return rig.connection.closed.is_set()

    await until(closed)
    await rig.connection.wait_closed()
    assert rig.story.names()[-2:] == ["connection.stale", "connection.closed"]
    assert "no frame, ping or pong" in rig.story.told("connection.closed")[0].reason
    assert others() == []


async def test_our_pings_keep_a_quiet_connection_alive(exchange, transport):
    """Pongs alone are a sign of life."""
    exchange.rate = None
    hands = Hands()
    rig = Rig(exchange, transport, clock=Clock(monotonic=hands), ping_seconds=300, pong_seconds=600)
    await rig.connection.open([])
    for _ in range(5):
        alive_at = rig.leg.alive_at
        hands.passed += 310
        await until(lambda alive_at=alive_at: rig.leg.alive_at > alive_at)
    assert rig.connection.carrying
    await rig.connection.close(1000, "")


async def test_silence_while_the_market_moves_is_told_and_asks_for_rotation(exchange, transport):
    """An acknowledged but silent stream: REST is asked, the stream is told, subscribed again, then replaced."""
    exchange.silent = {"mute@trade"}
    rig = Rig(exchange, transport)
    await rig.connection.open([stream("a@trade"), stream("mute@trade", first=0.1)])
    await until(rig.connection.rotation.is_set)
    assert {told.streams for told in rig.story.told("stream.silent")} == {("mute@trade",)}
    assert len(rig.story.told("stream.silent")) == 2
    assert [one["method"] for _, one in exchange.requests] == ["SUBSCRIBE", "UNSUBSCRIBE", "SUBSCRIBE"]
    assert set(rig.looked) == {"mute@trade"}
    assert rig.connection.deaf == "mute@trade"
    await rig.connection.close(1000, "")


async def test_silence_is_no_fault_while_rest_does_not_answer(exchange, transport):
    """A look that fails is no proof of anything."""
    exchange.silent = {"mute@trade"}
    looked = []

    async def look(one):
        looked.append(one)
        raise ConnectionLost("no REST")

    rig = Rig(exchange, transport, look=look)
    await rig.connection.open([stream("mute@trade", first=0.05)])
    await until(lambda: len(looked) >= 3)
    assert rig.story.told("stream.silent") == []
    await rig.connection.close(1000, "")
    assert others() == []


@pytest.mark.parametrize(
    "shutdown",
    [b'{"e":"serverShutdown","E":1}', b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}'],
)
async def test_server_shutdown_asks_for_rotation(exchange, transport, shutdown):
    """Raw and combined, at once, while the connection carries on."""
    rig = Rig(exchange, transport)
    await rig.connection.open([stream("a@trade")])
    await until(lambda: rig.connection.proven)
    await exchange.send(shutdown)
    await until(rig.connection.rotation.is_set)
    assert rig.connection.rotation_reason == "serverShutdown"
    assert rig.connection.view().state == "rotating"
    assert rig.connection.carrying
    assert shutdown in rig.pipeline.payloads
    await rig.connection.close(1000, "")


async def test_age_asks_for_rotation(exchange, transport):
    """A connection past its lifetime wants to be replaced."""
    rig = Rig(exchange, transport, lifetime=0.1)
    await rig.connection.open([stream("a@trade")])
    await until(rig.connection.rotation.is_set)
    assert "age" in rig.connection.rotation_reason
    await rig.connection.close(1000, "")


async def test_no_answer_to_subscribe_ends_the_connection(exchange, transport):
    """Sent twice, then closed, to be opened anew."""
    exchange.mute = True
    rig = Rig(exchange, transport, acknowledgement_seconds=0.1)
    await rig.connection.open([stream("a@trade")])
    await asyncio.wait_for(rig.connection.wait_closed(), 60)
    assert [one["id"] for _, one in exchange.requests] == [1, 2]
    assert "no answer to SUBSCRIBE" in rig.story.told("connection.closed")[0].reason


async def test_a_handshake_refused_tells_no_start(exchange, transport):
    """A connection that never opened is not counted as open."""
    exchange.statuses = [503]
    rig = Rig(exchange, transport)
    with pytest.raises(OpenFailed):
        await rig.connection.open([stream("a@trade")])
    assert rig.story.names() == ["connection.opening"]
    assert others() == []


async def test_a_server_that_closes_at_once_is_told_as_started_and_closed(exchange, transport):
    """Accept-then-close leaves the count of open connections right."""
    rig = Rig(exchange, transport)
    opening = asyncio.ensure_future(rig.connection.open([stream("a@trade")]))
    await until(lambda: exchange.sockets)
    await exchange.sockets[0].close(1008, "Too many requests")
    await opening
    await asyncio.wait_for(rig.connection.wait_closed(), 60)
    closed = rig.story.told("connection.closed")[0]
    assert (closed.code, closed.reason) == (1008, "Too many requests")
    assert rig.story.metric("connections_open", market="spot") == 0


async def test_a_pipeline_that_fails_ends_the_connection_loudly(exchange, transport, caplog):
    """What Receive could not take is not passed over in silence."""

    def broken(_leg, _received_at, _payloads):
        raise RuntimeError("pipeline")

    rig = Rig(exchange, transport, receive=broken)
    await rig.connection.open([stream("a@trade")])
    await asyncio.wait_for(rig.connection.wait_closed(), 60)
    assert isinstance(rig.connection.failure, RuntimeError)
    assert "the pipeline failed" in caplog.text
