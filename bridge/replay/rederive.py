"""From raw records to unified ones, without I/O: the same derivers as live, fed from the past."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bridge import __version__
from bridge.core import notices
from bridge.core.book_sync import book_of, depth_request
from bridge.core.compile import UNDECODABLE
from bridge.core.derive import (
    Failure,
    Item,
    StreamDeriver,
    Waiting,
    Writer,
    event_milliseconds,
    record_milliseconds,
)
from bridge.core.gap_filling import GapFilling
from bridge.core.instruments import InstrumentHistory, Instruments
from bridge.core.market_records import market_records
from bridge.core.schema import encode
from bridge.core.varint import long_bytes
from bridge.model import Header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bridge.catalogue import Catalogue, TopicNames
    from bridge.core.book_sync import Happening
    from bridge.core.schema import Schema
    from bridge.core.sequence import Missing
    from bridge.model import Lane, Market, Publisher

API = "api"
"""Channel of the raw records of answers."""


class RawRecord(NamedTuple):
    """What replay needs of a raw record."""

    market: Market
    channel: str
    stream: str
    symbol: str | None
    connection_id: int
    number: int
    received_at: int
    epoch: int
    payload: bytes


class Rederiver:
    """Takes the raw records of streams in order and queues what they become.

    Args:
        catalogue: the declarations.
        schemas: the schemas.
        names: names of the topics to write to.
        publisher: where records go.
        structures: which unified structures are wanted.
        symbols: which unified or exchange symbols are wanted; None for all.
        history: the instruments as the bridge knew them.
        hold_ms: as live.
        snapshot_interval_ms: as live.
        run_id: marks the records' headers.

    Attributes:
        muted: while set, everything is derived but nothing is queued: how a resumed run comes to know again what
            the one before knew.
        records: how many unified records were queued.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        schemas: Mapping[str, Schema],
        names: TopicNames,
        publisher: Publisher,
        structures: frozenset[str],
        symbols: frozenset[str] | None,
        history: Mapping[Market, InstrumentHistory],
        hold_ms: int,
        run_id: str,
        snapshot_interval_ms: int = 60_000,
    ) -> None:
        self._catalogue, self._schemas, self._names, self._publisher = catalogue, schemas, names, publisher
        self._structures, self._symbols, self._history = structures, symbols, history
        self._hold = hold_ms * 1000
        self._snapshot_interval = snapshot_interval_ms * 1000
        self._books: dict[tuple[Market, str], list[StreamDeriver]] = {}
        self._headers = (Header("version", __version__.encode()), Header("run-id", run_id.encode()))
        self._derivers: dict[tuple[Market, str], StreamDeriver | None] = {}
        self._waiting = Waiting()
        self._gaps = GapFilling(self)
        self.muted = False
        self.records = 0

    def take(self, raw: RawRecord) -> None:
        """Derive what a raw record makes due. Records come in the order in which the bridge received them."""
        self._waiting.expire(raw.received_at)
        if raw.channel == API:
            self._answer(raw)
            return
        deriver = self._deriver(raw)
        if deriver is None:
            return
        number = long_bytes(raw.number)
        item = Item(
            None, raw.payload, raw.received_at, None, raw.connection_id, raw.number,
            number + long_bytes(raw.received_at),
        )  # fmt: skip
        try:
            item.message = deriver.decode(raw.payload).data
            item.event_ms = event_milliseconds(deriver.event_time(item.message))
        except UNDECODABLE as error:
            self.failed(deriver, Failure("parse", str(error), item))
            return
        deriver.take(item)
        self._waiting.note(deriver)

    def _answer(self, raw: RawRecord) -> None:
        """Give an answer of REST to the gaps and books it was asked for."""
        deriver = self._gaps.asked(raw.market, raw.stream)
        if deriver is not None:
            self._current(deriver, raw)
            self._gaps.answer(raw.market, raw.stream, raw.received_at, raw.number, raw.payload)
        request = depth_request(raw.stream)
        if request is not None:
            for deriver in self._books.get((raw.market, request.symbol), ()):
                self._current(deriver, raw)
                deriver.depth_answer(raw.payload, request.limit, raw.received_at)

    def drain(self) -> None:
        """Derive what is still held, at the end of the range."""
        self._waiting.expire(1 << 62)

    def markets(self, market: Market, start: int, end: int) -> None:
        """Queue the instruments' records of answers in a range of receive times (microseconds)."""
        before: Instruments | None = None
        for answer in self._history[market].answers:
            if not start <= answer.received_at < end:
                before = answer.table
                continue
            writer = Writer("replay", answer.epoch, self._headers)
            for record in market_records(
                self._schemas["market"], before, answer.table, writer, answer.server_time, answer.received_at,
                answer.number,
            ):  # fmt: skip
                time = record_milliseconds(answer.server_time // 1000 or None, answer.received_at)
                lane = self.lane("market", record.key, "api")
                lane.append(time, record.key, record.value, self._headers)
            before = answer.table

    def _deriver(self, raw: RawRecord) -> StreamDeriver | None:
        key = (raw.market, raw.stream)
        if key not in self._derivers:
            self._derivers[key] = self._new_deriver(raw)
        deriver = self._derivers[key]
        if deriver is not None:
            self._current(deriver, raw)
        return deriver

    def _new_deriver(self, raw: RawRecord) -> StreamDeriver | None:
        chosen = self._catalogue.named(raw.market, raw.channel, raw.stream, raw.symbol)
        if chosen is None:
            return None
        compiled, stream = self._catalogue.channel(raw.market, raw.channel), chosen.stream
        deriver = StreamDeriver(
            stream, compiled, self._catalogue.constants(compiled, chosen.choice), self._schemas, self,
            Writer("replay", raw.epoch, self._headers), self._table(raw), self._hold,
            book_of(stream, self._snapshot_interval), self._catalogue.history(chosen),
        )  # fmt: skip
        if deriver.book is not None and stream.symbol is not None:
            self._books.setdefault((raw.market, stream.symbol), []).append(deriver)
        return deriver

    def _table(self, raw: RawRecord) -> Instruments:
        return self._history[raw.market].at(raw.received_at) or Instruments(raw.market, ())

    def _current(self, deriver: StreamDeriver, raw: RawRecord) -> None:
        """Let a deriver know the instruments and the writer's epoch that the bridge knew."""
        table = self._table(raw)
        if deriver.writer.epoch != raw.epoch:
            deriver.writer = Writer("replay", raw.epoch, self._headers)
            deriver.use(table)
        elif deriver.instruments is not table:
            deriver.use(table)

    # Outlets

    def lane(self, structure: str, key: bytes, channel: str) -> Lane:  # noqa: ARG002 - for other outlets
        """Return the lane of a key into the topic of a structure (:class:`bridge.core.derive.Outlets`)."""
        wanted = structure in self._structures and (self._symbols is None or key.decode() in self._symbols)
        return _ReplayLane(
            self, self._publisher.lane(self._names.unified(structure), key) if wanted else None
        )

    def missing(self, deriver: StreamDeriver, missing: Missing, item: Item) -> None:
        """Record a gap (:class:`bridge.core.derive.Outlets`)."""
        self._gaps.found(deriver, missing, item)

    def gap(self, deriver: StreamDeriver, told: Sequence[notices.Notice]) -> None:  # noqa: ARG002 - the port's
        """Record gaps (:class:`bridge.core.gap_filling.GapOutlet`)."""
        for notice in told:
            self._send("gaps", notice)

    def failed(self, deriver: StreamDeriver, failure: Failure) -> None:
        """Record a dead letter (:class:`bridge.core.derive.Outlets`)."""
        structures = deriver.compiled.structures
        if structures:
            topic = self._names.unified(structures[0])
            self._send("dead-letter", notices.failure_notice(deriver, failure, topic))

    def book(self, deriver: StreamDeriver, happening: Happening) -> None:
        """Do nothing: here nobody is asked, and nothing is live (:class:`bridge.core.derive.Outlets`)."""

    def _send(self, family: str, notice: notices.Notice) -> None:
        if not self.muted:
            value = encode(self._schemas[notice.structure], notice.record)
            lane = self._publisher.lane(self._names.of(family), notice.key)
            lane.append(notice.at // 1000, notice.key, value)


class _ReplayLane:
    """Queues unless the rederiver is muted."""

    __slots__ = ("_lane", "_owner")

    def __init__(self, owner: Rederiver, lane: Lane | None) -> None:
        self._owner, self._lane = owner, lane

    def append(self, timestamp_ms: int, key: bytes, value: bytes, headers: Sequence[Header] = ()) -> None:
        if self._lane is not None and not self._owner.muted:
            self._lane.append(timestamp_ms, key, value, headers)
            self._owner.records += 1
