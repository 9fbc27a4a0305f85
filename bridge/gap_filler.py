"""Asks REST for what streams miss, a few pages at a time, within the request weight.

The answers reach the gaps where every answer goes, through the REST client's ``on_reply``; here only what is asked
when is seen to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Protocol

from bridge.core.gap_queue import Ask, GapKey, GapQueue
from bridge.errors import RateLimited, RequestRefused, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.binance.rest import RestClient
    from bridge.core.gap_filling import StreamGaps
    from bridge.core.history import Page
    from bridge.model import Market, Stream

log = logging.getLogger("bridge")

_AT_ONCE = 3
_REFUSED, _SERVER_ERROR = 400, 500
_PASSING = frozenset({403, 451})
"""The firewall, or the place we ask from: not the request itself is refused."""


class Gaps(Protocol):
    """The open gaps of all streams of a process."""

    def of(self, market: Market, stream: str) -> StreamGaps | None:
        """Return the gaps of a stream whose past can be had."""

    def give_up(self, market: Market, stream: str, page: Page, reason: str, at: int) -> None:
        """End the gap that a page begins with: it can't be asked for (``at`` in microseconds)."""


class GapFiller:
    """Fills the gaps of a process.

    Args:
        rest: whom to ask.
        gaps: the gaps.
        weight_share: which share of each IP limit may be spent.
        attempts: requests that may fail before a gap is given up.
        now: the wall clock, seconds.
    """

    def __init__(
        self,
        rest: RestClient,
        gaps: Gaps,
        *,
        weight_share: float,
        attempts: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rest, self._gaps, self._now = rest, gaps, now
        self._queue = GapQueue(weight_share, attempts, gaps.of)
        self._changed = asyncio.Event()
        self._asking = 0

    def found(self, stream: Stream) -> None:
        """Take note of a gap that can be filled."""
        self._queue.want(GapKey(stream.market, stream.name), self._now())
        self._changed.set()

    async def run(self) -> None:
        """Ask for what is missing until cancelled."""
        async with asyncio.TaskGroup() as requests:
            while True:
                self._changed.clear()
                turn = self._next()
                if isinstance(turn, Ask):
                    self._asking += 1
                    requests.create_task(self._ask(turn))
                    continue
                try:
                    async with asyncio.timeout(turn):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _next(self) -> Ask | float | None:
        if self._asking >= _AT_ONCE:
            return None
        self._queue.limits.update({name: budget.limit for name, budget in self._rest.budgets.items()})
        return self._queue.next(self._now())

    async def _ask(self, ask: Ask) -> None:
        try:
            await self._rest.get(ask.key.market, ask.path, ask.query, background=True)
        except RateLimited as error:
            self._queue.hold(ask.key, self._now(), error.retry_after)
        except SourceError as error:
            if self._queue.failed(ask.key, self._now(), final=_is_final(error)):
                log.warning("a gap of %s is given up: %s", ask.key.stream, error)
                at = int(self._now() * 1_000_000)
                self._gaps.give_up(*ask.key, ask.page, str(error), at)
        else:
            self._queue.answered(ask.key, self._now())
        finally:
            self._asking -= 1
            self._changed.set()


def _is_final(error: SourceError) -> bool:
    return (
        isinstance(error, RequestRefused)
        and _REFUSED <= error.status < _SERVER_ERROR
        and error.status not in _PASSING
    )
