"""All connections of a market over real sockets."""

import asyncio
import contextlib

import pytest

from bridge.binance.clock import Clock
from bridge.binance.hosts import Hosts
from bridge.binance.pool import ConnectionPool, attempt_budget
from bridge.binance.rest import RestClient
from bridge.core.backoff import AttemptBudget
from tests.binance.scripted import Exchange, Hands, Pipeline, Story, frame, quick, stream, until


@pytest.fixture
async def exchange():
    """An exchange that sends a frame per stream each 20 ms."""
    async with Exchange() as server:
        yield server


class Rig:
    """A pool with everything around it."""

    def __init__(self, exchange, names, budget=None, receive=None, market="spot", clock=None, **changes):
        self.story = Story()
        self.pipeline = receive or Pipeline()
        settings = quick(**changes)
        hosts = exchange.hosts
        self.rest = RestClient({"spot": hosts, "usdm": hosts}, self.story.telemetry, quick(rest_attempts=1))
        self.pool = ConnectionPool(
            market,
            [one if not isinstance(one, str) else stream(one) for one in names],
            settings=settings,
            receive=self.pipeline,
            telemetry=self.story.telemetry,
            rest=self.rest,
            hosts=hosts,
            budget=budget or attempt_budget(settings),
            clock=clock,
        )

    async def __aenter__(self):
        await self.pool.start()
        return self

    async def __aexit__(self, *_):
        await self.pool.stop(60)
        await self.rest.close()

    def live(self, count):
        """Whether that many connections are live and nothing else is there."""
        states = [view.state for view in self.pool.connections()]
        return states == ["live"] * count

    def flows(self):
        """Whether every wanted stream has had a frame."""
        seen = {name for leg in self.pipeline.legs for name, state in leg.streams.items() if state.frames}
        return seen == {one.encode() for view in self.pool.connections() for one in view.streams}


async def test_streams_are_spread_and_all_of_them_flow(exchange):
    """Five streams at two a connection take three connections."""
    async with Rig(exchange, [f"s{n}@trade" for n in range(5)], streams_per_connection=2) as rig:
        await until(lambda: rig.live(3) and rig.flows())
        views = rig.pool.connections()
        assert sorted(name for view in views for name in view.streams) == [f"s{n}@trade" for n in range(5)]
        assert len({view.connection_id for view in views}) == 3
        assert rig.story.metric("connections_open", market="spot") == 3


async def test_each_path_of_the_futures_host_has_its_own_connection(exchange):
    """Streams of /public and /market never share one."""
    names = [
        stream("a@depth", market="usdm", path="public"),
        stream("a@aggTrade", market="usdm", path="market"),
    ]
    async with Rig(exchange, names, market="usdm") as rig:
        await until(lambda: rig.live(2))
    assert sorted(exchange.paths) == ["/market/stream", "/public/stream"]


async def test_stopping_leaves_no_task_and_no_connection(exchange):
    """After stop the exchange sees no socket and the loop no task of ours; every start has its end."""
    before = asyncio.all_tasks()
    rig = Rig(exchange, [f"s{n}@trade" for n in range(4)], streams_per_connection=1)
    await rig.pool.start()
    await until(lambda: rig.live(4))
    await rig.pool.stop(60)
    await rig.rest.close()
    await until(lambda: not exchange.sockets)
    left = [
        task for task in asyncio.all_tasks() - before if task.get_name().startswith(("seat", "connection"))
    ]
    assert left == []
    assert rig.pool.connections() == []
    assert len(rig.story.told("connection.closed")) == len(rig.story.told("connection.started")) == 4


async def test_stopping_while_nobody_answers_is_quick(exchange):
    """A pool that never got through stops all the same."""
    exchange.statuses = [503] * 1000
    rig = Rig(exchange, ["a@trade"])
    await rig.pool.start()
    await until(lambda: rig.story.told("connection.retrying"))
    async with asyncio.timeout(60):
        await rig.pool.stop(600)
    await rig.rest.close()


