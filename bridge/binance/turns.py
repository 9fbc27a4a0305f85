"""Connections that are behind read one after another.

A socket that holds more than can be handled gives a thousand messages at each look. A dozen of them keep the event
loop busy for a second a round, and an answer of Kafka or a heartbeat of the group takes several rounds: what reads
too much at once loses its shards. So a connection that was given many messages waits for its turn, and in each round
of the loop one goes on; who keeps up never waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

BEHIND = 200
"""Messages of one wake-up from which on a connection waits for its turn: some milliseconds of work."""


class Turns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()

    def wait(self, go_on: Callable[[], object]) -> None:
        """Call ``go_on`` in a later round of the loop, behind all who wait already and alone in its round."""
        self._waiting.append(go_on)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        go_on = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        go_on()


_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns() -> Turns:
    """Return the turns of the running event loop, which all its connections share."""
    loop = asyncio.get_running_loop()
    found = _TURNS.get(loop)
    if found is None:
        found = _TURNS[loop] = Turns()
    return found
