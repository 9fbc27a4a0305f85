"""The simulator with its own made-up market."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import aiohttp
import pytest
from websockets.asyncio.client import connect

from bridge.errors import ConfigError
from bridge.simulator import Simulator, SimulatorSettings
from tests.simulator.conftest import ask, receive

if TYPE_CHECKING:
    from pathlib import Path

STREAMS = ["btcusdt@trade", "btcusdt@aggTrade", "btcusdt@bookTicker", "btcusdt@depth@100ms"]


async def test_what_is_received_is_in_the_ground_truth(tmp_path: Path) -> None:
    """Every message of a connection is in the ground truth, in the same order, and none between is missing."""
    path = tmp_path / "truth.jsonl"
    settings = SimulatorSettings(symbols=2, rate=2000, ground_truth=path)
    async with Simulator(settings) as simulator:
        url = f"{simulator.endpoints['spot']['stream']}/stream"
        async with connect(url, proxy=None, compression=None) as socket:
            await ask(socket, "SUBSCRIBE", STREAMS)
            received = [json.loads(await receive(socket)) for _ in range(300)]
        async with aiohttp.ClientSession() as session:
            rest = f"{simulator.endpoints['spot']['rest']}/api/v3/depth?symbol=BTCUSDT"
            async with session.get(rest) as response:
                assert response.headers["X-MBX-USED-WEIGHT-1M"] == "5"
                assert (await response.json())["bids"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    truth = [(line["stream"], json.loads(line["data"])) for line in lines if "n" in line]
    assert truth[:300] == [(message["stream"], message["data"]) for message in received]
    trades = [data["t"] for stream, data in truth if stream == "btcusdt@trade"]
    assert trades == list(range(trades[0], trades[0] + len(trades)))


@pytest.mark.parametrize("settings", [{"symbols": 0}, {"rate": 0}])
def test_an_empty_market_is_refused(settings: dict[str, int]) -> None:
    """A market without symbols or without anything going on is a configuration error."""
    with pytest.raises(ConfigError, match="at least one symbol and a rate above 0"):
        Simulator(SimulatorSettings(**settings))