async def test_a_frozen_peer_does_not_hold_stopping_up(exchange):
    """A peer that doesn't shake hands is cut off."""
    rig = Rig(exchange, ["a@trade"])
    await rig.pool.start()
    await until(lambda: rig.live(1))
    exchange.sockets[0].transport.pause_reading()
    async with asyncio.timeout(30):  # half of what the closing handshake may take
        await rig.pool.stop(0.2)
    await rig.rest.close()
    assert rig.pool.connections() == []


async def test_a_broken_connection_comes_back_and_its_neighbour_never_notices(exchange):
    """One socket dies: its seat retries, the other connection keeps its id and its flow."""
    async with Rig(exchange, ["a@trade", "b@trade"], streams_per_connection=1) as rig:
        await until(lambda: rig.live(2) and rig.flows())
        before = {view.streams: view.connection_id for view in rig.pool.connections()}
        exchange.sockets[0].transport.abort()
        await until(lambda: rig.story.told("connection.closed"))
        await until(lambda: rig.live(2) and exchange.accepted == 3)
        after = {view.streams: view.connection_id for view in rig.pool.connections()}
        assert len(set(before.values()) & set(after.values())) == 1
        (retrying,) = rig.story.told("connection.retrying")
        assert retrying.attempt == 1
        assert 0.01 <= retrying.retry_in <= 0.05
        assert rig.story.metric("reconnects_total", market="spot") == 1


async def test_a_host_that_accepts_and_closes_is_not_stormed(exchange):
    """Back-off grows although each handshake succeeds, because no data ever settles."""
    exchange.rate = None
    closing = asyncio.ensure_future(_close_all(exchange))
    changes = {"retry_minimum_seconds": 0.02, "retry_maximum_seconds": 10.0}
    async with Rig(exchange, ["a@trade"], **changes) as rig:
        await until(lambda: len(rig.story.told("connection.retrying")) >= 5)
        attempts = [told.attempt for told in rig.story.told("connection.retrying")]
        assert attempts == list(range(1, len(attempts) + 1))
        waits = [told.retry_in for told in rig.story.told("connection.retrying")]
        assert all(wait <= 0.02 * 2**attempt for attempt, wait in zip(attempts, waits, strict=True))
    closing.cancel()


async def _close_all(exchange):
    while True:
        await asyncio.sleep(0.001)
        for socket in list(exchange.sockets):
            with contextlib.suppress(Exception):
                await socket.close(1008, "Too many requests")


async def test_back_off_starts_anew_after_data_has_flowed_for_a_while(exchange):
    """A connection that worked for the settling time counts as a success."""
    exchange.statuses = [503, 503]
    async with Rig(exchange, ["a@trade"], settled_seconds=0.1) as rig:
        await until(lambda: rig.live(1) and rig.flows())
        await asyncio.sleep(0.2)
        exchange.sockets[0].transport.abort()
        await until(lambda: len(rig.story.told("connection.retrying")) == 3)
        assert [told.attempt for told in rig.story.told("connection.retrying")] == [1, 2, 1]


