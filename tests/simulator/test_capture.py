"""Recorded traffic comes out of the simulator as it went in."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from websockets.asyncio.client import connect

from bridge.errors import ConfigError
from bridge.model import MARKETS, Market
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.capture import START_AFTER_MS, CaptureExchange
from bridge.simulator.wire import path_of
from tests.simulator.conftest import receive

if TYPE_CHECKING:
    from collections.abc import Iterable

CAPTURES = Path(__file__).parents[1] / "captures"
PATHS: dict[Market, str] = {"spot": "/api/v3", "usdm": "/fapi/v1", "coinm": "/dapi/v1"}


def _lines(market: Market) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.open(CAPTURES / f"{market}.jsonl.gz", "rt", encoding="utf-8")]


def _messages(market: Market) -> list[str]:
    return [line["message"] for line in _lines(market) if line["kind"] == "message"]


def _streams(messages: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(json.loads(message)["stream"] for message in messages))


async def _subscribe_and_read(url: str, streams: list[str], count: int) -> list[str]:
    """Subscribe to ``streams``, and return the ``count`` messages after the answer."""
    async with connect(url, proxy=None, compression=None, max_size=None) as socket:
        await socket.send(json.dumps({"method": "SUBSCRIBE", "params": streams, "id": 1}))
        assert json.loads(await receive(socket)) == {"result": None, "id": 1}
        return [str(await receive(socket)) for _ in range(count)]


@pytest.mark.parametrize("market", ["spot", "coinm"])
async def test_a_capture_is_replayed_byte_for_byte(market: Market, tmp_path: Path) -> None:
    """A combined connection gets every message of the capture in its order; the ground truth has them all."""
    messages, truth = _messages(market), tmp_path / "truth.jsonl"
    settings = SimulatorSettings(captures=(CAPTURES / f"{market}.jsonl.gz",), speed=0, ground_truth=truth)
    async with Simulator(settings) as simulator:
        url = simulator.endpoints[market]["stream"] + "/stream"
        assert await _subscribe_and_read(url, _streams(messages), len(messages)) == messages
        assert simulator.state()["done"] is True
    events = [line for line in map(json.loads, truth.read_text().splitlines()) if "n" in line]
    assert [f'{{"stream":"{e["stream"]}","data":{e["data"]}}}' for e in events] == messages


async def test_a_futures_capture_is_split_over_the_paths() -> None:
    """Each path of the USDⓈ-M host gets its streams' messages in their order, and together they are all."""
    messages = _messages("usdm")
    settings = SimulatorSettings(captures=(CAPTURES / "usdm.jsonl.gz",), speed=0)
    async with Simulator(settings) as simulator:
        wanted = {
            path: [m for m in messages if path_of(json.loads(m)["stream"]) == path]
            for path in ("public", "market")
        }
        assert all(wanted.values())
        got = await asyncio.gather(
            *(
                _subscribe_and_read(
                    f"{simulator.endpoints['usdm']['stream']}/{path}/stream", _streams(m), len(m)
                )
                for path, m in wanted.items()
            )
        )
    assert got == list(wanted.values())


async def test_a_raw_connection_gets_the_payload() -> None:
    """On a raw connection the recorded payload comes without its wrapper, byte for byte."""
    messages = _messages("spot")
    settings = SimulatorSettings(captures=(CAPTURES / "spot.jsonl.gz",), speed=0)
    async with Simulator(settings) as simulator:
        url = simulator.endpoints["spot"]["stream"] + "/ws"
        got = await _subscribe_and_read(url, _streams(messages), len(messages))
    assert got == [m[m.index('"data":') + 7 : -1] for m in messages]


@pytest.mark.parametrize("market", MARKETS)
async def test_recorded_answers_come_byte_for_byte(market: Market) -> None:
    """The exchange information and each symbol's depth are the recorded bodies; ping and time are made up."""
    recorded = {
        line["url"].partition(".com")[2]: line["body"] for line in _lines(market) if line["kind"] == "rest"
    }
    settings = SimulatorSettings(captures=(CAPTURES / f"{market}.jsonl.gz",))
    async with Simulator(settings) as simulator, aiohttp.ClientSession() as session:
        base = simulator.endpoints[market]["rest"]
        for path, body in recorded.items():
            async with session.get(f"{base}{path}") as response:
                assert (response.status, await response.text()) == (200, body)
        async with session.get(f"{base}{PATHS[market]}/ping") as response:
            assert await response.json() == {}
        async with session.get(f"{base}{PATHS[market]}/time") as response:
            assert set(await response.json()) == {"serverTime"}
        async with session.get(f"{base}{PATHS[market]}/depth?symbol=NOPE") as response:
            assert (response.status, await response.json()) == (
                400,
                {"code": -1121, "msg": "Invalid symbol."},
            )


