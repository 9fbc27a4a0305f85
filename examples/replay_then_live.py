"""Replay the last minutes, then go on live: no record twice, none missing, and gaps told.

python examples/replay_then_live.py localhost:9092 prod BTC/USDT --start=-15m
"""

import argparse
import asyncio
import contextlib
from decimal import Decimal

from bridge.sdk import CaughtUp, GapMarker, connect


async def main() -> None:
    """Read until the count is reached or Ctrl-C."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("bootstrap_servers")
    arguments.add_argument("environment", choices=("prod", "demo", "testnet"))
    arguments.add_argument("symbol", help="unified symbol")
    arguments.add_argument("--start", default="-15m", help="-15m, or a time such as 2026-11-01T00:00Z")
    arguments.add_argument("--count", type=int, default=0, help="stop after so many trades")
    given = arguments.parse_args()

    seen, volume = 0, Decimal(0)
    async with connect(given.bootstrap_servers, environment=given.environment) as client:
        async for item in client.trades(given.symbol, start=given.start, markers=True):
            if isinstance(item, CaughtUp):
                print(f"— live from here on; {seen} trades replayed", flush=True)
                continue
            if isinstance(item, GapMarker):
                gap = item.gap
                print(
                    f"— {gap.status} gap: {gap.firstSequence} to {gap.lastSequence} ({gap.cause})", flush=True
                )
                continue
            seen, volume = seen + 1, volume + item.amount
            print(f"{item.datetime} {item.symbol} {item.price}, volume so far {volume}", flush=True)
            if seen == given.count:
                break


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
