"""``binance-bridge run``: the bridge itself."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

from bridge.cli import stopping
from bridge.cli.options import ConfigOption, EnvironmentOption, settings_from

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from bridge.config import Settings


def run(*, config: ConfigOption = None, environment: EnvironmentOption = None) -> None:
    """Run the bridge until SIGTERM or SIGINT.

    It stops by draining: connections close, everything received is published, then it exits with status 0.

    Example: binance-bridge run --config bridge.yaml --environment prod
    """
    from bridge import logs

    settings = settings_from(config, environment)
    logs.configure(settings.log.level, settings.log.format)
    run_loop(_serve(settings))
    stopping.ended()


async def _serve(settings: Settings) -> None:
    from bridge.account_keys import account_keys
    from bridge.app import Bridge

    stop = asyncio.Event()
    stopping.on_stop(stop.set)
    await Bridge(settings, keys=partial(account_keys, settings, os.environ)).run(stop)


def run_loop(main: Coroutine[object, object, None]) -> None:
    """Run ``main`` on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
