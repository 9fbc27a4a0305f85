"""``binance-bridge demo``: what ``make demo`` runs."""

import asyncio
import signal
from typing import Annotated

import typer


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
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await show(seconds, stop, live=live)

    logs.configure("WARNING", "text")
    run_loop(main())
