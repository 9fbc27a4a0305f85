"""Strings the steps together for a live bridge: messages in, records queued. No I/O and no clock of its own.

Every message makes a raw record, whatever becomes of it; then it is put in order and derived. What is odd goes to
the dead-letter topic, what is missing to the gaps topic.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Literal

import msgspec

from bridge.catalogue import CONTROL, UNKNOWN, Catalogue, ChosenStream, TopicNames
from bridge.core import notices
from bridge.core.book_sync import Lost, Synced, book_of, depth_request
from bridge.core.compile import UNDECODABLE
from bridge.core.derive import Failure, Item, StreamDeriver, Waiting, Writer
from bridge.core.event_time import MOST_AHEAD_MS, record_milliseconds
from bridge.core.gap_filling import GapFilling
from bridge.core.instruments import Instruments, parse_exchange_info
from bridge.core.market_records import market_records
from bridge.core.raw import NO_TIME, event_time_of, raw_prefix, raw_value
from bridge.core.schema import encode
from bridge.core.sequence import Missing
from bridge.core.series import has_silent, place_of, series_of
from bridge.core.standing import Standings
from bridge.core.unmade import unmade, unmade_notice
from bridge.core.varint import consecutive_long_bytes, long_bytes
from bridge.core.wire import Decoder
from bridge.errors import DecodeError, UnexpectedMessage
from bridge.telemetry import Lifecycle

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bridge.core.book_sync import Happening
    from bridge.core.notices import Notice
    from bridge.core.resumption import Resumption
    from bridge.core.schema import Schema
    from bridge.core.standing import Standing
    from bridge.model import Header, Lane, Leg, Market, Publisher, RawKind, Stream, StreamState
    from bridge.telemetry import Telemetry

log = logging.getLogger("bridge")

EXCHANGE_INFO: dict[Market, str] = {
    "spot": "/api/v3/exchangeInfo",
    "usdm": "/fapi/v1/exchangeInfo",
    "coinm": "/dapi/v1/exchangeInfo",
}

STREAM_PREFIX = b'{"stream":"'
_NAME_AT = len(STREAM_PREFIX)


@dataclass(slots=True)
class Tally:
    """How many messages of a channel came, and their bytes."""

    messages: int = 0
    message_bytes: int = 0

    def add(self, payload: bytes) -> None:
        """Count a message."""
        self.messages += 1
        self.message_bytes += len(payload)


@dataclass(slots=True)
class Counts:
    """What the pipeline has seen since it began, for metrics and the status page."""

    tallies: defaultdict[tuple[Market, str], Tally] = field(default_factory=lambda: defaultdict(Tally))
    gaps_found: int = 0
    gap_events_recovered: int = 0
    dead_letters: int = 0

    @property
    def messages(self) -> Counter[tuple[Market, str]]:
        """Messages by market and channel."""
        return Counter({channel: tally.messages for channel, tally in self.tallies.items()})

    @property
    def message_bytes(self) -> Counter[tuple[Market, str]]:
        """Their bytes."""
        return Counter({channel: tally.message_bytes for channel, tally in self.tallies.items()})


Route = Callable[[bytes, int, bytes, int, int], None]
"""``route(payload, number, stamp, received_at, received_ms)`` takes a message of one stream on one connection."""


class StateLane:
    """A lane that also remembers the newest value of each key, to be written to the state topic now and then."""

    __slots__ = ("_append", "_newest")

    def __init__(self, lane: Lane, newest: dict[bytes, tuple[int, bytes]]) -> None:
        self._append, self._newest = lane.append, newest

    def append(self, timestamp_ms: int, key: bytes, value: bytes, headers: Sequence[Header] = ()) -> None:
        """Queue the record, and keep it as the newest of its key."""
        self._append(timestamp_ms, key, value, headers)
        self._newest[key] = (timestamp_ms, value)


class Pipeline:
    """Steps 2 to 5 of a live bridge."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        schemas: Mapping[str, Schema],
        names: TopicNames,
        publisher: Publisher,
        telemetry: Telemetry,
        writer: Writer,
        hold_ms: int,
        state_interval_ms: int,
        snapshot_interval_ms: int | None = None,
        counts: Counts | None = None,
    ) -> None:
        self._catalogue, self._schemas, self._names = catalogue, schemas, names
        self._publisher, self._telemetry, self._writer = publisher, telemetry, writer
        self._hold = hold_ms * 1000
        self._state_interval = state_interval_ms * 1000
        self._snapshot_interval = None if snapshot_interval_ms is None else snapshot_interval_ms * 1000
        self._state_channels = catalogue.topics.state
        self._state: dict[str, dict[bytes, tuple[int, bytes]]] = {s: {} for s in catalogue.topics.state}
        self._state_due = 0
        self._derivers: dict[tuple[Market, str], StreamDeriver] = {}
        self._books: dict[tuple[Market, str], list[StreamDeriver]] = {}
        self._latest = 0
        self._waiting = Waiting()
        self._dark: dict[tuple[Market, str], int] = {}
        self._carriers: dict[tuple[Market, str], dict[int, int]] = {}  # by connection: since when
        self.legs: dict[int, Leg] = {}
        self._api_number = 0
        self.instruments: dict[Market, Instruments] = {}
        self.counts = Counts() if counts is None else counts
        self.on_contract_info: Callable[[Market], None] | None = None
        self.on_book: Callable[[Stream, Happening], None] | None = None
        self.gaps = GapFilling(self)
        self.on_gap: Callable[[Stream], None] | None = None
        self._standings = Standings(writer.epoch)
        self._unsettled: list[Notice] = []
        self.on_unsettled: Callable[[], None] | None = None
        self._absent: set[tuple[Market, str]] = set()
        self._held: deque[Callable[[], object]] | None = None
        self._decoder = Decoder(schemas.values())

    # Streams and instruments

    def add(self, chosen: ChosenStream) -> None:
        """Make ready for a stream before its connection subscribes to it."""
        stream, compiled = chosen.stream, self._catalogue.channel(chosen.stream.market, chosen.stream.channel)
        key = (stream.market, stream.name)
        if key not in self._derivers:
            deriver = self._derivers[key] = StreamDeriver(
                stream,
                compiled,
                self._catalogue.constants(compiled, chosen.choice),
                self._schemas,
                self,
                self._writer,
                self.instruments.get(stream.market) or Instruments(stream.market, ()),
                self._hold,
                book_of(stream, self._snapshot_interval),
                self._catalogue.history(chosen),
            )
            if deriver.book is not None and stream.symbol is not None:
                self._books.setdefault((stream.market, stream.symbol), []).append(deriver)
            self._standings.add(deriver)

    def exchange_info(self, market: Market, received_at: int, body: bytes, number: int) -> Instruments:
        """Take an exchangeInfo answer: publish what is new, and use it from the next message on.

        Raises:
            UnexpectedMessage: the answer cannot be understood; nothing changes.
        """
        server_time, table = parse_exchange_info(market, body)
        before = self.instruments.get(market)
        for record in market_records(
            self._schemas["market"], before, table, self._writer, server_time, received_at, number
        ):
            lane = self.lane("market", record.key, "api")
            at = record_milliseconds(server_time // 1000 or None, received_at)
            lane.append(at, record.key, record.value, self._writer.headers)
        self.use(market, table)
        return self.instruments[market]

    def use(self, market: Market, table: Instruments) -> None:
        """Use a table of instruments from the next message on, where it is another than before."""
        before, self.instruments[market] = self.instruments.get(market), table
        if before is None or before.by_id != table.by_id:
            for (on, _), deriver in self._derivers.items():
                if on == market:
                    deriver.use(table)
            for leg in self.legs.values():
                for state in leg.streams.values():
                    state.route = None

    def answered_at(self, received_at: int) -> int:
        """Return the time of receipt to note for an answer: behind every message taken before it.

        Raw records are ordered by it, and a message's batch may be stamped in the very same microsecond.
        """
        return max(received_at, self._latest + 1)

    def answer(self, market: Market, endpoint: str, received_at: int, body: bytes) -> None:
        """Take an answer of REST: keep it raw, and hand it to whom it concerns (:meth:`api_answer`)."""
        if self._held is not None:
            self._held.append(lambda: self.answer(market, endpoint, received_at, body))
            return
        received_at = self.answered_at(received_at)
        number = self.api_answer(market, endpoint, received_at, body)
        if endpoint.partition("?")[0] == EXCHANGE_INFO[market]:
            try:
                self.exchange_info(market, received_at, body, number)
            except UnexpectedMessage as error:
                log.warning("%s", error)

    def api_answer(
        self, market: Market, endpoint: str, received_at: int, body: bytes, kind: RawKind = "rest"
    ) -> int:
        """Keep an answer of REST or the WebSocket API raw, hand it to books and gaps; return its number."""
        number = self._api_number
        self._api_number = number + 1
        prefix = self._raw_prefix(market, "api", endpoint, None, 0, kind)
        self._raw(market, "api", endpoint.partition("?")[0].encode(), prefix, number, received_at, body)
        self._waiting.expire(received_at)
        self.gaps.answer(market, endpoint, received_at, number, body)
        request = depth_request(endpoint)
        if request is not None:
            for deriver in self._books.get((market, request.symbol), ()):
                deriver.depth_answer(body, request.limit, received_at)
        return number

    def books(self) -> Iterator[tuple[Stream, bool]]:
        """Yield the stream of each book, and whether that is in sync; one that no connection carries is not."""
        for deriver in chain.from_iterable(self._books.values()):
            stream, book = deriver.stream, deriver.book
            in_sync = book is not None and book.book is not None
            yield stream, in_sync and bool(self._carriers.get((stream.market, stream.name)))

    def changes(self, market: Market, stream: str) -> int:
        """Return how many changes came to the book of a stream."""
        deriver = self._derivers.get((market, stream))
        return 0 if deriver is None or deriver.book is None else deriver.book.changes

    # Standing still, and where each stream stands

    def hold(self) -> None:
        """Take nothing in until :meth:`release`; what comes is kept, in order."""
        if self._held is None:
            self._held = deque()

    def release(self) -> None:
        """Take in what was kept, and go on."""
        held, self._held = self._held, None
        for take in held or ():
            take()

    def resume(self, stream: Stream, resumption: Resumption, at: int) -> None:
        """Go on with a stream where its earlier owner stopped; before its first message.

        Args:
            stream: a stream that was added.
            resumption: what the topics say of it.
            at: now, microseconds.
        """
        key = (stream.market, stream.name)
        deriver = self._derivers[key]
        self._standings.resume(deriver, resumption.ledger, resumption.carried_until)
        if self.gaps.take_over(deriver, resumption, at) and self.on_gap is not None:
            self.on_gap(stream)
        if resumption.tail is not None:
            deriver.resume(resumption.tail)
        if resumption.carried_until is not None and deriver.known_by == "time":
            self._dark[key] = resumption.carried_until
            self._absent.add(key)

    def outlets(self, stream: Stream) -> list[tuple[str, bytes]]:
        """Return topic and key of where events of a stream, and its gaps, are published.

        Streams that are known by time have only gaps to be found; of those whose messages do not all make a record
        raw tells too.
        """
        deriver = self._derivers[stream.market, stream.name]
        symbol = deriver.instruments.get(stream.symbol).symbol if stream.symbol else stream.name
        found = [(self._names.of("gaps"), symbol.encode())]
        if deriver.known_by != "time":
            found += [(self._names.unified(s), symbol.encode()) for s in deriver.compiled.structures]
            if has_silent(deriver.compiled):
                key = (stream.symbol or stream.name).encode()
                found.append((self._names.raw(stream.market, stream.channel), key))
        return found

    def standing(self, stream: Stream, now: int, *, always: bool = False) -> Standing | None:
        """Return how far a stream has come, if that is further than when last asked (microseconds), or ``always``."""
        key = (stream.market, stream.name)
        carried = self._carried_until(key) if key in self._carriers else None
        return self._standings.of(stream, now, carried, always=always)

    @property
    def unsettled(self) -> int:
        """How many gap records wait for :meth:`tell`."""
        return len(self._unsettled)

    def tell(self, count: int) -> None:
        """Publish the first gap records that wait: all that was queued when there were ``count`` is acknowledged."""
        for notice in self._unsettled[:count]:
            self._send("gaps", notice)
        del self._unsettled[:count]

    def _carried_until(self, key: tuple[Market, str]) -> int | None:
        carriers = self._carriers[key]
        if not carriers:
            return self._dark.get(key)
        alive = list(carriers.values())
        for connection_id in carriers:
            leg = self.legs.get(connection_id)
            if leg is not None:
                alive.append(leg.alive_at)
                state = leg.streams.get(key[1].encode())
                alive.append(state.last_received_at if state is not None else 0)
        return max(alive)

    # Messages

    def receive(self, leg: Leg, received_at: int, payloads: Sequence[bytes]) -> None:
        """Take the messages of one wake-up of a connection (:class:`bridge.model.Receive`)."""
        first = leg.next_sequence
        leg.next_sequence = first + len(payloads)
        if self._held is not None:
            kept = list(payloads)
            self._held.append(lambda: self._take(leg, first, received_at, kept))
        else:
            self._take(leg, first, received_at, payloads)

    def _take(self, leg: Leg, first: int, received_at: int, payloads: Sequence[bytes]) -> None:
        """Take messages that are numbered from ``first`` on their connection."""
        received_ms = received_at // 1000
        stamps = consecutive_long_bytes(first, len(payloads), long_bytes(received_at))
        self._latest = max(self._latest, received_at)
        streams = leg.streams
        waiting = self._waiting
        if waiting.deadline is not None:
            waiting.expire(received_at)
        for number, (payload, stamp) in enumerate(zip(payloads, stamps, strict=True), first):
            state = None
            if payload.startswith(STREAM_PREFIX):
                state = streams.get(payload[_NAME_AT : payload.find(b'"', _NAME_AT)])
            if state is None:
                state = self._unusual(leg, number, received_at, payload)
                if state is None:
                    continue
            state.frames += 1
            state.last_received_at = received_at
            route: Route = state.route or self._route(leg, state, received_at)  # type: ignore[assignment]
            route(payload, number, stamp, received_at, received_ms)

    def tick(self, now: int) -> None:
        """Let time pass (microseconds): release what was held too long, write the newest state."""
        if self._held is not None:
            return
        self._waiting.expire(now)
        self._latest = max(self._latest, now)
        if now >= self._state_due:
            self._state_due = now + self._state_interval
            self._write_state()

    def drain(self) -> None:
        """Derive everything still held and write the newest state; for a stop, after the last message."""
        self.release()
        self._waiting.expire(1 << 62)
        self._write_state()

    def subscribed(self, connection_id: int, streams: Iterable[str], at: int) -> None:
        """The exchange acknowledged streams (microseconds): what was dark is no longer."""
        if self._held is not None:
            names = tuple(streams)
            self._held.append(lambda: self.subscribed(connection_id, names, at))
            return
        leg = self.legs.get(connection_id)
        if leg is not None:
            since = min(
                at, leg.alive_at or at
            )  # the answer's own time: a stretch that begins with it is another
            for name in streams:
                self._carry(leg, name, since)

    def closed(self, connection_id: int, *, clean: bool) -> None:
        """A connection ended: what nobody else carries is dark from its last sign of life on.

        Unless the end was ``clean`` (the peer took part in it), the connection may have been dead since then without
        anybody noticing: what came on no other connection before that one was subscribed is a hole too.
        """
        if self._held is not None:
            self._held.append(lambda: self.closed(connection_id, clean=clean))
            return
        leg = self.legs.pop(connection_id, None)
        for state in leg.streams.values() if leg is not None else ():
            assert leg is not None
            key = (leg.market, state.stream.name)
            if state.route is not None:
                self._derivers[key].forget(connection_id)
            carriers = self._carriers.get(key, {})
            if carriers.pop(connection_id, None) is None:
                continue
            alive_at = max(leg.alive_at, state.last_received_at)
            if not carriers:
                self._dark[key] = alive_at
            elif not clean:
                self._tell_dark(key, alive_at, min(carriers.values()))

    def _route(self, leg: Leg, state: StreamState, received_at: int) -> Route:
        """Make a stream ready at its first message on a connection, and at the first with other instruments."""
        state.first_received_at = state.first_received_at or received_at
        deriver = self._derivers[leg.market, state.stream.name]
        route = state.route = self._straight(leg, deriver)
        if deriver.compiled.declaration.refreshes_markets:
            route = state.route = self._refreshing(leg.market, route)
        self.legs[leg.connection_id] = leg
        self._carry(leg, state.stream.name, received_at)
        return route

    def _straight(self, leg: Leg, deriver: StreamDeriver) -> Route:
        """Return what takes a message: one function with all it needs bound, for every message goes through it."""
        stream, connection_id = deriver.stream, leg.connection_id
        tally, waiting = self.counts.tallies[leg.market, stream.channel], self._waiting
        prefix = self._raw_prefix(
            leg.market, stream.channel, stream.name, stream.symbol, connection_id, "stream"
        )
        key = (stream.symbol or stream.name).encode()
        append = self._publisher.lane(self._names.raw(leg.market, stream.channel), key).append
        decode, event_time = deriver.decode, deriver.event_time
        follows, publish = deriver.straight(connection_id)

        def route(payload: bytes, number: int, stamp: bytes, received_at: int, received_ms: int) -> None:
            tally.messages += 1
            tally.message_bytes += len(payload)
            try:
                message = decode(payload).data
                event_ms, encoded_time = event_time_of(event_time(message))
            except UNDECODABLE as error:
                append(received_ms, key, raw_value(prefix, stamp, NO_TIME, payload))
                item = Item(None, payload, received_at, None, connection_id, number, stamp)
                self.failed(deriver, Failure("parse", str(error), item))
                return
            at = received_ms if event_ms is None or event_ms > received_ms + MOST_AHEAD_MS else event_ms
            append(at, key, raw_value(prefix, stamp, encoded_time, payload))
            if follows(message, event_ms, payload):
                try:
                    publish(message, stamp, received_ms)
                except (UnexpectedMessage, OverflowError) as error:
                    item = Item(message, payload, received_at, event_ms, connection_id, number, stamp)
                    self.failed(deriver, Failure("unify", str(error), item))
            elif not deriver.take(
                Item(message, payload, received_at, event_ms, connection_id, number, stamp)
            ):
                waiting.note(deriver)

        return route

    def _refreshing(self, market: Market, straight: Route) -> Route:
        """Return the same for a stream that tells of new instruments."""

        def route(payload: bytes, number: int, stamp: bytes, received_at: int, received_ms: int) -> None:
            straight(payload, number, stamp, received_at, received_ms)
            if self.on_contract_info is not None:
                self.on_contract_info(market)

        return route

    def _carry(self, leg: Leg, stream: str, at: int) -> None:
        """Note that a stream comes on a connection since ``at``, by its first message or its acknowledgement."""
        key = (leg.market, stream)
        carriers = self._carriers.setdefault(key, {})
        if leg.connection_id not in carriers:
            carriers[leg.connection_id] = at
            deriver = self._derivers.get(key)
            if deriver is not None and deriver.known_by == "time":
                self._standings.begin(deriver, at)
            self._tell_dark(key, self._dark.pop(key, at), at)
            self._absent.discard(key)

    def _tell_dark(self, key: tuple[Market, str], since: int, until: int) -> None:
        """Record a stretch without a connection, where nothing in the stream's messages tells what is missing."""
        deriver = self._derivers.get(key)
        if deriver is None or deriver.known_by != "time":
            return
        if since < until:
            self._count_gap(deriver.stream)
            cause = "restart" if key in self._absent else "disconnected"
            self.gap(deriver, [notices.dark_notice(deriver, since, until, cause)])

    def _count_gap(self, stream: Stream) -> None:
        self.counts.gaps_found += 1
        self._telemetry.metrics.gaps_total.labels(stream.market, stream.channel).inc()

    def _raw_prefix(
        self, market: Market, channel: str, stream: str, symbol: str | None, connection_id: int, kind: RawKind
    ) -> bytes:
        return raw_prefix(
            self._schemas["raw"], self._names.environment, market, channel, stream, symbol, connection_id,
            self._writer.epoch, kind,
        )  # fmt: skip

    def _raw(
        self,
        market: Market,
        topic_channel: str,
        key: bytes,
        prefix: bytes,
        number: int,
        received_at: int,
        payload: bytes,
    ) -> None:
        stamp = long_bytes(number) + long_bytes(received_at)
        lane = self._publisher.lane(self._names.raw(market, topic_channel), key)
        lane.append(received_at // 1000, key, raw_value(prefix, stamp, NO_TIME, payload))

    def _unusual(self, leg: Leg, number: int, received_at: int, payload: bytes) -> StreamState | None:
        """Return the stream of an unusually written message; keep one that belongs to none of the streams."""
        channel, stream, error = _classify(payload)
        state = leg.streams.get(stream.encode()) if channel == UNKNOWN else None
        if state is not None:
            return state
        self.legs[leg.connection_id] = leg
        prefix = self._raw_prefix(leg.market, channel, stream, None, leg.connection_id, "stream")
        topic_channel = "api" if channel == CONTROL else UNKNOWN
        key = (stream or leg.shown_id).encode()
        self._raw(leg.market, topic_channel, key, prefix, number, received_at, payload)
        self.counts.tallies[leg.market, channel].add(payload)
        if error is not None:
            letter = notices.dead_letter(
                key=key, at=received_at, reason="unknown" if stream else "parse", error=error,
                topic=self._names.raw(leg.market, UNKNOWN), epoch=self._writer.epoch, payload=payload,
                market=leg.market, channel=channel, stream=stream or None, connection_id=leg.connection_id,
                number=number,
            )  # fmt: skip
            self.dead_letter(letter)
        return None

    # Outlets

    def lane(self, structure: str, key: bytes, channel: str) -> Lane:
        """Return the lane of a key into a unified topic (:class:`bridge.core.derive.Outlets`)."""
        lane = self._publisher.lane(self._names.unified(structure), key)
        kept = channel in self._state_channels.get(structure, ())
        return StateLane(lane, self._state[structure]) if kept else lane

    def missing(self, deriver: StreamDeriver, missing: Missing, item: Item) -> None:
        """Record a gap (:class:`bridge.core.derive.Outlets`)."""
        self._count_gap(deriver.stream)
        if self.gaps.found(deriver, missing, item) and self.on_gap is not None:
            self.on_gap(deriver.stream)

    def gap(self, deriver: StreamDeriver, told: Sequence[Notice]) -> None:
        """Publish gap records (:class:`bridge.core.gap_filling.GapOutlet`).

        Those that say what was recovered wait for :meth:`tell` (where someone sees to it): a gap is not filled before
        its events are there. Each later one waits behind them.
        """
        recovered = sum(notice.record["recovered"] for notice in told)
        if recovered:
            stream = deriver.stream
            self.counts.gap_events_recovered += recovered
            metric = self._telemetry.metrics.gap_events_recovered_total
            metric.labels(stream.market, stream.channel).inc(recovered)
        for notice in told:
            self._standings.note(deriver, notice)
        if self.on_unsettled is not None and (recovered or self._unsettled):
            self._unsettled += told
            self.on_unsettled()
            return
        for notice in told:
            self._send("gaps", notice)

    def failed(self, deriver: StreamDeriver, failure: Failure) -> None:
        """Record a dead letter, and that its event is missing (:class:`bridge.core.derive.Outlets`)."""
        stream, structures = deriver.stream, deriver.compiled.structures
        raw = self._names.raw(stream.market, stream.channel)
        topic = self._names.unified(structures[0]) if structures else raw
        self.dead_letter(notices.failure_notice(deriver, failure, topic))
        notice = unmade_notice(deriver, failure)
        if notice is not None:
            self._count_gap(stream)
            self.gap(deriver, [notice])

    def book(self, deriver: StreamDeriver, happening: Happening) -> None:
        """Tell of a book (:class:`bridge.core.derive.Outlets`)."""
        stream = deriver.stream
        if isinstance(happening, Lost):
            self._telemetry.metrics.book_resyncs_total.labels(stream.market).inc()
            reason = f"{happening.reason} (after {happening.sequence})"
            self._tell_book("book.resync", stream, reason, happening.sequence)
        elif isinstance(happening, Synced) and not happening.refreshed:
            reason = (
                f"{happening.bids} bids and {happening.asks} asks at {happening.sequence}, "
                f"{happening.changes} updates after the snapshot"
            )
            self._tell_book("book.synced", stream, reason, happening.sequence)
        if self.on_book is not None:
            self.on_book(stream, happening)

    def _tell_book(
        self, event: Literal["book.synced", "book.resync"], stream: Stream, reason: str, sequence: int
    ) -> None:
        self._telemetry.emit(
            Lifecycle(
                event=event,
                market=stream.market,
                streams=(stream.name,),
                reason=reason,
                last_sequence=sequence,
            )
        )

    def poisoned(self, topic: str, key: bytes, value: bytes, timestamp_ms: int, error: str) -> None:
        """Record a record that Kafka refused for good; at a time of our own, for its own may be the reason."""
        if topic != self._names.of("dead-letter"):
            letter = notices.dead_letter(
                key=key, at=self._latest or timestamp_ms * 1000, reason="publish", error=error, topic=topic,
                epoch=self._writer.epoch, payload=value,
            )  # fmt: skip
            self.dead_letter(letter)

    def refused(self, value: bytes, at: int, error: str) -> None:
        """Note that Kafka will never have a record: the event that it was of, if that is ours, is missing.

        Args:
            value: the record.
            at: now, microseconds.
            error: Kafka's.
        """
        try:
            record = self._decoder.decode(value)
        except DecodeError:
            return
        if "exchangeSymbol" not in record or "stream" in record:
            return  # raw, gaps and coverage are of no event
        series = series_of(record)
        for stream, deriver in ((deriver.stream, deriver) for deriver in self._derivers.values()):
            if series == self._catalogue.series(stream.market, stream.channel, stream.name, stream.symbol):
                place = place_of(deriver.compiled, record)
                if place is not None and place.span is not None and deriver.known_by != "time":
                    first, last = place.span
                    candles = deriver.known_by == "candle"
                    missing = Missing(None, None, first, last) if candles else Missing(first, last)
                    self._count_gap(stream)
                    self.gap(deriver, [unmade(notices.restart_notice(deriver, missing, at), error)])

    def dead_letter(self, notice: Notice) -> None:
        """Publish a dead letter and count it."""
        self.counts.dead_letters += 1
        labels = (notice.record["market"] or "none", notice.record["channel"] or "none")
        self._telemetry.metrics.dead_letters_total.labels(*labels).inc()
        self._send("dead-letter", notice)

    def _send(self, family: str, notice: Notice) -> None:
        value = encode(self._schemas[notice.structure], notice.record)
        lane = self._publisher.lane(self._names.of(family), notice.key)
        lane.append(notice.at // 1000, notice.key, value)

    def _write_state(self) -> None:
        for structure, newest in self._state.items():
            if not newest:
                continue
            topic = self._names.state(structure)
            for key, (timestamp_ms, value) in newest.items():
                self._publisher.lane(topic, key).append(timestamp_ms, key, value)
            newest.clear()


def _classify(payload: bytes) -> tuple[str, str, str | None]:
    """Return channel, stream name and, unless it is an answer or a notice of the server, what is wrong."""
    try:
        message = msgspec.json.decode(payload)
    except UNDECODABLE as error:
        name = payload[_NAME_AT : payload.find(b'"', _NAME_AT)] if payload.startswith(STREAM_PREFIX) else b""
        return UNKNOWN, name.decode("utf-8", "replace")[:200], f"not JSON: {error}"
    if not isinstance(message, dict):
        return UNKNOWN, "", "not a combined-stream message"
    stream = message.get("stream")
    if stream == "!serverShutdown" or message.get("e") == "serverShutdown":
        return CONTROL, "!serverShutdown", None
    if isinstance(stream, str):
        return UNKNOWN, stream, f"stream {stream!r} was not subscribed on this connection"
    if "result" in message or "error" in message or "code" in message:
        return CONTROL, "", None
    return UNKNOWN, "", "neither a stream's message nor an answer"
