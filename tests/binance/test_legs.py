"""Redundancy: two legs carry the same streams, and what befalls one costs nothing."""

import asyncio
import contextlib
import json
import time
from itertools import pairwise

import pytest

from bridge.binance.hosts import Hosts, hosts_of
from bridge.binance.legs import RedundantPools
from bridge.binance.pool import attempt_budget
from bridge.binance.rest import RestClient
from bridge.binance.transport import ABNORMAL
from bridge.catalogue import catalogue
from bridge.core.backoff import AttemptBudget
from bridge.simulator.simulator import Simulator, SimulatorSettings
from tests.binance.scripted import Exchange, Pipeline, Story, frame, quick, stream, until
from tests.derived import KeepingPublisher, pipeline

PATIENCE = 60


# Two hosts of one exchange, scripted


class Twin(Exchange):
    """One of two hosts that send the same frames; what is set here is this host's alone.

    Attributes:
        halted: whether it sends nothing at all.
    """

    def __init__(self, carried):
        super().__init__()
        self.halted = False
        self._carried = carried

    async def _feed(self, socket, subscribed):
        entry = (self, socket, subscribed)
        self._carried.append(entry)
        try:
            await asyncio.Event().wait()
        finally:
            self._carried.remove(entry)


@contextlib.asynccontextmanager
async def twins():
    """Run both hosts and what they send: a frame of each stream in each round, the same bytes on both."""
    carried = []

    async def pump():
        number = 0
        while True:
            await asyncio.sleep(0.02)
            number += 1
            for host, socket, subscribed in tuple(carried):
                for name in list(subscribed):
                    if not host.halted and name not in host.silent:
                        with contextlib.suppress(Exception):
                            await socket.send(frame(name, t=number), text=True)

    async with Twin(carried) as first, Twin(carried) as second:
        pumping = asyncio.ensure_future(pump())
        try:
            yield first, second
        finally:
            pumping.cancel()


class Rig:
    """Redundant pools with everything around them."""

    def __init__(self, hosts, names, redundancy=2, budget=None, **changes):
        self.story = Story()
        self.pipeline = Pipeline()
        settings = quick(**changes)
        self.rest = RestClient({"spot": hosts}, self.story.telemetry, quick(rest_attempts=1))
        self.pools = RedundantPools(
            "spot",
            [stream(name) for name in names],
            redundancy=redundancy,
            settings=settings,
            receive=self.pipeline,
            telemetry=self.story.telemetry,
            rest=self.rest,
            hosts=hosts,
            budget=budget or attempt_budget(settings),
        )

    async def __aenter__(self):
        await self.pools.start()
        return self

    async def __aexit__(self, *_):
        await self.pools.stop(PATIENCE)
        await self.rest.close()

    def live(self, count):
        """Whether that many connections are live and nothing else is there."""
        return [view.state for view in self.pools.connections()] == ["live"] * count

    def flows(self):
        """Whether every open connection has had a frame of each of its streams."""
        legs = {leg.shown_id: leg for leg in self.pipeline.legs}
        return all(
            view.connection_id in legs
            and all(state.frames for state in legs[view.connection_id].streams.values())
            for view in self.pools.connections()
        )

    def leg_of(self, event):
        """Return the leg, 1 or 2, of the connection an event tells of."""
        opened = {one.connection_id: one.reason for one in self.story.told("connection.opening")}
        return int(opened[event.connection_id][-1])


def pair(first, second):
    """Return hosts whose legs lead to two exchanges."""
    return Hosts(stream=first.url, rest="http://127.0.0.1:9", ws_api=None, second_stream=second.url)


