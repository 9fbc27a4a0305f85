"""Pools against the exchange simulator: Binance's own wire, limits and faults."""

import contextlib
import json

import pytest

from bridge.binance.hosts import hosts_of
from bridge.binance.pool import ConnectionPool, attempt_budget
from bridge.binance.rest import RestClient
from bridge.core.connection_settings import ConnectionSettings
from bridge.simulator.limits import Limits
from bridge.simulator.simulator import Simulator, SimulatorSettings
from tests.binance.scripted import Pipeline, Story, stream, until
from tests.binance.scripted import quick as quicker


def quick(**changes):
    """Return settings for tests that keep the exchange's own pace of control frames."""
    return quicker(**{"spot_control_frames_per_second": 4, **changes})


@contextlib.asynccontextmanager
async def simulated(settings=None, **limits):
    """Run a simulator with three symbols a market."""
    settings = settings or SimulatorSettings(symbols=3, rate=300.0, limits=Limits(**limits))
    async with Simulator(settings) as simulator:
        yield simulator


class Bridge:
    """REST and pools at a simulator."""

    def __init__(self, simulator, settings):
        self.story = Story()
        self.pipeline = Pipeline()
        self.settings = settings
        endpoints = {market: simulator.endpoints[market] for market in ("spot", "usdm", "coinm")}
        self.hosts = hosts_of("prod", endpoints)
        self.rest = RestClient(self.hosts, self.story.telemetry, settings)
        self.budget = attempt_budget(settings)
        self.pools = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for pool in self.pools:
            await pool.stop(60)
        await self.rest.close()

    async def symbols(self, market, path):
        """Return the symbols of a market, as exchangeInfo lists them."""
        reply = await self.rest.get(market, path)
        return [one["symbol"] for one in json.loads(reply.body)["symbols"]]

    async def carry(self, market, *streams):
        """Start a pool and return it."""
        pool = ConnectionPool(
            market,
            streams,
            settings=self.settings,
            receive=self.pipeline,
            telemetry=self.story.telemetry,
            rest=self.rest,
            hosts=self.hosts[market],
            budget=self.budget,
        )
        self.pools.append(pool)
        await pool.start()
        return pool

    def frames(self, name):
        """Return how many frames of a stream came, over all connections."""
        states = [leg.streams.get(name.encode()) for leg in self.pipeline.legs]
        return sum(state.frames for state in states if state is not None)

    def ids(self, name):
        """Return the trade ids of a stream in order of arrival."""
        decoded = [
            json.loads(one)
            for one in self.pipeline.payloads
            if one.startswith(b'{"stream":"' + name.encode())
        ]
        return [one["data"]["t"] for one in decoded]


@pytest.mark.parametrize("transport", ["websockets", "picows"])
async def test_every_market_flows_and_ends_cleanly(transport):
    """Spot, both paths of usdm, and coinm: all streams flow, nothing is refused, nothing is left."""
    async with simulated() as simulator, Bridge(simulator, quick(transport=transport)) as bridge:
        spot = (await bridge.symbols("spot", "/api/v3/exchangeInfo"))[0].lower()
        usdm = (await bridge.symbols("usdm", "/fapi/v1/exchangeInfo"))[0].lower()
        coinm = (await bridge.symbols("coinm", "/dapi/v1/exchangeInfo"))[0].lower()
        names = {
            "spot": [stream(f"{spot}@{kind}") for kind in ("trade", "aggTrade", "depth@100ms", "bookTicker")],
            "usdm": [
                stream(f"{usdm}@aggTrade", market="usdm", path="market"),
                stream(f"{usdm}@markPrice@1s", market="usdm", path="market"),
                stream(f"{usdm}@depth@100ms", market="usdm", path="public"),
            ],
            "coinm": [
                stream(f"{coinm}@aggTrade", market="coinm"),
                stream(f"{coinm}@bookTicker", market="coinm"),
            ],
        }
        for market, streams in names.items():
            await bridge.carry(market, *streams)
        await until(lambda: all(bridge.frames(one.name) for streams in names.values() for one in streams))
        assert len(simulator.state()["connections"]) == 4
        for pool in bridge.pools:
            await pool.stop(60)
        await until(lambda: simulator.state()["connections"] == [])
        assert {told.code for told in bridge.story.told("connection.closed")} == {1000}
        assert bridge.story.told("connection.subscription-rejected") == []


