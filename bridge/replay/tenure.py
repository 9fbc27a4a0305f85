"""The time of one owner: what is derived of the raw records that carry one ``writerEpoch``.

It has what that owner's pipeline had (:mod:`bridge.pipeline`): sequencers, books, open gaps and ledgers of its own.
What passes from one owner to the next is a :class:`~bridge.core.resumption.Resumption`, as live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from bridge.core import notices
from bridge.core.book_sync import book_of
from bridge.core.compile import UNDECODABLE
from bridge.core.derive import Failure, Item, StreamDeriver, Waiting, Writer
from bridge.core.gap_filling import GapFilling
from bridge.core.raw import event_time_of
from bridge.core.standing import Standings
from bridge.core.unmade import unmade_notice
from bridge.core.varint import long_bytes
from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bridge.catalogue import Catalogue, ChosenStream
    from bridge.core.book_sync import Happening
    from bridge.core.instruments import Instruments
    from bridge.core.resumption import Resumption
    from bridge.core.schema import Schema
    from bridge.core.sequence import Missing
    from bridge.core.standing import StreamKey
    from bridge.model import Header, Lane, Market
    from bridge.replay.output import Output

API = "api"
"""Channel of the raw records of answers."""


class RawRecord(msgspec.Struct, frozen=True, gc=False):
    """What replay needs of a raw record. No tuple: the garbage collector would look at all that wait their turn."""

    market: Market
    channel: str
    stream: str
    symbol: str | None
    connection_id: int
    number: int
    received_at: int
    epoch: int
    payload: bytes


class Deriving(NamedTuple):
    """What all tenures of a replay have in common.

    Attributes:
        catalogue: the declarations.
        schemas: the schemas.
        headers: Kafka headers of unified records.
        hold: microseconds that an early message is held for.
        snapshot_interval: microseconds between two publications of a book.
        output: where everything goes.
    """

    catalogue: Catalogue
    schemas: Mapping[str, Schema]
    headers: tuple[Header, ...]
    hold: int
    snapshot_interval: int
    output: Output


Way: TypeAlias = "Callable[[bytes, int, int], None]"
"""``way(payload, number, received_at)`` derives what a message of one stream on one connection makes due."""

MOST_CONNECTIONS = 4
"""Of how many connections that carry one stream at a time the ways are kept."""


class Tenure:
    """Derives what one owner received, in order.

    Args:
        epoch: its ``writerEpoch``.
        deriving: what tenures have in common.

    Attributes:
        epoch: that.
        waiting: the streams that hold messages back; what is due of them is derived before any later record.
    """

    def __init__(self, epoch: int, deriving: Deriving) -> None:
        self.epoch = epoch
        self._deriving, self._output = deriving, deriving.output
        self._writer = Writer("replay", epoch, deriving.headers)
        self._derivers: dict[StreamKey, StreamDeriver] = {}
        self._ways: dict[StreamKey, dict[int, Way]] = {}  # by connection
        self.waiting = Waiting()
        self._gaps = GapFilling(self)
        self._standings = Standings(epoch)
        self._received_at, self._received = 0, b"\x00"

    # Streams

    @property
    def empty(self) -> bool:
        """Whether it has no stream (any more)."""
        return not self._derivers

    def begin(self, chosen: ChosenStream, table: Instruments) -> StreamDeriver:
        """Take a stream whose first message this owner had."""
        deriving, stream = self._deriving, chosen.stream
        compiled = deriving.catalogue.channel(stream.market, stream.channel)
        deriver = self._derivers[stream.market, stream.name] = StreamDeriver(
            stream, compiled, deriving.catalogue.constants(compiled, chosen.choice), deriving.schemas, self,
            self._writer, table, deriving.hold, book_of(stream, deriving.snapshot_interval),
            deriving.catalogue.history(chosen),
        )  # fmt: skip
        self._ways[stream.market, stream.name] = {}
        self._standings.add(deriver)
        return deriver

    def resume(
        self, chosen: ChosenStream, table: Instruments, resumption: Resumption, at: int
    ) -> StreamDeriver:
        """Take a stream over from an earlier owner, ``at`` microseconds (:meth:`bridge.pipeline.Pipeline.resume`)."""
        deriver = self.begin(chosen, table)
        self._standings.resume(deriver, resumption.ledger, resumption.carried_until)
        self._gaps.take_over(deriver, resumption, at)
        if resumption.tail is not None:
            deriver.resume(resumption.tail)
        return deriver

    def leave(self, key: StreamKey) -> Resumption:
        """Let go of a stream for a later owner: what was held is derived first, as at a stop."""
        self.drain()
        del self._ways[key]
        return self._standings.resumption(self._derivers.pop(key).stream)

    # Records, in the order in which the owner received them

    def way(self, key: StreamKey, connection_id: int, table: Instruments) -> Way:
        """Return how messages of a stream go that came on a connection, until the instruments change.

        What a connection long gone has left is let go.
        """
        deriver, ways = self._current(key, table), self._ways[key]
        if connection_id not in ways:
            if len(ways) >= MOST_CONNECTIONS:
                gone = next(iter(ways))
                del ways[gone]
                deriver.forget(gone)
            ways[connection_id] = self._straight(deriver, connection_id)
        return ways[connection_id]

    def _straight(self, deriver: StreamDeriver, connection_id: int) -> Way:
        """Return one function with all that a message needs bound, as :class:`bridge.pipeline.Pipeline` has it."""
        decode, event_time, stamp_of = deriver.decode, deriver.event_time, self._stamp
        follows, publish = deriver.straight(connection_id)

        def way(payload: bytes, number: int, received_at: int) -> None:
            stamp = stamp_of(number, received_at)
            try:
                message = decode(payload).data
                event_ms, _ = event_time_of(event_time(message))
            except UNDECODABLE as error:
                item = Item(None, payload, received_at, None, connection_id, number, stamp)
                self.failed(deriver, Failure("parse", str(error), item))
                return
            if follows(message, event_ms, payload):
                try:
                    publish(message, stamp, received_at // 1000)
                except (UnexpectedMessage, OverflowError) as error:
                    item = Item(message, payload, received_at, event_ms, connection_id, number, stamp)
                    self.failed(deriver, Failure("unify", str(error), item))
            elif not deriver.take(
                Item(message, payload, received_at, event_ms, connection_id, number, stamp)
            ):
                self.waiting.note(deriver)

        return way

    def _stamp(self, number: int, received_at: int) -> bytes:
        if received_at != self._received_at:  # it is that of all messages of a wake-up
            self._received_at, self._received = received_at, long_bytes(received_at)
        return long_bytes(number) + self._received

    def has_gaps(self, key: StreamKey) -> bool:
        """Whether a stream has gaps that an answer of its history may fill."""
        gaps = self._gaps.of(*key)
        return gaps is not None and bool(gaps.gaps)

    def history(self, key: StreamKey, raw: RawRecord, table: Instruments) -> None:
        """Give a stream's gaps an answer of its history."""
        self._current(key, table)
        self._gaps.answer(raw.market, raw.stream, raw.received_at, raw.number, raw.payload)

    def depth(self, key: StreamKey, raw: RawRecord, limit: int, table: Instruments) -> None:
        """Give a stream's book an answer to a request for ``limit`` levels."""
        self._current(key, table).depth_answer(raw.payload, limit, raw.received_at)

    def drain(self) -> None:
        """Derive what is still held."""
        self.waiting.expire(1 << 62)

    def _current(self, key: StreamKey, table: Instruments) -> StreamDeriver:
        """Return a stream's deriver, knowing the instruments that the owner knew."""
        deriver = self._derivers[key]
        if deriver.instruments is not table:
            deriver.use(table)
            self._ways[key].clear()  # those of all its connections are bound to the table before
        return deriver

    # Outlets

    def lane(self, structure: str, key: bytes, channel: str) -> Lane:  # noqa: ARG002 - for other outlets
        """Return the lane of a key into the topic of a structure (:class:`bridge.core.derive.Outlets`)."""
        return self._output.lane(structure, key)

    def missing(self, deriver: StreamDeriver, missing: Missing, item: Item) -> None:
        """Record a gap (:class:`bridge.core.derive.Outlets`)."""
        self._gaps.found(deriver, missing, item)

    def gap(self, deriver: StreamDeriver, told: Sequence[notices.Notice]) -> None:
        """Record gaps (:class:`bridge.core.gap_filling.GapOutlet`)."""
        for notice in told:
            self._standings.note(deriver, notice)
            self._output.send("gaps", notice)

    def failed(self, deriver: StreamDeriver, failure: Failure) -> None:
        """Record a dead letter, and that its event is missing (:class:`bridge.core.derive.Outlets`)."""
        structures = deriver.compiled.structures
        if structures:
            topic = self._output.topic(structures[0])
            self._output.send("dead-letter", notices.failure_notice(deriver, failure, topic))
        notice = unmade_notice(deriver, failure)
        if notice is not None:
            self.gap(deriver, [notice])

    def book(self, deriver: StreamDeriver, happening: Happening) -> None:
        """Do nothing: here nobody is asked, and nothing is live (:class:`bridge.core.derive.Outlets`)."""