async def test_each_leg_carries_every_stream_to_its_own_host_and_says_so():
    """Two connections, one at each host; views and lifecycle tell them apart."""
    async with twins() as (first, second), Rig(pair(first, second), ["a@trade", "b@trade"]) as rig:
        await until(lambda: rig.live(2) and rig.flows())
        views = rig.pools.connections()
        assert [(view.leg, view.url) for view in views] == [
            (1, f"{first.url}/stream"),
            (2, f"{second.url}/stream"),
        ]
        assert {view.streams for view in views} == {("a@trade", "b@trade")}
        assert {one.reason for one in rig.story.told("connection.started")} == {
            f"{first.url}/stream, leg 1",
            f"{second.url}/stream, leg 2",
        }


async def test_without_redundancy_there_is_one_connection():
    """The second host is where it goes when the first can't be reached."""
    async with twins() as (first, second), Rig(pair(first, second), ["a@trade"], redundancy=1) as rig:
        await until(lambda: rig.live(1) and rig.flows())
        assert second.accepted == 0
        assert rig.story.told("connection.opening")[0].reason == f"{first.url}/stream"
        first.statuses = [503] * 1000
        first.sockets[0].transport.abort()
        await until(lambda: second.accepted == 1 and rig.live(1))


async def test_a_leg_whose_host_is_out_goes_to_the_other_host():
    """Two connections to one host are still more than one."""
    async with twins() as (first, second):
        second.statuses = [503] * 1000
        async with Rig(pair(first, second), ["a@trade"]) as rig:
            await until(lambda: rig.live(2) and rig.flows())
            assert first.accepted == 2


async def test_a_stream_that_is_deaf_on_one_leg_is_mended_there_and_the_other_leg_left_alone():
    """Muted at one host: told for its connection, subscribed again; REST, which can't be reached, is not needed."""
    async with twins() as (first, second):
        hosts, names = pair(first, second), ["a@trade", "b@trade"]
        async with Rig(hosts, names, other_leg_seconds=0.3, learned_minimum_seconds=3600) as rig:
            await until(lambda: rig.live(2) and rig.flows())
            before = {view.leg: view.connection_id for view in rig.pools.connections()}
            second.silent = {"a@trade"}
            await until(lambda: rig.story.told("stream.silent"))
            (told, *_) = rig.story.told("stream.silent")
            assert (rig.leg_of(told), told.streams) == (2, ("a@trade",))
            assert "the other leg had frames" in told.reason
            second.silent = set()
            await until(lambda: rig.live(2) and rig.flows())
            assert {rig.leg_of(one) for one in rig.story.told("stream.silent")} == {2}
            assert {v.connection_id for v in rig.pools.connections() if v.leg == 1} == {before[1]}


async def test_a_stream_that_stays_deaf_on_one_leg_has_that_legs_connection_replaced():
    """Subscribing again does not help: make before break, on that leg alone."""
    async with twins() as (first, second):
        hosts, names = pair(first, second), ["a@trade", "b@trade"]
        async with Rig(hosts, names, other_leg_seconds=0.3, learned_minimum_seconds=3600) as rig:
            await until(lambda: rig.live(2) and rig.flows())
            second.silent = {"a@trade"}
            await until(lambda: rig.story.told("connection.rotating"))
            (rotating, *_) = rig.story.told("connection.rotating")
            assert rig.leg_of(rotating) == 2
            assert "a@trade is silent" in rotating.reason
            second.silent = set()
            await until(lambda: rig.live(2) and rig.flows())


async def test_a_connection_that_says_nothing_while_the_other_leg_flows_is_stale_and_replaced():
    """Sooner than by its pings, which would take an hour here."""
    async with twins() as (first, second):
        settings = {"ping_seconds": 3600, "learned_minimum_seconds": 3600, "other_leg_seconds": 0.3}
        async with Rig(pair(first, second), ["a@trade", "b@trade"], **settings) as rig:
            await until(lambda: rig.live(2) and rig.flows())
            second.halted = True
            await until(lambda: rig.story.told("connection.stale"))
            second.halted = False
            await until(lambda: rig.live(2) and rig.flows())
            assert {rig.leg_of(one) for one in rig.story.told("connection.stale")} == {2}
            assert second.accepted >= 2
            assert first.accepted == 1