@pytest.mark.parametrize("transport", ["websockets", "picows"])
async def test_rotation_loses_no_trade(transport):
    """Over three rotations and a server shutdown each id of a trade stream arrives; overlaps repeat some."""
    async with simulated() as simulator, Bridge(simulator, quick(transport=transport)) as bridge:
        symbol = (await bridge.symbols("spot", "/api/v3/exchangeInfo"))[0].lower()
        pool = await bridge.carry("spot", stream(f"{symbol}@trade"))
        await until(lambda: bridge.frames(f"{symbol}@trade"))
        for done in range(3):
            await until(lambda: [view.state for view in pool.connections()] == ["live"])
            pool.rotate()
            await until(lambda done=done: len(bridge.story.told("connection.closed")) == done + 1)
        simulator.inject({"fault": "shutdown", "seconds": 60})
        await until(lambda: len(bridge.story.told("connection.closed")) == 4)
        ids = bridge.ids(f"{symbol}@trade")
        assert sorted(set(ids)) == list(range(min(ids), max(ids) + 1))
        assert len(ids) > len(set(ids))
        assert bridge.story.told("connection.retrying") == []


async def test_the_pace_of_the_exchange_is_kept_with_many_streams():
    """With real settings 700 streams on one connection are subscribed without a 1008."""
    settings = ConnectionSettings(streams_per_connection=1000, ping_seconds=0.5)
    async with simulated() as simulator, Bridge(simulator, settings) as bridge:
        await bridge.carry("spot", *[stream(f"s{number}usdt@trade") for number in range(700)])
        await until(lambda: bridge.story.told("connection.subscribed"))
        assert bridge.story.told("connection.closed") == []
        assert len(bridge.story.told("connection.subscribed")[0].streams) == 700


async def test_a_muted_stream_is_found_by_asking_rest():
    """Muted by the exchange while its market trades on: told silent after real looks at REST, and it alone."""
    async with simulated() as simulator, Bridge(simulator, quick(market_look_seconds=0.3)) as bridge:
        symbols = [one.lower() for one in await bridge.symbols("spot", "/api/v3/exchangeInfo")][:2]
        # The other stream has as long as a slow machine may take to let its frames through.
        mute, other = (
            stream(f"{one}@trade", first=first) for one, first in zip(symbols, (0.2, 60), strict=True)
        )
        simulator.inject({"fault": "mute", "stream": mute.name, "count": "all", "seconds": 3600})
        asked = bridge.story.metric("requests_resolved_total", market="spot")
        await bridge.carry("spot", mute, other)
        await until(lambda: bridge.story.told("stream.silent") and bridge.frames(other.name))
        assert {told.streams for told in bridge.story.told("stream.silent")} == {(mute.name,)}
        assert bridge.story.metric("requests_resolved_total", market="spot") >= asked + 2
        assert bridge.frames(mute.name) == 0


async def test_the_wrong_futures_path_is_found():
    """Acknowledged on /public and never sent there: the silence is told."""
    async with simulated() as simulator, Bridge(simulator, quick(market_look_seconds=0.3)) as bridge:
        symbol = (await bridge.symbols("usdm", "/fapi/v1/exchangeInfo"))[0].lower()
        wrong = stream(f"{symbol}@aggTrade", market="usdm", channel="agg-trade", path="public", first=0.2)
        await bridge.carry("usdm", wrong)
        await until(lambda: bridge.story.told("stream.silent"))
        assert bridge.story.told("connection.subscribed")[0].streams == (wrong.name,)
        assert bridge.frames(wrong.name) == 0


PINGS = {"ping_seconds": 0.5, "pong_seconds": 0.3}
# The answers of a stalled connection are held like its data: the SUBSCRIBE that is sent again has none.
LOOKS = {"market_look_seconds": 0.3, "learned_minimum_seconds": 0.3, "acknowledgement_seconds": 1.0}


