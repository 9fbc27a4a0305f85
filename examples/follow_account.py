"""Follow an account: print its balances and open orders, and again whenever an order changes.

python examples/follow_account.py localhost:9092 prod main
"""

import argparse
import asyncio
import contextlib

from bridge.sdk import Balance, OrderTable, Table, connect


def show(balances: Table[Balance], orders: OrderTable) -> None:
    """Print what the account has and what it has asked for."""
    held = [f"{row.currency} {row.total or 0:f}" for row in balances.values() if row.total]
    print(f"{', '.join(sorted(held)) or 'nothing'} | {len(orders.open())} open orders", flush=True)
    for order in orders.open():
        print(
            f"  {order.symbol} {order.side} {order.remaining} of {order.amount} @ {order.price}", flush=True
        )


async def main() -> None:
    """Follow until the count is reached or Ctrl-C."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("bootstrap_servers")
    arguments.add_argument("environment", choices=("prod", "demo", "testnet"))
    arguments.add_argument("account", help="its name in the bridge's configuration")
    arguments.add_argument("--count", type=int, default=0, help="stop after it was shown so often")
    given = arguments.parse_args()

    async with connect(given.bootstrap_servers, environment=given.environment) as client:
        balances = await client.table("balance", account=given.account, timeout=120)
        orders = await client.table("order", account=given.account, timeout=120)
        version, shown = orders.version, 0
        while True:
            show(balances, orders)
            shown += 1
            if shown == given.count:
                break
            version = await orders.changed(version)  # several changes that came together are shown as one


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