async def test_silence_of_both_legs_is_no_ones_fault():
    """A market that sleeps sleeps on both: nothing is told."""
    async with twins() as (first, second):
        hosts = pair(first, second)
        async with Rig(hosts, ["a@trade"], other_leg_seconds=0.05, learned_minimum_seconds=3600) as rig:
            await until(lambda: rig.live(2) and rig.flows())
            first.halted = second.halted = True
            await asyncio.sleep(0.5)
            assert rig.story.told("stream.silent") == rig.story.told("connection.stale") == []


async def test_streams_come_and_go_and_connections_rotate_on_both_legs():
    """What is asked of the pools reaches each leg; an id rotates one connection alone."""
    async with twins() as (first, second), Rig(pair(first, second), ["a@trade"]) as rig:
        await until(lambda: rig.live(2) and rig.flows())
        await rig.pools.add([stream("b@trade")])
        await until(lambda: rig.flows() and len(rig.pools.connections()[1].streams) == 2)
        await rig.pools.remove([stream("a@trade")])
        assert [view.streams for view in rig.pools.connections()] == [("b@trade",)] * 2
        kept, replaced = (view.connection_id for view in rig.pools.connections())
        assert rig.pools.rotate(replaced) == 1
        await until(lambda: rig.story.told("connection.closed") and rig.live(2))
        ids = [view.connection_id for view in rig.pools.connections()]
        assert kept == ids[0]
        assert replaced not in ids
        assert rig.pools.rotate() == 2
        await until(lambda: len(rig.story.told("connection.closed")) == 3 and rig.live(2))


async def test_pausing_closes_both_legs_and_resuming_opens_them():
    """A full buffer holds the whole market."""
    async with twins() as (first, second), Rig(pair(first, second), ["a@trade"]) as rig:
        await until(lambda: rig.live(2))
        await rig.pools.pause("full")
        await until(lambda: not first.sockets and not second.sockets)
        assert {one.reason for one in rig.story.told("connection.closed")} == {"full"}
        await rig.pools.resume()
        await until(lambda: rig.live(2))


async def test_stopping_leaves_no_connection_on_either_leg():
    """After stop neither host sees a socket, and each start has its end."""
    async with twins() as (first, second):
        rig = Rig(pair(first, second), ["a@trade"])
        async with rig:
            await until(lambda: rig.live(2))
        await until(lambda: not first.sockets and not second.sockets)
        assert rig.pools.connections() == []
        assert len(rig.story.told("connection.closed")) == len(rig.story.told("connection.started")) == 2


async def test_the_legs_share_the_budget_of_attempts():
    """A budget of one attempt and no refill opens the first leg only."""
    budget = AttemptBudget(1, 1e-9)
    async with twins() as (first, second), Rig(pair(first, second), ["a@trade"], budget=budget) as rig:
        await until(lambda: rig.flows() and first.accepted == 1)
        assert second.accepted == 0


def test_rotations_of_the_legs_are_half_an_age_apart():
    """Connections that open at the start: one lives its age, the other half of it."""
    hosts = Hosts(stream="ws://127.0.0.1:9", rest="http://127.0.0.1:9", ws_api=None)
    rig = Rig(hosts, ["a@trade"], rotate_after_seconds=80_000.0, rotate_jitter_seconds=0.0)
    first, second = (pool.lifetime() for pool in rig.pools.pools)
    assert first > 70_000
    assert 30_000 < second <= 40_000


# The simulator behind two doors, and the real pipeline


