"""From the messages of a stream to its unified records: the one way that live, replay and backfill all go.

``StreamDeriver.take`` puts a message in order, derives what is due and hands it to the lanes it was given. No
I/O, no clock: lanes queue, and time comes with the messages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from bridge.core.book_sync import Change, Due
from bridge.core.conversions import micros
from bridge.core.coverage import by_of
from bridge.core.event_time import record_milliseconds
from bridge.core.levels import LevelsReader
from bridge.core.sequence import Missing, Newest, Sequencer, Tail, sequencer
from bridge.core.varint import long_bytes, nullable_long_bytes, text_bytes
from bridge.errors import UnexpectedMessage
from bridge.model import Header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bridge.core.book import Book
    from bridge.core.book_sync import BookSync, Happening
    from bridge.core.compile import CompiledChannel, Publish
    from bridge.core.coverage import By
    from bridge.core.history import StreamHistory
    from bridge.core.instruments import Instrument, Instruments
    from bridge.core.schema import Schema
    from bridge.model import Lane, Market, Origin, Stream

PRODUCT: dict[Market, int] = {"usdm": 1, "coinm": 2}
"""``st`` of rows of merged all-market streams."""


class Item(msgspec.Struct, gc=False):
    """A decoded message on its way.

    Attributes:
        message: the decoded payload.
        payload: the bytes as received.
        received_at: microseconds.
        event_ms: event time in milliseconds, None where there is none.
        connection_id: the connection it came on.
        number: its number on the connection.
        stamp: number and receive time as Avro has them in every record.
    """

    message: Any
    payload: bytes
    received_at: int
    event_ms: int | None
    connection_id: int
    number: int
    stamp: bytes


Follows = Callable[[Any, int | None, bytes], bool]
"""See :meth:`bridge.core.sequence.Sequencer.follows`."""


def _never(message: Any, event_ms: int | None, payload: bytes) -> bool:  # noqa: ARG001 - the port's
    return False


def _unpublished(message: Any, stamp: bytes, received_ms: int) -> bool:  # noqa: ARG001 - the port's
    raise AssertionError("nothing follows here")


class Failure(NamedTuple):
    """A message that made no record though it should have.

    Attributes:
        reason: ``parse`` or ``unify``.
        error: what is wrong and where.
        item: the message.
    """

    reason: str
    error: str
    item: Item


class Outlets(Protocol):
    """Where a deriver's results go."""

    def lane(self, structure: str, key: bytes, channel: str) -> Lane:
        """Return the lane of a key into the topic of a unified structure."""

    def missing(self, deriver: StreamDeriver, missing: Missing, item: Item) -> None:
        """Take note of what is missing before ``item``."""

    def failed(self, deriver: StreamDeriver, failure: Failure) -> None:
        """Take note of a message that made no record."""

    def book(self, deriver: StreamDeriver, happening: Happening) -> None:
        """Take note of what happened to the order book of a stream."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who derives.

    Attributes:
        origin: live, backfill, snapshot or replay.
        epoch: the shard's epoch.
        headers: Kafka headers of unified records.
    """

    origin: Origin
    epoch: int
    headers: tuple[Any, ...] = ()


