"""Something that changes in the background, and those who wait for its changes."""

from __future__ import annotations

import asyncio

from bridge.errors import NotInSync


class Watched:
    """Counts the changes of something until it is over.

    Args:
        what: its name, for errors.

    Attributes:
        version: grows with every change.
        over: whether no more change will come.
        error: why not, where that was an error.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.version = 0
        self.over = False
        self.error: BaseException | None = None
        self._waiting: list[asyncio.Future[None]] = []

    async def changed(self, since: int | None = None) -> int:
        """Wait until the version is beyond ``since``, or the present one, and return it.

        Raises:
            NotInSync: no change will come.
            BridgeError: no change will come, for this reason.
        """
        seen = self.version if since is None else since
        while self.version <= seen:
            if self.over:
                raise self.error or NotInSync(f"{self.what} has ended")
            await self.wait()
        return self.version

    async def wait(self) -> None:
        """Wait for the next change or the end."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def wake(self) -> None:
        """Let all who wait look again."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
