"""Carries out on a transport what a session wants: frames in their order, ticks in time, the end for certain."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from bridge.core.connection_life import Close, Ping, Send
from bridge.errors import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from bridge.binance.transport import Transport
    from bridge.core.connection_settings import ConnectionSettings

log = logging.getLogger("bridge")


class Driver:
    """The tasks of one connection. When a task fails, the socket is cut off: the connection's owner opens another.

    Args:
        name: of the connection, for the names of its tasks.
        settings: times and sizes.
        tick: called at least every ``wake_in`` seconds, and whenever something was put out.
        wake_in: seconds until ``tick`` is due at the latest.

    Attributes:
        closed: set when the socket is gone.
        failure: why a task failed, where one did.
    """

    def __init__(
        self, name: str, settings: ConnectionSettings, tick: Callable[[], None], wake_in: Callable[[], float]
    ) -> None:
        self.closed = asyncio.Event()
        self.failure: Exception | None = None
        self._name, self._settings = name, settings
        self._tick, self._wake_in = tick, wake_in
        self._transport: Transport | None = None
        self._outgoing: deque[Send | Ping | Close] = deque()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._beside: set[asyncio.Task[None]] = set()

    def begin(self, transport: Transport) -> None:
        """Begin to drive an open transport."""
        self._transport = transport
        self._start(self._drive(transport), "drive")

    def put(self, effect: Send | Ping | Close) -> None:
        """Let a frame leave, or close the socket, after everything put before."""
        self._outgoing.append(effect)
        self._wake.set()

    def beside(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run something beside the frames; it is cancelled when the socket is gone."""
        task = self._start(work, name)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def ended(self) -> None:
        """Note that the socket is gone."""
        self.closed.set()
        self._wake.set()
        for task in self._beside:
            task.cancel()

    def cut(self) -> None:
        """Cut the socket off, without a closing handshake."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the socket is gone and every task has ended."""
        if self._transport is None:
            return
        await self.closed.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Wait out a closing handshake, at most ``close_seconds``; when it returns, nothing is left."""
        try:
            async with asyncio.timeout(self._settings.close_seconds + self._settings.send_seconds):
                await self.wait_closed()
        except TimeoutError:
            self.cut()
            await self.wait_closed()

    async def _drive(self, transport: Transport) -> None:
        while not self.closed.is_set():
            while self._outgoing:
                await self._put_out(transport, self._outgoing.popleft())
            try:
                async with asyncio.timeout(self._wake_in()):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            self._tick()

    async def _put_out(self, transport: Transport, effect: Send | Ping | Close) -> None:
        if isinstance(effect, Close):
            if effect.abort:
                transport.abort()
            else:
                await transport.close(effect.code, effect.reason)
            return
        try:
            async with asyncio.timeout(self._settings.send_seconds):
                if isinstance(effect, Send):
                    await transport.send(effect.payload)
                else:
                    await transport.ping()
        except TimeoutError:
            transport.abort()  # a peer that doesn't read is gone
        except ConnectionLost:
            pass  # the transport tells its end by itself

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"connection {self._name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._stopped)
        return task

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Exception):
            log.error("%s failed", task.get_name(), exc_info=error)
            self.failure = error
            self.cut()
