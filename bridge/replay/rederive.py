"""From raw records to unified ones, without I/O: the same derivers as live, fed from the past.

Each record goes to the tenure of its writer (:mod:`bridge.replay.tenure`). With the first record of a later writer a
stream passes to that one, as a shard does: the earlier owner's messages that are still held are derived, and the next
goes on behind them, with a new book and what was open of the gaps. What an earlier owner sends after that is dropped,
as readers drop it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge import __version__
from bridge.core.book_sync import CHANNEL, depth_request
from bridge.core.derive import Writer
from bridge.core.event_time import record_milliseconds
from bridge.core.history import asked
from bridge.core.instruments import InstrumentHistory, Instruments
from bridge.core.market_records import market_records
from bridge.model import Header
from bridge.replay.output import Output
from bridge.replay.tenure import API, MOST_CONNECTIONS, Deriving, RawRecord, Tenure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.catalogue import Catalogue, ChosenStream, TopicNames
    from bridge.core.history import Place
    from bridge.core.schema import Schema
    from bridge.core.standing import StreamKey
    from bridge.model import Market, Publisher
    from bridge.replay.tenure import Way

__all__ = ["API", "RawRecord", "Rederiver"]


class Rederiver:
    """Takes the raw records of streams in order and queues what they become.

    Args:
        catalogue: the declarations.
        schemas: the schemas.
        names: names of the topics to write to.
        publisher: where records go.
        structures: which unified structures are wanted.
        symbols: which unified or exchange symbols are wanted; None for all.
        history: the instruments as the bridge knew them, over all the time that is derived.
        hold_ms: as live.
        snapshot_interval_ms: as live.
        run_id: marks the records' headers.

    Attributes:
        output: where everything goes.
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
        self._catalogue, self._schemas, self._history = catalogue, schemas, history
        self._headers = (Header("version", __version__.encode()), Header("run-id", run_id.encode()))
        self.output = Output(schemas, names, publisher, structures, symbols)
        self._deriving = Deriving(
            catalogue, schemas, self._headers, hold_ms * 1000, snapshot_interval_ms * 1000, self.output
        )
        self._tenures: dict[int, Tenure] = {}
        self._owners: dict[StreamKey, Tenure] = {}
        self._chosen: dict[StreamKey, ChosenStream | None] = {}
        self._places: dict[Place, StreamKey] = {}
        self._books: dict[tuple[Market, str], list[StreamKey]] = {}
        self._ways: dict[tuple[int, int, Market, str], Way] = {}
        self._since, self._until = 0, 0  # a time in which they hold, microseconds

    def take(self, raw: RawRecord) -> None:
        """Derive what a raw record makes due. Records come in the order in which the bridges received them."""
        received_at = raw.received_at
        for tenure in self._tenures.values():
            if tenure.waiting.deadline is not None:
                tenure.waiting.expire(received_at)
        if not self._since <= received_at < self._until:
            self._change_tables(received_at)
        way = self._ways.get((raw.epoch, raw.connection_id, raw.market, raw.stream))
        if way is None:
            if raw.channel == API:
                self._answer(raw)
                return
            way = self._way(raw)
            if way is None:
                return
        way(raw.payload, raw.number, received_at)

    def drain(self) -> None:
        """Derive what is still held, at the end of the range."""
        for tenure in self._tenures.values():
            tenure.drain()

    def _answer(self, raw: RawRecord) -> None:
        """Give an answer of REST to the gaps and books it was asked for."""
        found = asked(raw.market, raw.stream)
        key = None if found is None else self._places.get(found[0])
        if key is not None:
            owner: Tenure | None = self._owners[key]
            if owner is not None and owner.epoch != raw.epoch:
                # A new owner asks for what earlier ones left open before it has a message of its own.
                owner = self._pass_on(key, raw) if owner.has_gaps(key) else None
            if owner is not None:
                owner.history(key, raw, self._table(raw))
        request = depth_request(raw.stream)
        if request is not None:
            for book in self._books.get((raw.market, request.symbol), ()):
                owner = self._owners[book]
                if owner.epoch == raw.epoch:  # the book of a new owner begins with its first message
                    owner.depth(book, raw, request.limit, self._table(raw))

    # Ways: of what a message needs, all that is the same for the next one of its stream and connection

    def _way(self, raw: RawRecord) -> Way | None:
        """Find who owns a message's stream, and how it goes there; None where nobody is to have it."""
        key = (raw.market, raw.stream)
        owner = self._owners.get(key)
        if owner is None or owner.epoch != raw.epoch:
            owner = self._pass_on(key, raw) if owner is not None else self._begin(key, raw)
            if owner is None:
                return None
        if len(self._ways) >= MOST_CONNECTIONS * len(self._owners):
            self._ways.clear()
        way = owner.way(key, raw.connection_id, self._table(raw))
        self._ways[raw.epoch, raw.connection_id, raw.market, raw.stream] = way
        return way

    def _change_tables(self, received_at: int) -> None:
        """Enter a stretch of time in which no market's instruments change: ways are bound to them."""
        self._ways.clear()
        stretches = [history.stretch(received_at) for history in self._history.values()]
        self._since = max(since for since, _ in stretches)
        self._until = min(until for _, until in stretches)

    # Owners

    def _begin(self, key: StreamKey, raw: RawRecord) -> Tenure | None:
        """Return the owner of a stream's first message; None where the catalogue has no such stream."""
        if key not in self._chosen:
            self._chosen[key] = self._catalogue.named(raw.market, raw.channel, raw.stream, raw.symbol)
        chosen = self._chosen[key]
        if chosen is None:
            return None
        owner = self._owners[key] = self._tenure(raw.epoch)
        deriver, stream = owner.begin(chosen, self._table(raw)), chosen.stream
        if not isinstance(deriver.history, str):
            self._places[deriver.history.place] = key
        if stream.channel == CHANNEL and stream.symbol is not None:
            self._books.setdefault((stream.market, stream.symbol), []).append(key)
        return owner

    def _pass_on(self, key: StreamKey, raw: RawRecord) -> Tenure | None:
        """Let a later writer have a stream; None where it is an earlier one, whose record comes too late."""
        before, chosen = self._owners[key], self._chosen[key]
        if raw.epoch < before.epoch or chosen is None:
            return None
        self._ways.clear()  # they lead to owners
        resumption = before.leave(key)
        if before.empty:
            del self._tenures[before.epoch]
        owner = self._owners[key] = self._tenure(raw.epoch)
        owner.resume(chosen, self._table(raw), resumption, raw.received_at)
        return owner

    def _tenure(self, epoch: int) -> Tenure:
        found = self._tenures.get(epoch)
        if found is None:
            found = self._tenures[epoch] = Tenure(epoch, self._deriving)
        return found

    # Instruments

    def markets(self, market: Market, start: int, end: int) -> None:
        """Queue the instruments' records of answers in a range of receive times (microseconds).

        Each owner begins with all instruments, and goes on with those that changed.
        """
        known: dict[int, Instruments] = {}
        for answer in self._history[market].answers:
            before, known[answer.epoch] = known.get(answer.epoch), answer.table
            if not start <= answer.received_at < end:
                continue
            writer = Writer("replay", answer.epoch, self._headers)
            for record in market_records(
                self._schemas["market"], before, answer.table, writer, answer.server_time, answer.received_at,
                answer.number,
            ):  # fmt: skip
                time = record_milliseconds(answer.server_time // 1000 or None, answer.received_at)
                lane = self.output.lane("market", record.key)
                lane.append(time, record.key, record.value, self._headers)

    def _table(self, raw: RawRecord) -> Instruments:
        return self._history[raw.market].at(raw.received_at) or Instruments(raw.market, ())
