"""Keeps current-state tables current: a reader of the state topic for each, from its beginning on, for ever."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from bridge.errors import DecodeError, NotInSync
from bridge.sdk.opening import Opener
from bridge.sdk.reading import decode
from bridge.sdk.records import CLASSES
from bridge.sdk.source import CaughtUp, Request
from bridge.sdk.table_state import TableState
from bridge.sdk.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.core.wire import Decoder
    from bridge.sdk.reading import Filter
    from bridge.sdk.source import Fetched, Reading, Source
    from bridge.sdk.topics import Topics

CLOSED = "it was closed"
"""Why a table ended that its owner let go of."""

_AT_ONCE = 100


class TableFeed(Watched):
    """The reader of one state topic, for one table.

    Args:
        structure: what the topic holds.
        topic: the topic.
        filter_: which records belong into the table.
        opener: opens its reading.
        decoder: decodes its values.

    Attributes:
        state: the rows.
        caught_up: whether everything has been read that lay in the topic when the reading began.
        reason: why the rows are not kept current any more; None while they are, and at the end of a source that
            has one.
    """

    def __init__(self, structure: str, topic: str, filter_: Filter, opener: Opener, decoder: Decoder) -> None:
        super().__init__(f"the {structure} table")
        self.structure, self.topic = structure, topic
        self.state: TableState[Any] = TableState(filter_.wants)
        self.caught_up = False
        self.reason: str | None = None
        self._class, self._accounts = CLASSES[structure], filter_.accounts
        self._opener, self._decoder = opener, decoder
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Begin to read, and wait until the table is caught up.

        Raises:
            TopicMismatch: the topic does not exist.
            KafkaUnavailable: no broker answers.
            NotInSync: it was closed before, or its source ended.
        """
        self._task = asyncio.create_task(self._run(), name=f"bridge-sdk {self.topic}")
        while not (self.caught_up or self.over):
            await self.wait()
        if not self.caught_up:
            raise self.error or NotInSync(f"{self.what} was not loaded: {self.reason or 'its source ended'}")

    async def aclose(self) -> None:
        """Stop reading; the rows stay as they are."""
        self._end(CLOSED)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            reading = await self._opener.open(Request(topics=(self.topic,), start="earliest"))
            try:
                await self._follow(reading)
            finally:
                await reading.close()
            self._end()
        except Exception as error:  # noqa: BLE001 - it is raised where the table is used
            self._end(f"its reader failed: {error}", error)

    async def _follow(self, reading: Reading) -> None:
        while found := await reading.fetch():
            for begin in range(0, len(found), _AT_ONCE):
                self._take(found[begin : begin + _AT_ONCE])
                await asyncio.sleep(0)  # what is there already must not hold up everybody else

    def _take(self, found: Sequence[Fetched | CaughtUp]) -> None:
        before = (self.version, self.caught_up)
        for fetched in found:
            if isinstance(fetched, CaughtUp):
                self.caught_up = True
            else:
                self.version += self._take_one(fetched)
        if (self.version, self.caught_up) != before:
            self.wake()

    def _take_one(self, fetched: Fetched) -> bool:
        """Take a record; return whether it has changed a row."""
        key = (fetched.key or b"").decode(errors="replace")
        if fetched.value is None:
            return self.state.delete(key)
        try:
            record = decode(self._decoder, fetched)
        except DecodeError as error:
            return self._fail(key, error)
        if not isinstance(record, self._class):
            place = f"{fetched.topic}, partition {fetched.partition}, offset {fetched.offset}"
            return self._fail(key, DecodeError(f"{place}: it is a {record.structure}"))
        return self.state.take(key, record)

    def _fail(self, key: str, error: DecodeError) -> bool:
        """Note a value that is no record, unless its key says that it is of an account that is not wanted."""
        accounts = self._accounts
        if accounts is not None and not any(key.startswith(f"{account}:") for account in accounts):
            return False
        return self.state.fail(key, error)

    def _end(self, reason: str | None = None, error: BaseException | None = None) -> None:
        if not self.over:
            self.over, self.reason, self.error = True, reason, error
            self.wake()


class Tables:
    """All tables of a client.

    Args:
        source: where records come from.
        topics: their topics.
        decoder: decodes their values.
    """

    def __init__(self, source: Source, topics: Topics, decoder: Decoder) -> None:
        self._opener, self._topics, self._decoder = Opener(source), topics, decoder
        self._feeds: set[TableFeed] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def load(self, structure: str, filter_: Filter, timeout: float | None) -> TableFeed:
        """Return a table's feed that is caught up.

        Raises:
            TimeoutError: it is not in time; says how far it came.
            TopicMismatch: the topic does not exist.
            KafkaUnavailable: no broker answers.
            NotInSync: the client was closed before.
        """
        topic = self._topics.state(structure)
        feed = TableFeed(structure, topic, filter_, self._opener, self._decoder)
        self._feeds.add(feed)
        try:
            async with asyncio.timeout(timeout):
                await feed.load()
        except TimeoutError:
            await self.drop(feed)
            raise TimeoutError(
                f"{feed.what} was not loaded within {timeout:g} s: {len(feed.state.rows)} rows of {topic} were read"
            ) from None
        except BaseException:
            await self.drop(feed)
            raise
        return feed

    async def drop(self, feed: TableFeed) -> None:
        """Stop a feed."""
        self._feeds.discard(feed)
        await feed.aclose()

    def drop_with(self, owner: object, feed: TableFeed) -> None:
        """Stop a feed once nobody holds ``owner``."""
        loop = asyncio.get_running_loop()

        def soon() -> None:
            if not loop.is_closed() and feed in self._feeds:
                loop.call_soon_threadsafe(self._drop_soon, feed)

        weakref.finalize(owner, soon).atexit = False

    def _drop_soon(self, feed: TableFeed) -> None:
        task = asyncio.ensure_future(self.drop(feed))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """End all tables and stop reading."""
        while self._feeds:
            await self.drop(next(iter(self._feeds)))
        await asyncio.gather(*self._closing)
        await self._opener.aclose()
