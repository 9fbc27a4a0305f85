"""Follow an order book: print its top at each change, and say when it is not to be trusted.

python examples/follow_book.py localhost:9092 prod BTC/USDT
"""

import argparse
import asyncio
import contextlib

from bridge.sdk import LiveBook, connect


def show(book: LiveBook) -> None:
    """Print the best prices, or why there are none to be trusted."""
    if not book.in_sync:
        print(f"— not in sync: {book.reason}", flush=True)
        return
    bid, ask = book.best_bid, book.best_ask
    if bid is None or ask is None:
        print("— a side of the book is empty", flush=True)
        return
    time = book.as_ccxt(1)["datetime"] or "—"
    print(
        f"{time} {bid.amount} @ {bid.price} | {ask.amount} @ {ask.price}  mid {book.mid}, spread {book.spread}",
        flush=True,
    )


async def main() -> None:
    """Follow until the count is reached or Ctrl-C."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("bootstrap_servers")
    arguments.add_argument("environment", choices=("prod", "demo", "testnet"))
    arguments.add_argument("symbol", help="unified symbol")
    arguments.add_argument("--count", type=int, default=0, help="stop after so many lines")
    given = arguments.parse_args()

    async with connect(given.bootstrap_servers, environment=given.environment) as client:
        book = await client.order_book(given.symbol, timeout=120)
        version, shown = book.version, 0
        while True:
            show(book)
            shown += 1
            if shown == given.count:
                break
            version = await book.changed(version)  # several changes that came together are shown as one


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