class StreamDeriver:
    """One stream, across all connections that carry it."""

    def __init__(
        self,
        stream: Stream,
        compiled: CompiledChannel,
        constants: tuple[bytes, ...],
        schemas: Mapping[str, Schema],
        outlets: Outlets,
        writer: Writer,
        instruments: Instruments,
        hold: int,
        book: BookSync | None = None,
        history: StreamHistory | str = "no history is declared",
    ) -> None:
        self.stream, self.compiled, self.writer, self.book = stream, compiled, writer, book
        self.history = history
        on = compiled.declaration.markets[stream.market]
        self.rows = stream.symbol is None and on.rows
        self.by_pair = on.stream is not None and "{pair}" in on.stream and "{contract_type}" not in on.stream
        self.decode: Callable[[bytes], Any] = compiled.decode_rows if self.rows else compiled.decode
        self.event_time: Callable[[Any], int | None] = self._rows_time if self.rows else compiled.event_time
        self.instruments = instruments
        self._constants, self._schemas, self._outlets = constants, schemas, outlets
        self._bindings: dict[int, dict[str, Publish]] = {}  # by connection, by symbol
        self._symbol = stream.symbol
        self._sequencer: Sequencer[Item] = self._new_sequencer(hold)
        self._product = PRODUCT.get(stream.market) if stream.symbol is None else None
        self._book_item: Item | None = None
        self._sides = [LevelsReader() for _ in range(compiled.sides)]
        self._resumed: Tail | None = None

    def _new_sequencer(self, hold: int) -> Sequencer[Item]:
        if self.rows:
            return Newest(self._rows_time)
        if self.stream.symbol is None and self.compiled.newest is not None:
            return _BySymbol(self.compiled)
        return sequencer(self.compiled, hold)

    def _rows_time(self, rows: Sequence[Any]) -> int | None:
        times = [t for t in map(self.compiled.event_time, rows) if t is not None]
        return max(times, default=None)

    @property
    def deadline(self) -> int | None:
        """When :meth:`expire` has something to do, microseconds."""
        return self._sequencer.deadline

    @property
    def known_by(self) -> By:
        """What tells that something of the stream is missing: ids, candles that follow each other, or time alone."""
        return by_of(self.compiled, self.stream.symbol)

    @property
    def first(self) -> int | None:
        """See :class:`~bridge.core.sequence.Sequencer`."""
        return self._sequencer.first

    @property
    def began_at(self) -> int:
        """See :class:`~bridge.core.sequence.Sequencer`."""
        return self._sequencer.began_at

    @property
    def tail(self) -> Tail | None:
        """How far the stream has come in its unified topic; see :class:`~bridge.core.sequence.Sequencer`."""
        return self._sequencer.tail

    def resume(self, tail: Tail) -> None:
        """Go on behind what an earlier owner of the stream published."""
        self._resumed = tail
        self._sequencer.resume(tail)

    def cause(self, missing: Missing) -> str:
        """Return why something is missing: an event did not come, or no process was there to receive it."""
        if self._resumed is None:
            return "sequence"
        behind = {self._resumed.last + 1, self._resumed.last, self._resumed.close_time + 1}
        return "restart" if (missing.first or missing.start_time) in behind else "sequence"

    def use(self, instruments: Instruments) -> None:
        """Use a newer table of instruments from the next message on."""
        self.instruments = instruments
        self._bindings.clear()

    def forget(self, connection_id: int) -> None:
        """Let go of what was remembered for a connection that ended."""
        self._bindings.pop(connection_id, None)

    def take(self, item: Item) -> bool:
        """Put a message in order and derive what is due; return whether it simply followed, so that nothing is held."""
        if not self._sequencer.follows(item.message, item.event_ms, item.payload):
            return self._weigh(item)
        if self.rows:
            self._derive(item)
        else:
            self._derive_one(item, item.message)
        return True

    def straight(self, connection_id: int) -> tuple[Follows, Publish]:
        """Return the two steps of a message that simply follows, for a connection, until the instruments change.

        Whoever takes very many messages asks the first whether one follows, and has the second publish it if so; all
        others go to :meth:`take`. Streams of many symbols, or with a book, send every message there.
        """
        if self._symbol is None or self.book is not None:
            return _never, _unpublished
        return self._sequencer.follows, self._bind(connection_id, self._symbol)

    def _weigh(self, item: Item) -> bool:
        for due in self._sequencer.accept(item):
            if type(due) is Missing:
                self._outlets.missing(self, due, item)
            else:
                self._derive(due)  # type: ignore[arg-type]
        return False

    def expire(self, now: int) -> None:
        """Derive what has been held for too long at ``now`` (microseconds)."""
        due = self._sequencer.expire(now)
        for index, one in enumerate(due):
            if type(one) is Missing:
                self._outlets.missing(self, one, due[index + 1])  # type: ignore[arg-type]
            else:
                self._derive(one)  # type: ignore[arg-type]

    def _derive(self, item: Item) -> None:
        if self.rows:
            for message in item.message:
                self._derive_one(item, message)
        else:
            self._derive_one(item, item.message)

    def _derive_one(self, item: Item, message: Any) -> None:
        try:
            symbol = self._symbol
            if symbol is None:
                if self._product is not None and self.compiled.product(message) not in {None, self._product}:
                    return
                symbol = self.compiled.symbol(message) or ""
            bindings = self._bindings.get(item.connection_id) or {}
            publish = bindings.get(symbol) or self._bind(item.connection_id, symbol)
            publish(message, item.stamp, item.received_at // 1000)
        except (UnexpectedMessage, OverflowError) as error:
            self._outlets.failed(self, Failure("unify", str(error), item))
            if self.book is not None:
                previous, last = self._links(message)
                self._happened(self.book.unusable(previous, last, f"an update made no record: {error}"))
        else:
            if self.book is not None:
                self._follow(self.book, item, message)

    def recovery(self, gap: str) -> Callable[[Item], bool]:
        """Return what derives an event of the past that fills ``gap``, and says whether it made its record.

        It goes out behind what came live meanwhile.
        """
        symbol = self.stream.symbol
        assert symbol is not None, "streams of all symbols at once have no past"
        writer = self.writer
        if writer.origin == "live":
            run = Header("run-id", f"gap:{gap}".encode())
            writer = replace(writer, origin="backfill", headers=(*writer.headers, run))
        publish = self._publish(0, symbol, writer)

        def recover(item: Item) -> bool:
            try:
                return publish(item.message, item.stamp, item.received_at // 1000)
            except (UnexpectedMessage, OverflowError) as error:
                self._outlets.failed(self, Failure("unify", str(error), item))
                return False

        return recover

    def depth_answer(self, body: bytes, limit: int, at: int) -> None:
        """Take an answer of REST for the stream's book, received at ``at`` (microseconds)."""
        if self.book is not None:
            self._happened(self.book.answer(body, limit, at))

    def _links(self, message: Any) -> tuple[int, int]:
        assert self.compiled.link is not None, "only streams whose messages follow each other have a book"
        return self.compiled.link(message)

    def _follow(self, book: BookSync, item: Item, message: Any) -> None:
        """Bring the book up to a change that has just been queued."""
        previous, last = self._links(message)
        self._book_item = item
        bids, asks = self._sides
        change = Change(previous, last, bids.read(message.f_b), asks.read(message.f_a))
        happened = book.change(change, item.received_at)
        if happened:
            self._happened(happened)

    def _happened(self, happened: Sequence[Happening]) -> None:
        for one in happened:
            if one is Due.PUBLISH:
                self._publish_book()
            else:
                self._outlets.book(self, one)

    def _publish_book(self) -> None:
        """Queue the whole book behind its newest change; the record's envelope is that change's."""
        item, sync, symbol = self._book_item, self.book, self.stream.symbol
        assert item is not None, "a book is published behind a change"
        assert sync is not None
        assert sync.book is not None
        assert symbol is not None
        instrument, key = self._instrument(symbol)
        schema = self._schemas["order-book"]
        writer = replace(self.writer, origin="snapshot") if self.writer.origin == "live" else self.writer
        head = envelope(schema, instrument, self.compiled.channel, writer, item.connection_id)
        body = book_snapshot(
            sync.book,
            sync.sequence,
            self.compiled.event_time(item.message),
            getattr(item.message, "f_T", None),
        )
        at = record_milliseconds(item.event_ms, item.received_at)
        lane = self._outlets.lane("order-book", key, self.compiled.channel)
        lane.append(at, key, b"".join((schema.header, head, item.stamp, body)), self.writer.headers)

    def _bind(self, connection_id: int, symbol: str) -> Publish:
        publish = self._publish(connection_id, symbol, self.writer)
        self._bindings.setdefault(connection_id, {})[symbol] = publish
        return publish

    def _instrument(self, symbol: str) -> tuple[Instrument, bytes]:
        """Return what a symbol of the stream is, and the key of its records."""
        instrument = self.instruments.pair(symbol) if self.by_pair else self.instruments.get(symbol)
        return instrument, instrument.symbol.encode()

    def _publish(self, connection_id: int, symbol: str, writer: Writer) -> Publish:
        instrument, key = self._instrument(symbol)
        channel, schemas = self.compiled.channel, [self._schemas[s] for s in self.compiled.structures]
        return self.compiled.bind(
            stream=self.stream.name,
            symbol=symbol,
            instrument=instrument,
            constants=self._constants,
            prefixes=[s.header + envelope(s, instrument, channel, writer, connection_id) for s in schemas],
            lanes=[self._outlets.lane(s.structure, key, channel).append for s in schemas],
            sides=[side.encoded for side in self._sides],
            key=key,
            headers=writer.headers,
        )


class Waiting:
    """The derivers that hold messages back, and when the first of them is due.

    What is due is derived before any later message of any stream: the order of records across streams then
    follows from receive times alone, and replay finds the same.
    """

    def __init__(self) -> None:
        self._derivers: dict[StreamDeriver, None] = {}
        self.deadline: int | None = None

    def note(self, deriver: StreamDeriver) -> None:
        """Take note of a deriver that was just given a message."""
        if deriver.deadline is None:
            if deriver in self._derivers:
                del self._derivers[deriver]
                self._find()
        else:
            self._derivers[deriver] = None
            self._find()

    def expire(self, now: int) -> None:
        """Derive what has been held for too long at ``now`` (microseconds), earliest first."""
        while self.deadline is not None and now > self.deadline:
            due = min(self._derivers, key=lambda d: (d.deadline or 0, d.stream.market, d.stream.name))
            due.expire(due.deadline + 1 if due.deadline is not None else now)
            self.note(due)

    def _find(self) -> None:
        self.deadline = min((d.deadline for d in self._derivers if d.deadline is not None), default=None)


class _BySymbol:
    """Streams of all symbols in one: each symbol in its own order."""

    deadline: int | None = None
    first: int | None = None
    began_at = 0
    tail: Tail | None = None

    def __init__(self, compiled: CompiledChannel) -> None:
        self._compiled = compiled
        self._sequencers: dict[str | None, Sequencer[Item]] = {}

    def resume(self, tail: Tail) -> None:
        """Nothing need be: what comes next is newer."""

    def follows(self, message: Any, event_ms: int | None, payload: bytes) -> bool:
        return self._of(message).follows(message, event_ms, payload)

    def accept(self, item: Item) -> Sequence[Item | Missing]:
        return self._of(item.message).accept(item)

    def _of(self, message: Any) -> Sequencer[Item]:
        symbol = self._compiled.symbol(message)
        found = self._sequencers.get(symbol)
        if found is None:
            found = self._sequencers[symbol] = sequencer(self._compiled, 0)
        return found

    def expire(self, now: int) -> Sequence[Item | Missing]:  # noqa: ARG002 - the port's
        return ()


def envelope(
    schema: Schema, instrument: Instrument, channel: str, writer: Writer, connection_id: int
) -> bytes:
    """Return the encoded envelope of unified records up to ``connectionId``."""
    symbols = {f.name: f.symbols for f in schema.fields}
    return b"".join(
        (
            text_bytes(instrument.symbol),
            long_bytes(symbols["market"].index(instrument.market)),
            text_bytes(instrument.id),
            text_bytes(channel),
            long_bytes(symbols["origin"].index(writer.origin)),
            long_bytes(writer.epoch),
            long_bytes(connection_id),
        )
    )


_SNAPSHOT = b"\x00"
_NO_FIRST_PREVIOUS_DEPTH = b"\x00\x00\x00"


def book_snapshot(book: Book, sequence: int, time: int | None, transaction_time: int | None) -> bytes:
    """Return what follows the envelope in a snapshot record of ``avro/order-book.avsc``.

    Args:
        book: the book.
        sequence: the last update in it.
        time: event time of that update as the exchange sent it.
        transaction_time: its transaction time; None on spot.
    """
    times = (None if t is None else micros(t) for t in (time, transaction_time))
    timestamp, transaction = map(nullable_long_bytes, times)
    return b"".join(
        (
            nullable_long_bytes(sequence),
            timestamp,
            _SNAPSHOT,
            book.encoded(),
            _NO_FIRST_PREVIOUS_DEPTH,
            transaction,
        )
    )