async def test_several_captures_play_side_by_side() -> None:
    """Captures of several markets play at once, each when its own streams are subscribed."""
    spot = _messages("spot")
    paths = (CAPTURES / "spot.jsonl.gz", CAPTURES / "coinm.jsonl.gz")
    async with Simulator(SimulatorSettings(captures=paths, speed=0)) as simulator:
        url = simulator.endpoints["spot"]["stream"] + "/stream"
        assert await _subscribe_and_read(url, _streams(spot), len(spot)) == spot
        state = simulator.state()
    assert state["done"] is False
    assert state["replay"]["coinm"]["started"] is False


def _played(exchange: CaptureExchange, until_ms: int) -> list[str]:
    return [(emission.text or b"").decode() for emission in exchange.advance(until_ms)]


def test_playing_begins_when_every_stream_is_subscribed() -> None:
    """Nothing plays before the last stream that has messages is subscribed; then from the first message."""
    messages = _messages("spot")
    exchange = CaptureExchange([CAPTURES / "spot.jsonl.gz"])
    *streams, last = _streams(messages)
    for stream in streams:
        exchange.track("spot", stream)
    assert _played(exchange, 1_000) == []
    assert exchange.track("spot", last)
    assert _played(exchange, 5_000) == messages[:1]
    assert exchange.progress()["spot"] == (True, 1, len(messages))


def test_playing_begins_some_time_after_the_first_subscription() -> None:
    """Where some streams are never subscribed, playing begins ten seconds after the first was."""
    messages = _messages("spot")
    exchange = CaptureExchange([CAPTURES / "spot.jsonl.gz"])
    assert _played(exchange, START_AFTER_MS * 10) == []
    exchange.track("spot", _streams(messages)[0])
    assert _played(exchange, START_AFTER_MS * 20) == []
    assert _played(exchange, START_AFTER_MS * 21 - 1) == []
    assert _played(exchange, START_AFTER_MS * 21) == messages[:1]


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_playing_keeps_the_recorded_pace(speed: float) -> None:
    """At speed N a message comes when N times the time since the first has passed in the recording."""
    lines = [line for line in _lines("coinm") if line["kind"] == "message"]
    exchange = CaptureExchange([CAPTURES / "coinm.jsonl.gz"], speed)
    for stream in _streams(line["message"] for line in lines):
        exchange.track("coinm", stream)
    got = _played(exchange, 0) + _played(exchange, 5_000)
    first = lines[0]["at"]
    assert got == [line["message"] for line in lines if line["at"] - first <= 5 * speed]
    assert len(_played(exchange, 60_000)) == len(lines) - len(got)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "not a capture"),
        ('{"kind":"message","at":1,"message":"{}"}\n', "no URL in it tells the market"),
        ('{"kind":"connect","at":1,"url":"wss://example.org/ws"}\n', "'example.org' is no host of Binance"),
        (
            '{"kind":"connect","at":1,"url":"wss://stream.binance.com/ws"}\n{"kind":"message","at":1,"message":"{}"}\n',
            "not a message of a combined stream",
        ),
        ('{"at":1}\n', "KeyError: 'kind'"),
    ],
)
def test_what_is_no_capture_says_why(tmp_path: Path, text: str, message: str) -> None:
    """A file that cannot be replayed is one message with its name and the reason."""
    path = tmp_path / "some.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"some\.jsonl") as caught:
        CaptureExchange([path])
    assert message in str(caught.value)


def test_one_capture_for_each_market() -> None:
    """Two captures of one market are refused."""
    with pytest.raises(ConfigError, match="another capture of spot"):
        CaptureExchange([CAPTURES / "spot.jsonl.gz"] * 2)
