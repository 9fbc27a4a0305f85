"""Keeps live books current: one reader for all books of a partition, one for gaps, one for lifecycle events.

A book starts from the newest whole snapshot. It is entered with the partition's reader first, which puts its
records by from then on; then the partition is read back, by spans that grow, up to its present end. What was put
by follows on that, told apart by offsets, so that there is no seam.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from bridge.errors import DecodeError, NotInSync, TopicMismatch
from bridge.sdk.book_followed import CLOSED, Followed, Wish
from bridge.sdk.book_state import BookState
from bridge.sdk.opening import Opener
from bridge.sdk.reading import decode
from bridge.sdk.record import Record
from bridge.sdk.records import Gap, Lifecycle, OrderBook
from bridge.sdk.source import CaughtUp, Fetched, Request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from bridge.core.wire import Decoder
    from bridge.sdk.source import Reading, Source
    from bridge.sdk.topics import Topics

R = TypeVar("R", bound=Record)
_SPANS = (1.25, 2.5, 5, 10, 40, 160, 640, 2560, 10240, 40960)
"""How far is read back for a snapshot, in snapshot intervals; the last is a month of minutes.

A symbol whose book does not change has no new snapshot, however long ago its last one was.
"""
_EDGE_MS = 5_000
"""Records that much older than a snapshot prove that reading back has found all that follow it."""
_AT_ONCE = 100
_ENDED = "the client was closed before there was an order book"


@dataclass(slots=True)
class _Look:
    """What reading back has found for a book.

    Attributes:
        state: the book at the end of what was read.
        offset: the last record's.
        first_ms: time of the first record.
        snapshot_ms: time of the newest whole snapshot.
    """

    state: BookState
    offset: int = -1
    first_ms: int | None = None
    snapshot_ms: int | None = None

    def take(self, fetched: Fetched, record: OrderBook | DecodeError) -> None:
        """Take the next record."""
        self.offset = fetched.offset
        if self.first_ms is None:
            self.first_ms = fetched.timestamp
        if isinstance(record, DecodeError):
            self.state.lose(f"a value is no record: {record}")
            return
        before = self.state.seen.snapshots
        self.state.take(record)
        if self.state.seen.snapshots > before:
            self.snapshot_ms = fetched.timestamp

    @property
    def settled(self) -> bool:
        """Whether reading further back would find nothing else.

        A change may lie just before the time that was read from though it follows the snapshot: then a link is
        missing that is there. Not so where older records are among those read.
        """
        if self.snapshot_ms is None or self.first_ms is None:
            return False
        return self.state.in_sync or self.snapshot_ms - self.first_ms >= _EDGE_MS


class _Search(NamedTuple):
    """A book that waits for its partition to be read back."""

    followed: Followed
    found: asyncio.Future[_Look]


class Feed:
    """The reader of one partition, for all books of it.

    Args:
        opener: opens readings.
        topic: the order books' topic.
        decoder: decodes their values.
        over: called when the feed is not to be used any more.
    """

    def __init__(self, opener: Opener, topic: str, decoder: Decoder, over: Callable[[Feed], None]) -> None:
        self._opener, self._topic, self._decoder, self._over = opener, topic, decoder, over
        self._keys: set[bytes] = set()
        self._books: defaultdict[bytes, list[Followed]] = defaultdict(list)
        self._opening: asyncio.Task[None] | None = None
        self._reading: Reading | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._searches: defaultdict[int, list[_Search]] = defaultdict(list)
        self._searching: set[int] = set()

    @property
    def books(self) -> list[Followed]:
        """All books of the partition."""
        return [followed for group in self._books.values() for followed in group]

    def enter(self, followed: Followed) -> None:
        """Put by what comes of a book's symbol, from the moment :meth:`start` has opened the reader on."""
        key = followed.state.symbol.encode()
        self._books[key].append(followed)
        self._keys.add(key)

    async def leave(self, followed: Followed) -> None:
        """Forget a book; with the last one the reader ends."""
        key = followed.state.symbol.encode()
        group = self._books.get(key, [])
        if followed in group:
            group.remove(followed)
        if not group:
            self._books.pop(key, None)
            self._keys.discard(key)
        if not self._books:
            await self.aclose()

    async def start(self, followed: Followed) -> None:
        """Find a book's newest whole snapshot, and let it go on from there.

        Where there is none it begins with the next one that comes.
        """
        await self._ready()
        look = _Look(_fresh(followed))
        came = asyncio.ensure_future(followed.snapshot_came.wait())
        try:
            for span in _SPANS:
                found = await self._search(followed, round(span * followed.wish.interval * 1000), came)
                look = found or look
                if look.settled or came.done():
                    break
        finally:
            came.cancel()
        followed.heard = asyncio.get_running_loop().time()
        if look.settled or not followed.snapshot_came.is_set():
            followed.begin(look.state, look.offset)
        else:
            followed.begin(_fresh(followed), after=-1)

    async def aclose(self) -> None:
        """Stop reading; the books end."""
        self._over(self)
        for followed in self.books:
            followed.end(CLOSED)
        tasks = [*self._tasks, *((self._opening,) if self._opening else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._reading is not None:
            await self._reading.close()

    async def _ready(self) -> None:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        # The set of keys grows with the books: what is put in later lies in the same partition.
        request = Request(topics=(self._topic,), keys=self._keys)
        try:
            self._reading = await self._opener.open(request)
        except BaseException:
            self._over(self)
            raise
        self._do(self._pump(self._reading))

    async def _pump(self, reading: Reading) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with contextlib.aclosing(_records(reading, self._decoder, OrderBook)) as records:
                async for fetched, record in records:
                    now = loop.time()
                    for followed in self._books.get(fetched.key or b"", ()):
                        followed.give(fetched.offset, record, now)
        except Exception as error:  # noqa: BLE001 - it is raised where somebody waits for changes
            self._over(self)
            for followed in self.books:
                followed.end(f"its reader failed: {error}", error)
        else:
            for followed in self.books:
                followed.end()

    async def _search(self, followed: Followed, span_ms: int, unless: asyncio.Future[Any]) -> _Look | None:
        """Read the partition back, once for all books that want it at the time; None where ``unless`` came first."""
        found: asyncio.Future[_Look] = asyncio.get_running_loop().create_future()
        self._searches[span_ms].append(_Search(followed, found))
        if span_ms not in self._searching:
            self._searching.add(span_ms)
            self._do(self._search_for_all(span_ms))
        try:
            await asyncio.wait({found, unless}, return_when=asyncio.FIRST_COMPLETED)
            return found.result() if found.done() else None
        finally:
            found.cancel()

    async def _search_for_all(self, span_ms: int) -> None:
        searches: Sequence[_Search] = ()
        try:
            while searches := self._searches.pop(span_ms, ()):
                looks = {search.found: _Look(_fresh(search.followed)) for search in searches}
                try:
                    await _while_wanted(looks, self._read_back(looks.values(), span_ms))
                except Exception as error:  # noqa: BLE001 - it is raised where the book is asked for
                    _fail(looks, error)
                for found, look in looks.items():
                    if not found.done():
                        found.set_result(look)
        finally:
            self._searching.discard(span_ms)
            left = (*searches, *self._searches.pop(span_ms, ()))
            _fail([search.found for search in left], NotInSync(_ENDED))

    async def _read_back(self, looks: Iterable[_Look], span_ms: int) -> None:
        by_key: defaultdict[bytes, list[_Look]] = defaultdict(list)
        for look in looks:
            by_key[look.state.symbol.encode()].append(look)
        request = Request(
            topics=(self._topic,), keys=frozenset(by_key), start=f"-{span_ms}ms", end="now", late=None
        )
        reading = await self._opener.open(request)
        async with contextlib.aclosing(_records(reading, self._decoder, OrderBook)) as records:
            async for fetched, record in records:
                for look in by_key.get(fetched.key or b"", ()):
                    look.take(fetched, record)

    def _do(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Books:
    """All live books of a client.

    Args:
        source: where records come from.
        topics: their topics.
        decoder: decodes their values.
    """

    def __init__(self, source: Source, topics: Topics, decoder: Decoder) -> None:
        self._opener, self._decoder = Opener(source), decoder
        self._topic = topics.structure("order-book")
        self._feeds: dict[int, Feed] = {}
        self._names = _Names(self._opener, self._topic, decoder)
        self._news = [
            _News(self._opener, topics.structure(class_.structure), decoder, class_, self.tell)
            for class_ in (Gap, Lifecycle)
        ]
        self._watch: asyncio.Task[None] | None = None
        self._closed = False

    async def follow(self, symbol: str, market: str | None, wish: Wish) -> Followed:
        """Return a book that is in sync.

        Raises:
            TimeoutError: it is not in time; says what was found instead.
            TopicMismatch: the topic does not exist.
            KafkaUnavailable: no broker answers.
        """
        if self._watch is None:
            self._watch = asyncio.create_task(self._listen(), name="bridge-sdk books")
        followed: Followed | None = None
        try:
            async with asyncio.timeout(wish.timeout):
                for news in self._news:
                    await news.ready()
                unified = (
                    symbol if "/" in symbol else await self._names.of(symbol, market or "", wish.interval)
                )
                feed = await self._feed(unified)
                followed = Followed(unified, market, wish, feed)
                feed.enter(followed)
                await feed.start(followed)
                while not followed.state.in_sync:
                    await followed.changed()
        except BaseException as error:
            told = self._told(error, symbol, market, wish, followed)
            if self._closed and isinstance(error, asyncio.CancelledError) and not _asked_to_stop():
                # What was being opened was cancelled by the close; nobody cancelled who waits for the book.
                told = NotInSync(f"{symbol}: {CLOSED}")
            if followed is not None:
                await followed.aclose()
            if told is not None:
                raise told from None
            raise
        return followed

    def tell(self, news: Gap | Lifecycle) -> None:
        """Let all books heed a gap or a resynchronisation."""
        for feed in self._feeds.values():
            for followed in feed.books:
                followed.tell(news)

    async def aclose(self) -> None:
        """End all books and stop reading."""
        self._closed = True
        tasks = [self._watch] if self._watch is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._feeds:
            _, feed = self._feeds.popitem()
            await feed.aclose()
        await self._names.aclose()
        for news in self._news:
            await news.aclose()
        await self._opener.aclose()

    async def _feed(self, symbol: str) -> Feed:
        partition = await self._opener.partition(self._topic, symbol.encode())
        feed = self._feeds.get(partition)
        if feed is None:
            feed = self._feeds[partition] = Feed(self._opener, self._topic, self._decoder, self._forget)
        return feed

    def _forget(self, feed: Feed) -> None:
        self._feeds = {partition: other for partition, other in self._feeds.items() if other is not feed}

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1)
            for feed in self._feeds.values():
                for followed in feed.books:
                    followed.listen(loop.time())

    def _told(
        self, error: BaseException, symbol: str, market: str | None, wish: Wish, followed: Followed | None
    ) -> Exception | None:
        """Return an error that tells more than that there was none in time, or before the source's end."""
        none = f"no order book of {symbol} was in sync"
        if isinstance(error, TimeoutError):
            return TimeoutError(self._missing(f"{none} within {wish.timeout:g} s", market, followed))
        if isinstance(error, NotInSync) and not self._closed:
            return NotInSync(self._missing(f"{none} before the source ended", market, followed))
        return None

    def _missing(self, begun: str, market: str | None, followed: Followed | None) -> str:
        """Return what was found where no book came in time, and what would help."""
        if followed is None:
            where = f" on {market}" if market else ""
            return f"{begun}: {self._topic} has had nothing of it{where}; does a bridge subscribe its depth?"
        state, seen = followed.state, followed.state.seen
        if seen.snapshots:
            return f"{begun}: {state.reason}. The next whole snapshot heals it; is the bridge running?"
        every = (
            "a bridge that subscribes its depth writes one when its book gets in sync, then every "
            f"{followed.wish.interval:g} s while it changes"
        )
        if seen.deltas:
            return f"{begun}: {self._topic} has {seen.deltas} changes of it but no whole snapshot; {every}"
        if seen.partial:
            return (
                f"{begun}: {self._topic} has {seen.partial} partial-depth snapshots of it, which are no whole book; "
                f"{every}"
            )
        if seen.markets:
            return (
                f"{begun}: what {self._topic} has of it is of {', '.join(sorted(seen.markets))}, not {market}"
            )
        return f"{begun}: {self._topic} has nothing of it; is its name right, and does a bridge subscribe its depth?"


class _News:
    """Follows a topic of news: gaps or lifecycle events.

    A topic that is not there is gone without: links prove the books, news only tell sooner.
    """

    def __init__(
        self, opener: Opener, topic: str, decoder: Decoder, class_: type[Gap | Lifecycle],
        tell: Callable[[Gap | Lifecycle], None],
    ) -> None:  # fmt: skip
        self._opener, self._topic, self._decoder = opener, topic, decoder
        self._class, self._tell = class_, tell
        self._opening: asyncio.Task[None] | None = None
        self._reading: Reading | None = None
        self._pump: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Be reading."""
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            self._opening = asyncio.create_task(self._open())
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        with contextlib.suppress(TopicMismatch):
            self._reading = await self._opener.open(Request(topics=(self._topic,)))
            self._pump = asyncio.create_task(self._follow(self._reading))

    async def _follow(self, reading: Reading) -> None:
        async with contextlib.aclosing(_records(reading, self._decoder, self._class)) as records:
            async for _, record in records:
                if not isinstance(record, DecodeError):
                    self._tell(record)

    async def aclose(self) -> None:
        """Stop reading."""
        tasks = [task for task in (self._opening, self._pump) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._reading is not None:
            await self._reading.close()


class _Names:
    """Finds unified symbols by market and exchange symbol, from the order books' own records."""

    def __init__(self, opener: Opener, topic: str, decoder: Decoder) -> None:
        self._opener, self._topic, self._decoder = opener, topic, decoder
        self._known: dict[tuple[str, str], str] = {}
        self._wanted: dict[asyncio.Future[str], tuple[str, str]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def of(self, exchange_symbol: str, market: str, interval: float) -> str:
        """Wait for a record of the exchange symbol and return its unified one."""
        identity = (market, exchange_symbol)
        if identity in self._known:
            return self._known[identity]
        found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._wanted[found] = identity
        found.add_done_callback(self._answered)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(round(_SPANS[0] * interval * 1000)))
        return await found

    def _answered(self, found: asyncio.Future[str]) -> None:
        """Stop reading where nobody waits any more."""
        del self._wanted[found]
        if not self._wanted and self._reading is not None:
            self._reading.cancel()
            self._reading = None

    async def _read(self, span_ms: int) -> None:
        """Read back, then on."""
        seen: set[bytes] = set()
        try:
            reading = await self._opener.open(Request(topics=(self._topic,), start=f"-{span_ms}ms"))
            async with contextlib.aclosing(_records(reading, self._decoder, OrderBook, skip=seen)) as records:
                async for fetched, record in records:
                    if isinstance(record, OrderBook):
                        self._learn(record)
                        if b"/" in (fetched.key or b""):  # else it may be of several markets
                            seen.add(fetched.key or b"")
            _fail([*self._wanted], NotInSync(_ENDED))
        except Exception as error:  # noqa: BLE001 - it is raised where the book is asked for
            _fail([*self._wanted], error)

    def _learn(self, record: OrderBook) -> None:
        identity = (record.market, record.exchangeSymbol)
        self._known[identity] = record.symbol
        for found in [found for found, wanted in self._wanted.items() if wanted == identity]:
            if not found.done():
                found.set_result(record.symbol)

    async def aclose(self) -> None:
        """Stop reading."""
        reading = self._reading
        _fail([*self._wanted], NotInSync(_ENDED))
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _records(
    reading: Reading, decoder: Decoder, class_: type[R], *, skip: AbstractSet[bytes] = frozenset()
) -> AsyncGenerator[tuple[Fetched, R | DecodeError], None]:
    """Give the records of an open reading, and errors for values that are none; close it at the end."""
    count = 0
    try:
        while found := await reading.fetch():
            for fetched in found:
                if isinstance(fetched, CaughtUp) or fetched.value is None or fetched.key in skip:
                    continue
                try:
                    record = decode(decoder, fetched)
                except DecodeError as error:
                    yield fetched, error
                else:
                    if isinstance(record, class_):
                        yield fetched, record
                count += 1
                if count % _AT_ONCE == 0:
                    await asyncio.sleep(0)  # what is there already must not hold up everybody else
    finally:
        await reading.close()


def _fresh(followed: Followed) -> BookState:
    return BookState(followed.state.symbol, followed.state.market)


async def _while_wanted(wanted: Collection[asyncio.Future[Any]], work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``, unless all that want it have given up before."""
    task = asyncio.ensure_future(work)

    def given_up(_: object) -> None:
        if all(future.done() for future in wanted):
            task.cancel()

    for future in wanted:
        future.add_done_callback(given_up)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


def _fail(futures: Iterable[asyncio.Future[Any]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


def _asked_to_stop() -> bool:
    """Whether the running task itself was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
