"""Print trades as they happen.

python examples/consume_trades.py localhost:9092 prod BTC/USDT ETH/USDT
"""

import argparse
import asyncio
import contextlib

from bridge.sdk import connect


async def main() -> None:
    """Read until the count is reached or Ctrl-C."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("bootstrap_servers")
    arguments.add_argument("environment", choices=("prod", "demo", "testnet"))
    arguments.add_argument("symbols", nargs="*", help="unified symbols; none means all")
    arguments.add_argument("--count", type=int, default=0, help="stop after so many trades")
    given = arguments.parse_args()

    seen = 0
    async with connect(given.bootstrap_servers, environment=given.environment) as client:
        async for trade in client.trades(given.symbols or None):
            print(f"{trade.datetime} {trade.symbol} {trade.side} {trade.amount} @ {trade.price}", flush=True)
            seen += 1
            if seen == given.count:
                break


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
