"""The how-to page for consumers is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from bridge.sdk import Gap, Ohlcv, Ticker, Trade, testing

PAGE = (Path(__file__).parents[2] / "docs/how-to/consume.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NOVEMBER = 1_793_491_200_000_000


@pytest.mark.parametrize("block", BLOCKS, ids=[str(n) for n in range(len(BLOCKS))])
async def test_each_block_runs(block):
    """Each Python block compiles, and those that take a client run with one fed from a list."""
    code = compile(block, "consume.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if "localhost" in block:
        return
    fields = {"symbol": "BTC/USDT", "timestamp": NOVEMBER}
    given = [
        testing.record(Trade, channel="agg-trade", price="1.5", **fields),
        testing.record(Ohlcv, timeframe="1m", **fields),
        testing.record(Gap, symbol="BTC/USDT", channel="trade", detectedAt=NOVEMBER),
        testing.record(Ticker, last="2.5", **fields),
    ]
    async with testing.connect(given) as client:
        running = eval(code, {"client": client})
        if running is not None:
            await running


def test_every_name_of_the_page_is_there():
    """Each method that the page names exists on the client."""
    for name in re.findall(r"client\.(\w+)", PAGE):
        assert hasattr(testing.TestClient, name), name