async def test_attempts_of_all_pools_come_from_one_budget(exchange):
    """With two attempts at once and five a second, the fourth connection of two pools waits."""
    budget = AttemptBudget(2, 5.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    names = ["a@trade", "b@trade"]
    async with (
        Rig(exchange, names, budget=budget, streams_per_connection=1) as one,
        Rig(exchange, names, budget=budget, streams_per_connection=1) as two,
    ):
        await until(lambda: one.live(2) and two.live(2))
    assert loop.time() - began >= 0.4


@pytest.mark.parametrize("status", [429, 418, 403])
async def test_a_refused_ip_is_waited_out_by_every_seat(exchange, status):
    """One refusal holds the attempts of all, for a minute at least, and is told."""
    exchange.statuses = [status] * 50
    budget = AttemptBudget(100, 100.0)
    began = asyncio.get_running_loop().time()
    async with Rig(exchange, ["a@trade", "b@trade"], budget=budget, streams_per_connection=1) as rig:
        await until(lambda: rig.story.told("connection.retrying"))
        told = rig.story.told("connection.retrying")[0]
        assert told.code == status
        assert told.retry_in >= 60
        assert budget.held(began) >= 60
        await asyncio.sleep(0.1)
        assert len(exchange.paths) <= 2


async def test_rotation_is_make_before_break(exchange):
    """Old and new deliver side by side, then the old one goes; no number of the stream is missing."""
    async with Rig(exchange, ["a@trade"], overlap_seconds=0.2) as rig:
        await until(lambda: rig.live(1) and rig.flows())
        (old,) = rig.pool.connections()
        assert rig.pool.rotate() == 1
        await until(lambda: len(rig.pool.connections()) == 2)
        await until(lambda: rig.live(1) and rig.pool.connections()[0].connection_id != old.connection_id)
        (new,) = rig.pool.connections()
        (rotating,) = rig.story.told("connection.rotating")
        assert f"{rotating.connection_id:016x}" == old.connection_id
        assert new.connection_id in rotating.reason
        (closed,) = rig.story.told("connection.closed")
        assert new.connection_id in closed.reason
        assert sorted(rig.pipeline.numbers()) == list(range(1, len(rig.pipeline.numbers()) + 1))
        ids = [leg.shown_id for leg, _, _ in rig.pipeline.calls]
        assert ids.index(new.connection_id) < len(ids) - 1 - ids[::-1].index(old.connection_id)
        assert rig.story.told("connection.retrying") == []


async def test_one_connection_is_rotated_by_its_id(exchange):
    """The others stay."""
    async with Rig(exchange, ["a@trade", "b@trade"], streams_per_connection=1) as rig:
        await until(lambda: rig.live(2) and rig.flows())
        first, second = rig.pool.connections()
        assert rig.pool.rotate(first.connection_id) == 1
        assert rig.pool.rotate("0000000000000000") == 0
        await until(lambda: rig.story.told("connection.closed") and rig.live(2))
        ids = {view.connection_id for view in rig.pool.connections()}
        assert second.connection_id in ids
        assert first.connection_id not in ids


async def test_server_shutdown_is_obeyed_before_the_server_goes(exchange):
    """The successor is up before the old socket closes."""
    async with Rig(exchange, ["a@trade"]) as rig:
        await until(lambda: rig.live(1) and rig.flows())
        await exchange.send(b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}')
        await until(lambda: rig.story.told("connection.closed"))
        names = rig.story.names()
        assert names.index("connection.rotating") < names.index("connection.closed")
        assert names.count("connection.started") == 2
        assert "serverShutdown" in rig.story.told("connection.rotating")[0].reason


async def test_rotation_waits_only_so_long_for_quiet_streams(exchange):
    """A stream without frames holds the old connection for the bounded time, not for ever."""
    exchange.silent = {"quiet@trade"}
    async with Rig(exchange, ["a@trade", "quiet@trade"], prove_seconds=0.2) as rig:
        await until(lambda: rig.live(1))
        rig.pool.rotate()
        await until(lambda: rig.story.told("connection.closed"))
        assert rig.story.told("connection.started")[1] is not None


async def test_a_successor_that_fails_leaves_the_old_connection_in_place(exchange):
    """While no successor gets through, the old connection delivers on."""
    async with Rig(exchange, ["a@trade"]) as rig:
        await until(lambda: rig.live(1) and rig.flows())
        exchange.statuses = [503, 503, 503]
        rig.pool.rotate()
        await until(lambda: len(rig.story.told("connection.retrying")) == 3)
        assert rig.story.told("connection.closed") == []
        await until(lambda: rig.story.told("connection.closed"))
        await until(lambda: rig.live(1))
        assert len(rig.story.told("connection.rotating")) == 4


async def test_an_old_connection_that_breaks_during_rotation_is_simply_replaced(exchange):
    """The successor on its way takes over."""
    async with Rig(exchange, ["a@trade"], overlap_seconds=3600) as rig:
        await until(lambda: rig.live(1) and rig.flows())
        rig.pool.rotate()
        await until(lambda: exchange.accepted == 2)
        exchange.sockets[0].transport.abort()
        await until(lambda: rig.story.told("connection.closed") and rig.live(1))
        await asyncio.sleep(0.1)
        assert rig.live(1)
        assert exchange.accepted == 2


async def test_a_successor_that_breaks_while_both_deliver_leaves_the_old_connection_in_place(exchange):
    """The old connection goes only once a successor has stood beside it for the whole overlap."""
    async with Rig(exchange, ["a@trade"], overlap_seconds=3600) as rig:
        await until(lambda: rig.live(1) and rig.flows())
        (old,) = rig.pool.connections()
        rig.pool.rotate()
        await until(lambda: len({leg.shown_id for leg, _, _ in rig.pipeline.calls}) == 2)
        exchange.sockets[1].transport.abort()
        rig.pool.settings = quick()  # the next one need not stand beside it for so long
        await until(lambda: len(rig.story.told("connection.closed")) == 2 and rig.live(1))
        first, second = (f"{event.connection_id:016x}" for event in rig.story.told("connection.closed"))
        assert first != old.connection_id
        assert second == old.connection_id
        assert sorted(rig.pipeline.numbers()) == list(range(1, len(rig.pipeline.numbers()) + 1))


async def test_a_deaf_stream_is_replaced_ever_more_rarely(exchange):
    """Silent on connection after connection: each time it is told, the patience doubles, the rest flows."""
    exchange.silent = {"deaf@trade"}
    names = ["a@trade", stream("deaf@trade", first=0.05)]
    markers = iter(range(10_000))

    async def look(_stream):
        return next(markers)

    rig = Rig(exchange, names, prove_seconds=0.1, overlap_seconds=0.02)
    rig.pool.look = look
    async with rig:
        await until(lambda: len(rig.story.told("connection.rotating")) >= 3)
        assert rig.pool.deaf == {"deaf@trade": 3}
        exchange.silent = set()
        await until(lambda: rig.live(1) and rig.pipeline.legs[-1].streams[b"deaf@trade"].frames)
        rig.pool.rotate()
        await until(lambda: rig.pool.deaf == {})


async def test_a_stale_connection_is_replaced(exchange):
    """Half-open sockets are noticed by our own ping and opened anew."""
    exchange.rate = None
    hands, times = Hands(), {"ping_seconds": 300, "pong_seconds": 300}
    names = [stream("a@trade", first=3600)]
    async with Rig(exchange, names, clock=Clock(monotonic=hands), **times) as rig:
        await until(lambda: rig.live(1))
        exchange.sockets[0].transport.pause_reading()

        def stale():
            hands.passed += 10
            return rig.story.told("connection.stale")

        await until(stale)
        await until(lambda: exchange.accepted == 2 and rig.live(1))
        assert len(rig.story.told("connection.stale")) == 1


async def test_streams_come_and_go_without_moving_others(exchange):
    """Added streams fill room, more open a connection, removed ones empty and close it."""
    async with Rig(exchange, ["a@trade", "b@trade"], streams_per_connection=2) as rig:
        await until(lambda: rig.live(1) and rig.flows())
        (first,) = rig.pool.connections()
        await rig.pool.add([stream("c@trade")])
        await until(lambda: rig.live(2) and rig.flows())
        await rig.pool.remove([stream("a@trade")])
        await until(lambda: rig.pool.connections()[0].streams == ("b@trade",))
        await rig.pool.add([stream("d@trade")])
        await rig.pool.remove([stream("c@trade")])
        await until(lambda: len(rig.pool.connections()) == 2 or rig.live(1))
        await until(
            lambda: (
                {name for view in rig.pool.connections() for name in view.streams} == {"b@trade", "d@trade"}
            )
        )
        assert first.connection_id in {view.connection_id for view in rig.pool.connections()}


async def test_pausing_closes_everything_and_resuming_opens_it_again(exchange):
    """A full buffer closes all connections with its reason; nothing is opened until resumed."""
    async with Rig(exchange, ["a@trade", "b@trade"], streams_per_connection=1) as rig:
        await until(lambda: rig.live(2))
        await rig.pool.pause("buffer full")
        assert [told.reason for told in rig.story.told("connection.closed")] == ["buffer full"] * 2
        accepted = exchange.accepted
        await until(lambda: not exchange.sockets)
        await asyncio.sleep(0.2)
        assert rig.pool.connections() == []
        assert (exchange.accepted, exchange.sockets) == (accepted, [])
        assert rig.story.told("connection.retrying") == []
        await rig.pool.resume()
        await until(lambda: rig.live(2))


async def test_pausing_while_connecting_leaves_nothing_open(exchange):
    """A handshake under way when the pause comes does not slip through."""
    exchange.answering.clear()
    async with Rig(exchange, ["a@trade"]) as rig:
        await until(lambda: exchange.paths)
        await rig.pool.pause("buffer full")
        exchange.answering.set()
        await until(lambda: exchange.accepted == 1 and not exchange.sockets and not rig.pool.connections())
        await asyncio.sleep(0.1)
        assert (rig.pool.connections(), exchange.accepted) == ([], 1)


async def test_a_seat_that_fails_unexpectedly_is_started_again_and_its_neighbour_stays(exchange, caplog):
    """A fault in our own code costs one connection, is logged, and heals."""
    rig = Rig(exchange, ["a@trade", "b@trade"], streams_per_connection=1)
    opened = rig.pool.open_transport
    faults = [RuntimeError("a fault of ours")]

    async def faulty(*arguments):
        if faults:
            raise faults.pop()
        return await opened(*arguments)

    rig.pool.open_transport = faulty
    async with rig:
        await until(lambda: rig.live(2))
        assert faults == []
        assert exchange.accepted == 2
    assert "a fault of ours" in caplog.text


async def test_a_pipeline_that_fails_costs_only_its_connection(exchange, caplog):
    """The other connection delivers on; the failed one comes back."""
    pipeline = Pipeline()
    faults = [RuntimeError("pipeline")]

    def receive(leg, received_at, payloads):
        if faults and b"a@trade" in leg.streams:
            raise faults.pop()
        pipeline(leg, received_at, payloads)

    async with Rig(exchange, ["a@trade", "b@trade"], receive=receive, streams_per_connection=1) as rig:
        await until(
            lambda: (
                rig.live(2) and {n for leg in pipeline.legs for n in leg.streams} == {b"a@trade", b"b@trade"}
            )
        )
        assert exchange.accepted == 3
    assert "the pipeline failed" in caplog.text


async def test_fallback_hosts_are_tried_when_the_first_cannot_be_reached(exchange):
    """The second attempt goes to the next host."""
    rig = Rig(exchange, ["a@trade"])
    rig.pool.hosts = Hosts("ws://127.0.0.1:9", "http://127.0.0.1:9", None, (exchange.url,))
    async with rig:
        await until(lambda: rig.live(1))
        assert rig.story.told("connection.retrying")[0].attempt == 1


async def test_frames_that_came_before_the_end_are_delivered(exchange):
    """What the socket held when it was closed is not lost."""
    exchange.rate = None
    async with Rig(exchange, ["a@trade"]) as rig:
        await until(lambda: rig.live(1))
        for number in range(2000):
            await exchange.send(frame("a@trade", t=number))
        await rig.pool.pause("stop")
        assert rig.pipeline.numbers() == list(range(2000))
