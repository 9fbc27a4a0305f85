"""Waiting for what comes first, and for the turn to connect."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.binance.clock import Clock
    from bridge.core.backoff import AttemptBudget


async def first_of(*events: asyncio.Event, timeout: float | None = None) -> None:
    """Wait until one of the events is set, or the time is over."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def attempt_allowed(budget: AttemptBudget, clock: Clock) -> None:
    """Wait until an attempt to connect may be made; it is given back where that is cancelled."""
    wait = budget.reserve(clock.monotonic())
    try:
        while wait > 0:
            await asyncio.sleep(wait)
            wait = budget.held(clock.monotonic())  # someone may have been refused meanwhile
    except asyncio.CancelledError:
        budget.give_back()
        raise
