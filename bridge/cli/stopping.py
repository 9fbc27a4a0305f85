"""SIGTERM and SIGINT end a command in order, however often they come."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_stop(stop: Callable[[], object]) -> None:
    """Call ``stop`` on the running loop at each of the signals."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop)


def ended() -> None:
    """Let the signals do nothing from now on: the loop is closed, what is left is to leave with our own status.

    A closing loop gives the signals back to the system, and another one would then count as death by signal.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