@pytest.mark.parametrize(
    ("fault", "event", "times"),
    [
        ({"fault": "drop"}, "connection.closed", {}),
        ({"fault": "rotate"}, "connection.closed", {}),
        ({"fault": "disconnect-mid-frame"}, "connection.closed", {}),
        ({"fault": "half-open", "seconds": 3600}, "connection.stale", PINGS),
        ({"fault": "stall", "seconds": 3600}, "stream.silent", LOOKS),
        ({"fault": "oversize"}, "connection.closed", {}),
    ],
)
@pytest.mark.parametrize("transport", ["websockets", "picows"])
async def test_each_fault_of_a_connection_heals(transport, fault, event, times):
    """The fault of a connection is told of it, and data flows again on a new one."""
    settings = quick(transport=transport, **times)
    async with simulated() as simulator, Bridge(simulator, settings) as bridge:
        symbol = (await bridge.symbols("spot", "/api/v3/exchangeInfo"))[0].lower()
        await bridge.carry("spot", stream(f"{symbol}@trade", first=0.3 if times is LOOKS else 60))

        def flows():
            """Whether one connection is there, and has had data."""
            shown = [view.connection_id for view in bridge.pools[0].connections()]
            newest = bridge.pipeline.legs[-1:]
            return (
                newest
                and shown == [newest[0].shown_id]
                and newest[0].streams[f"{symbol}@trade".encode()].frames
            )

        await until(flows)
        hurt = bridge.pipeline.legs[-1].connection_id
        simulator.inject(fault)
        await until(lambda: hurt in {told.connection_id for told in bridge.story.told(event)})
        await until(lambda: bridge.pipeline.legs[-1].connection_id != hurt and flows())


async def test_garbage_is_delivered_and_disturbs_nothing():
    """Text, truncated, unknown and binary garbage reach the pipeline; the connection lives on."""
    async with simulated() as simulator, Bridge(simulator, quick()) as bridge:
        symbol = (await bridge.symbols("spot", "/api/v3/exchangeInfo"))[0].lower()
        await bridge.carry("spot", stream(f"{symbol}@trade"))
        await until(lambda: bridge.frames(f"{symbol}@trade"))
        for kind in ("text", "truncated", "unknown-event", "binary"):
            simulator.inject({"fault": "garbage", "kind": kind})
        await until(lambda: b"\x00\xff\xfe\x01\x80\xc1" in bridge.pipeline.payloads)
        seen = bridge.frames(f"{symbol}@trade")
        await until(lambda: bridge.frames(f"{symbol}@trade") > seen + 5)
        assert bridge.story.told("connection.closed") == []
        assert sum(1 for one in bridge.pipeline.payloads if not readable(one)) >= 3


def readable(payload):
    """Whether a message is JSON."""
    try:
        json.loads(payload)
    except ValueError:
        return False
    return True


async def test_rejected_subscriptions_name_their_streams_one_by_one():
    """While the exchange rejects everything, each stream is told; the connection stays."""
    async with simulated() as simulator, Bridge(simulator, quick()) as bridge:
        simulator.inject({"fault": "reject-subscriptions", "seconds": 60})
        await bridge.carry("spot", *[stream(f"s{number}usdt@trade") for number in range(4)])
        await until(lambda: len(bridge.story.told("connection.subscription-rejected")) == 4)
        rejected = bridge.story.told("connection.subscription-rejected")
        assert sorted(told.streams for told in rejected) == [(f"s{number}usdt@trade",) for number in range(4)]
        assert bridge.story.told("connection.closed") == []


async def test_a_ban_on_rest_leaves_streams_alone():
    """418 holds REST; the connections deliver on."""
    async with simulated() as simulator, Bridge(simulator, quick()) as bridge:
        symbol = (await bridge.symbols("spot", "/api/v3/exchangeInfo"))[0].lower()
        pool = await bridge.carry("spot", stream(f"{symbol}@trade"))
        await until(lambda: bridge.frames(f"{symbol}@trade"))
        simulator.inject({"fault": "ban", "status": 418, "seconds": 3600})
        with pytest.raises(Exception, match="banned"):
            await bridge.rest.get("spot", "/api/v3/time")
        await pool.add([stream(f"{symbol}@ticker", channel="ticker", first=0.01)])  # is asked about, in vain
        seen = bridge.frames(f"{symbol}@trade")
        await until(lambda: bridge.frames(f"{symbol}@trade") > seen + 5)
        assert bridge.story.told("connection.closed") == []