class Door:
    """A way to the simulator's stream host that can break: what one leg goes through."""

    def __init__(self, target):
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._writers = set()
        self.url = ""

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.go_on()
        self.drop()
        await asyncio.sleep(0)

    def drop(self):
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def stall(self):
        """Let nothing more through, either way."""
        self._open.clear()

    def go_on(self):
        """Let everything through again, what was held first."""
        self._open.set()

    async def _pass(self, reader, writer):
        port = int(self._target.rpartition(":")[2])
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        ends = {writer, there_writer}
        self._writers |= ends
        try:
            await asyncio.gather(self._copy(reader, there_writer), self._copy(there_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


CHANNELS = ["trade", "agg-trade", "depth@100ms", "kline_1m", "book-ticker", "mini-ticker"]
ENDS = {"drop", "rotate", "disconnect-mid-frame", "oversize"}


class Merged:
    """Both legs of spot, behind doors, into the real pipeline; what it publishes is kept."""

    def __init__(self, simulator, doors, hold_ms=60_000, **changes):
        self.story = Story()
        self.publisher = KeepingPublisher()
        # Held for as long as it takes: how fast the machine is must not decide what counts as missing.
        self.pipeline = pipeline(self.publisher, hold_ms=hold_ms)
        self.simulator, self.doors = simulator, doors
        self.settings = quick(**changes)
        endpoint = simulator.endpoints["spot"] | {"stream": [door.url for door in doors]}
        self.hosts = hosts_of("prod", {"spot": endpoint})
        self.rest = RestClient(self.hosts, self.story.telemetry, self.settings)
        self.story.telemetry.listeners["pipeline"] = self._follow

    async def __aenter__(self):
        reply = await self.rest.get("spot", "/api/v3/exchangeInfo")
        table = self.pipeline.exchange_info("spot", now(), reply.body, 0)
        chosen = catalogue().choose("spot", CHANNELS, [min(table.by_id)], None, table)
        for one in chosen:
            self.pipeline.add(one)
        self.pools = RedundantPools(
            "spot",
            [one.stream for one in chosen],
            redundancy=2,
            settings=self.settings,
            receive=self.pipeline.receive,
            telemetry=self.story.telemetry,
            rest=self.rest,
            hosts=self.hosts["spot"],
            budget=attempt_budget(self.settings),
        )
        await self.pools.start()
        await until(self.healthy)
        return self

    async def __aexit__(self, *_):
        await self.pools.stop(PATIENCE)
        await self.rest.close()

    def _follow(self, event):
        if event.event == "connection.subscribed":
            self.pipeline.subscribed(event.connection_id, event.streams, now())
        elif event.event == "connection.closed":
            self.pipeline.closed(event.connection_id, clean=event.code not in {None, ABNORMAL})

    def healthy(self):
        """Whether both legs are live and have had trades."""
        views = self.pools.connections()
        return [view.state for view in views] == ["live", "live"] and all(map(self._has_trades, views))

    def _has_trades(self, view):
        leg = self.pipeline.legs.get(int(view.connection_id, 16))
        return leg is not None and any(
            name.endswith(b"@trade") and state.frames for name, state in leg.streams.items()
        )

    def trades(self):
        """Return the trade ids published, in order."""
        records = [kept.record for kept in self.publisher.of("unified", "trade")]
        return [int(one["id"]) for one in records if one["channel"] == "trade"]

    def gaps(self):
        """Return the gap records published."""
        return [kept.record for kept in self.publisher.of("gaps")]

    def raw_trades(self):
        """Return the trade ids received, on whatever leg, with repeats."""
        records = [kept.record for kept in self.publisher.of("raw", "spot", "trade")]
        return [json.loads(one["payload"])["data"]["t"] for one in records]

    async def more(self, count=20):
        """Wait for more trades."""
        enough = len(self.trades()) + count
        await until(lambda: len(self.trades()) >= enough)

    async def complete(self):
        """Stop, and check that nothing is missing, repeated, out of order or told to be missing."""
        await self.pools.stop(PATIENCE)
        self.pipeline.drain()
        ids = self.trades()
        assert ids == list(range(ids[0], ids[-1] + 1))
        assert self.gaps() == []
        assert len(self.raw_trades()) > len(ids)
        depths = [kept.record for kept in self.publisher.of("unified", "order-book")]
        assert all(later["firstSequence"] == earlier["sequence"] + 1 for earlier, later in pairwise(depths))


def now():
    """Return the wall clock in microseconds."""
    return time.time_ns() // 1000


@contextlib.asynccontextmanager
async def merged(**changes):
    """Run a simulator with a door for each leg, and both legs into a pipeline."""
    async with (
        Simulator(SimulatorSettings(symbols=1, rate=1500.0)) as simulator,
        Door(simulator.endpoints["spot"]["stream"]) as first,
        Door(simulator.endpoints["spot"]["stream"]) as second,
        Merged(simulator, (first, second), **changes) as both,
    ):
        yield both


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "rotate"},
        {"fault": "drop"},
        {"fault": "disconnect-mid-frame"},
        {"fault": "oversize"},
        {"fault": "stall", "seconds": 3},
        {"fault": "half-open", "seconds": 300},
        {"fault": "shutdown", "count": 1, "seconds": 5},
        {"fault": "garbage", "kind": "text"},
        {"fault": "garbage", "kind": "unknown-event"},
    ],
    ids=lambda fault: "-".join(str(value) for key, value in fault.items() if key in ("fault", "kind")),
)
async def test_a_fault_of_one_leg_costs_nothing(fault):
    """The exchange breaks one of two connections: ids complete, none twice, and no gap of any stream is told."""
    hurry = {"other_leg_seconds": 0.5} if fault["fault"] in {"stall", "half-open"} else {}
    async with merged(**hurry) as both:
        await both.more()
        both.simulator.inject(fault)
        if fault["fault"] in ENDS | {"shutdown", "half-open", "stall"}:
            await until(lambda: both.story.told("connection.closed"))
        else:
            await until(lambda: both.publisher.of("dead-letter"))
        await both.more()
        await until(both.healthy)
        await both.more()
        await both.complete()


