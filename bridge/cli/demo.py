"""``binance-bridge demo``: what ``make demo`` runs."""

import asyncio
from typing import Annotated

import typer

from bridge.cli import stopping


def demo(
    *,
    seconds: Annotated[
        float | None, typer.Option(envvar="DEMO_SECONDS", min=1, help="End by itself after so many seconds.")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", envvar="LIVE", help="Read Binance's real public streams.")
    ] = False,
) -> None:
    """Show the whole system at work: a real Kafka, a simulated exchange with faults, the bridge and a consumer.

    Ends with a summary after so many seconds, or on Ctrl-C; leaves nothing behind.

    Example: binance-bridge demo --seconds 30
    """
    from bridge import logs
    from bridge.cli.run import run_loop
    from bridge.demo import demo as show

    async def main() -> None:
        stop = asyncio.Event()
        stopping.on_stop(stop.set)
        await show(seconds, stop, live=live)

    logs.configure("WARNING", "text")
    run_loop(main())
    stopping.ended()
