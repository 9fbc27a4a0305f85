"""Asks REST for the snapshots that order books want, a few at a time, within the request weight.

The answers reach the books where every answer goes, through the REST client's ``on_reply``; here only who is asked
when is seen to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from bridge.core.book_queue import DEPTH_PATH, Ask, BookKey, BookQueue
from bridge.core.book_sync import CHANNEL, Happening, Synced, Wanted
from bridge.errors import ConfigError, RateLimited, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.binance.rest import RestClient
    from bridge.model import Market, Stream

log = logging.getLogger("bridge")

_AT_ONCE = 6
_TELL_SECONDS = 30.0
_FIRST_TELL_SECONDS = 1.0


def require_one_speed(market: Market, streams: Iterable[Stream]) -> None:
    """Refuse two speeds of one symbol's changes: each is a chain of its own, and one key cannot hold both.

    Raises:
        ConfigError: names the streams.
    """
    known: dict[str | None, str] = {}
    for stream in streams:
        if stream.channel == CHANNEL and known.setdefault(stream.symbol, stream.name) != stream.name:
            raise ConfigError(
                f"{market}: {known[stream.symbol]} and {stream.name} are both subscribed to, and consumers could not "
                "tell their changes apart; keep one speed of depth for a symbol"
            )


class Books:
    """The snapshots of all books of a process.

    Args:
        rest: whom to ask.
        depth: levels a side.
        weight_share: which share of each IP limit may be spent.
        busy: how many changes came of a book's stream.
        now: the wall clock, seconds.
    """

    def __init__(
        self,
        rest: RestClient,
        *,
        depth: int,
        weight_share: float,
        busy: Callable[[BookKey], int],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rest, self._busy, self._now = rest, busy, now
        self._queue = BookQueue(depth, weight_share)
        self._changed = asyncio.Event()
        self._asking = 0
        self._tell_at = 0.0

    @property
    def waiting(self) -> int:
        """How many books wait for a snapshot."""
        return len(self._queue)

    def estimate_seconds(self) -> float:
        """Return in how many seconds all that wait will have been asked for."""
        return self._queue.estimate_seconds(self._now())

    def happened(self, stream: Stream, happening: Happening) -> None:
        """Take note of what a book told."""
        key, now = BookKey(stream.market, stream.name), self._now()
        if isinstance(happening, Wanted):
            if not self.waiting:
                self._tell_at = now + _FIRST_TELL_SECONDS
            self._queue.want(key, stream.symbol or "", happening.urgency, now)
            self._changed.set()
        elif isinstance(happening, Synced):
            self._queue.joined(key, now)

    async def run(self) -> None:
        """Ask for what is wanted until cancelled."""
        async with asyncio.TaskGroup() as requests:
            while True:
                self._changed.clear()
                turn = self._next()
                if isinstance(turn, Ask):
                    self._asking += 1
                    requests.create_task(self._ask(turn))
                    continue
                try:
                    async with asyncio.timeout(self._until_told(turn)):
                        await self._changed.wait()
                except TimeoutError:
                    self._tell()

    def _next(self) -> Ask | float | None:
        if self._asking >= _AT_ONCE:
            return None
        self._queue.limits.update({name: budget.limit for name, budget in self._rest.budgets.items()})
        return self._queue.next(self._now(), self._busy)

    async def _ask(self, ask: Ask) -> None:
        market = ask.key.market
        try:
            await self._rest.get(
                market, DEPTH_PATH[market], {"symbol": ask.symbol, "limit": ask.limit}, background=True
            )
        except RateLimited as error:
            self._queue.hold(market, self._now(), error.retry_after)
            self._queue.failed(ask.key, self._now())
        except SourceError as error:
            wait = self._queue.failed(ask.key, self._now())
            log.warning("the book of %s: %s; asking again in %.1f s", ask.symbol, error, wait)
        else:
            self._queue.answered(ask.key)
        finally:
            self._asking -= 1
            self._changed.set()

    def _until_told(self, seconds: float | None) -> float | None:
        if not self.waiting:
            return None
        until = max(0.0, self._tell_at - self._now())
        return until if seconds is None else min(until, seconds)

    def _tell(self) -> None:
        now = self._now()
        if self.waiting and now >= self._tell_at:
            self._tell_at = now + _TELL_SECONDS
            log.info(
                "%d order books wait for a snapshot; the last will be asked for in about %.0f s",
                self.waiting,
                self.estimate_seconds(),
            )