async def test_legs_that_die_in_turn_again_and_again_cost_nothing():
    """Each time one leg is reset, the other carries on until the first is back."""
    async with merged() as both:
        for number in range(8):
            door = both.doors[number % 2]
            door.drop()
            await until(lambda number=number: len(both.story.told("connection.closed")) > number)
            await until(both.healthy)
            await both.more(5)
        ends = {view.url for view in both.pools.connections()}
        assert ends == {f"{door.url}/stream" for door in both.doors}
        await both.complete()


async def test_a_way_that_lets_nothing_through_is_left_for_another_connection():
    """One leg's network swallows everything: stale within the deadline, and at the end both legs flow again."""
    async with merged(other_leg_seconds=0.5) as both:
        await both.more()
        both.doors[1].stall()
        await until(lambda: both.story.told("connection.stale"))
        await both.more()
        both.doors[1].go_on()
        await until(both.healthy)
        await both.more()
        await both.complete()


async def test_both_legs_gone_at_once_are_a_gap_that_is_told():
    """Redundancy hides no loss: while neither leg is there, ids are missing and named, once."""
    async with merged(hold_ms=250) as both:
        await both.more()
        both.simulator.inject({"fault": "refuse-connections", "count": 8, "seconds": 60})
        for door in both.doors:
            door.drop()
        await until(lambda: len(both.story.told("connection.closed")) == 2)
        await until(both.healthy)
        await both.more()
        await both.pools.stop(PATIENCE)
        both.pipeline.drain()
        ids = both.trades()
        absent = set(range(ids[0], ids[-1] + 1)) - set(ids)
        named = {gap["id"]: gap for gap in both.gaps() if gap["channel"] == "trade"}.values()
        missing = [id_ for gap in named for id_ in range(gap["firstSequence"], gap["lastSequence"] + 1)]
        assert sorted(missing) == sorted(absent)
        assert any(gap["cause"] == "disconnected" for gap in both.gaps() if gap["channel"] == "mini-ticker")
