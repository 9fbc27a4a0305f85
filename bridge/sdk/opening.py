"""Opens readings of a source so that nothing is left open, whoever stops waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from bridge.sdk.source import Reading, Request, Source

T = TypeVar("T")


class Opener:
    """Opens readings of a source.

    What is broken off half-way leaves connections behind. So where nobody waits any more a reading is opened to
    the end all the same, and closed then.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._late: set[asyncio.Task[Any]] = set()

    async def open(self, request: Request) -> Reading:
        """Return an open reading; for the errors see :meth:`bridge.sdk.source.Reading.open`."""
        reading = self._source.read(request)
        opening = asyncio.create_task(reading.open())
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._do(self._close(reading, opening))
            raise
        return reading

    async def partition(self, topic: str, key: bytes) -> int:
        """Return the partition of a key; see :meth:`bridge.sdk.source.Source.partition`."""
        return await asyncio.shield(self._do(self._source.partition(topic, key)))

    async def aclose(self) -> None:
        """Wait for what is still being opened or closed."""
        await asyncio.gather(*self._late, return_exceptions=True)

    async def _close(self, reading: Reading, opening: asyncio.Task[None]) -> None:
        await asyncio.wait({opening})
        if opening.exception() is None:
            await reading.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._late.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; if nobody does, nobody misses it
