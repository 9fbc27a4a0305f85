"""From private events and REST's answers of an account to its unified records: the one way of live and replay.

:class:`AccountDeriver` takes bytes and returns what to publish; what is known already is left out
(:mod:`bridge.core.account_state`). No I/O, no clock: times come with the messages, and nothing is raised for any bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bridge.core.account_compile import Unmade
from bridge.core.account_records import (
    CHANNEL,
    FUTURES,
    PRIVATE,
    Encoder,
    PrivateRecord,
    Provenance,
    draft_of,
    key,
    state_key,
)
from bridge.core.account_state import AccountState
from bridge.core.compile import UNDECODABLE
from bridge.core.conversions import micros
from bridge.core.event_time import event_milliseconds, record_milliseconds
from bridge.core.notices import dead_letter
from bridge.core.raw import raw_prefix, raw_value
from bridge.core.varint import long_bytes, nullable_long_bytes
from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.core.account_compile import AccountSources, CompiledSource
    from bridge.core.account_records import Draft
    from bridge.core.derive import Writer
    from bridge.core.instruments import Instruments
    from bridge.core.notices import Notice
    from bridge.core.schema import Schema
    from bridge.model import Environment, Market, Origin, RawKind

OF_ONE = frozenset({"symbol", "pair", "asset"})
"""Parameters with which an answer does not list everything."""


class Taken(NamedTuple):
    """What came of a message.

    Attributes:
        event: name of the event, or path of the endpoint; "" where the bytes could not be read.
        raw: the message as received, for ``raw.<market>.user``.
        records: unified records, in the order to publish in.
        letters: dead letters. ``topic`` of one is what it was meant for, without namespace and environment
            (``unified.order``, ``raw.spot.user``): names are the wiring's.
    """

    event: str
    raw: PrivateRecord
    records: tuple[PrivateRecord, ...]
    letters: tuple[Notice, ...]


class _Head(msgspec.Struct):
    """What every event begins with."""

    e: str
    E: int | str | None = None


class _Frame(msgspec.Struct):
    """The WebSocket API's wrapper, or an event without one."""

    event: msgspec.Raw = msgspec.Raw()


_FRAME = msgspec.json.Decoder(_Frame)
_HEAD = msgspec.json.Decoder(_Head)


class _Message(NamedTuple):
    """A message on its way.

    Attributes:
        payload: the bytes as received.
        source: what the records' envelopes say.
        name: see :class:`Taken`.
        at: event time of an event, microseconds, where it has one that can be believed; of an answer when it was
            asked. Raw keeps it, and replay needs it.
        kind: how it came.
        symbol: the exchange symbol an answer was asked of alone.
    """

    payload: bytes
    source: Provenance
    name: str
    at: int | None
    kind: RawKind
    symbol: str | None = None


class AccountDeriver:
    """One account on one market.

    Args:
        sources: what tells of accounts (``catalogue().accounts``).
        schemas: all schemas.
        environment: the environment.
        account: the account's name.
        market: its market.
        writer: who derives; ``live`` and ``replay`` are the origins that make a difference here.
        instruments: the market's instruments.

    Attributes:
        state: what was published.
    """

    def __init__(
        self,
        sources: AccountSources,
        schemas: Mapping[str, Schema],
        environment: Environment,
        account: str,
        market: Market,
        writer: Writer,
        instruments: Instruments,
    ) -> None:
        self.account, self.market = account, market
        self.state = AccountState()
        self._sources, self._schemas, self._environment = sources, schemas, environment
        self._writer, self._instruments = writer, instruments
        self._encoders = {structure: Encoder(schemas[structure]) for structure in PRIVATE + FUTURES}

    def use(self, instruments: Instruments) -> None:
        """Use a newer table of instruments from the next message on."""
        self._instruments = instruments

    def resume(self, structure: str, record: Mapping[str, Any]) -> None:
        """Take note of a record that was published before this deriver was; those of other accounts are ignored.

        Args:
            structure: its structure: of ``state.order``, ``state.balance`` and ``state.position`` all, of
                ``unified.my-trade`` and ``unified.ledger`` what is as new as what REST will be asked for.
            record: as :class:`bridge.core.wire.Decoder` gives it without types.
        """
        if record.get("account") == self.account and record["market"] == self.market:
            self.state.resume(draft_of(self._schemas[structure], record))

    def take(self, payload: bytes, *, connection_id: int, number: int, received_at: int) -> Taken:
        """Take a message of the user stream.

        Args:
            payload: the bytes as received: an event, or on spot one in the WebSocket API's wrapper. Listen keys are
                blotted out of it.
            connection_id: the connection it came on, not 0.
            number: its number there.
            received_at: microseconds.
        """
        source = self._provenance(connection_id, number, received_at)
        kind: RawKind = "wsApi" if self.market == "spot" else "stream"
        message = _Message(payload, source, "", None, kind)
        try:
            event = _FRAME.decode(payload).event or payload
            head = _HEAD.decode(event)
        except UNDECODABLE as error:
            return self._failed(message, "parse", str(error))
        message = message._replace(name=head.e, at=_event_time(head.E))
        compiled = self._sources.events.get((self.market, head.e))
        origin: Origin = "replay" if self._writer.origin == "replay" else "live"
        return self._read(message, compiled, event, origin, 0, whole=False)

    def answer(
        self,
        endpoint: str,
        body: bytes,
        *,
        number: int,
        asked_at: int,
        received_at: int,
        params: Mapping[str, object] | None = None,
    ) -> Taken:
        """Take an answer of REST about the account.

        Args:
            endpoint: its path.
            body: the bytes as received.
            number: a number of the answer, counting from 0.
            asked_at: when it was asked, microseconds of the exchange's time.
            received_at: microseconds.
            params: what it was asked of; an answer that was asked of one symbol leaves out the others.
        """
        alone = next((str(value) for name, value in (params or {}).items() if name in OF_ONE), None)
        source = self._provenance(0, number, received_at)
        message = _Message(body, source, endpoint, asked_at, "rest", alone)
        compiled = self._sources.answers.get((self.market, endpoint))
        if compiled is None:
            return self._read(message, None, body, "snapshot", asked_at, whole=False)
        declared = compiled.declaration.endpoints[endpoint]
        origin: Origin = "replay" if self._writer.origin == "replay" else declared.origin
        return self._read(message, compiled, body, origin, asked_at, whole=declared.whole and alone is None)

    def _read(
        self,
        message: _Message,
        compiled: CompiledSource | None,
        data: bytes | msgspec.Raw,
        origin: Origin,
        asked_at: int,
        *,
        whole: bool,
    ) -> Taken:
        if compiled is None:
            return self._failed(
                message, "unknown", f"{self.market} declares no {message.name[:100]!r} of accounts"
            )
        try:
            decoded = compiled.decode(data)
        except UNDECODABLE as error:
            return self._failed(message, "parse", f"{message.name}: {error}")
        return self._derived(message, compiled, decoded, origin, asked_at, whole=whole)

    def _derived(
        self,
        message: _Message,
        compiled: CompiledSource,
        decoded: Any,
        origin: Origin,
        asked_at: int,
        *,
        whole: bool,
    ) -> Taken:
        made: list[Draft] = []
        letters: list[Notice] = []
        records: list[PrivateRecord] = []
        drafts = compiled.drafts(decoded, self._instruments, origin, message.source.connection_id, asked_at)
        for draft in drafts:
            if isinstance(draft, Unmade):
                letters.append(self._letter(message, "unify", draft.error, f"unified.{draft.structure}"))
                continue
            made.append(draft)
            self._publish(draft, message, records, letters)
        if whole and not letters:
            for gone in self._left_out(made, compiled, asked_at):
                self._publish(gone._replace(origin=origin), message, records, letters)
        return Taken(message.name, self._raw(message), tuple(records), tuple(letters))

    def _left_out(self, made: list[Draft], compiled: CompiledSource, asked_at: int) -> Iterable[Draft]:
        for structure in dict.fromkeys(record.structure for record in compiled.declaration.records):
            yield from self.state.left_out(structure, made, asked_at)

    def _publish(
        self, draft: Draft, message: _Message, records: list[PrivateRecord], letters: list[Notice]
    ) -> None:
        """Encode what is news; what can't be encoded is not taken note of."""
        encoder, source = self._encoders[draft.structure], message.source
        try:
            value = encoder.encoded(draft, source)
            news = self.state.accept(draft)
            if news is None:
                return
            if news is not draft:
                value = encoder.encoded(news, source)
            record_key, record_state = key(news, self.account), state_key(news, self.account, self.market)
        except (UnexpectedMessage, OverflowError, UnicodeEncodeError) as error:
            letters.append(self._letter(message, "unify", str(error), f"unified.{draft.structure}"))
            return
        time_ms = record_milliseconds(event_milliseconds(news.time), source.received_at)
        records.append(PrivateRecord(news.structure, record_key, time_ms, value, record_state))

    def _failed(self, message: _Message, reason: str, error: str) -> Taken:
        letter = self._letter(message, reason, error, f"raw.{self.market}.{CHANNEL}")
        return Taken(message.name, self._raw(message), (), (letter,))

    def _letter(self, message: _Message, reason: str, error: str, topic: str) -> Notice:
        source = message.source
        return dead_letter(
            key=self.account.encode(), at=source.received_at, reason=reason, error=error, topic=topic,
            epoch=source.epoch, payload=message.payload, market=self.market, channel=CHANNEL,
            stream=message.name or None, connection_id=source.connection_id, number=source.number,
        )  # fmt: skip

    def _raw(self, message: _Message) -> PrivateRecord:
        source = message.source
        prefix = raw_prefix(
            self._schemas["raw"], self._environment, self.market, CHANNEL, message.name, message.symbol,
            source.connection_id, source.epoch, message.kind,
        )  # fmt: skip
        stamp = long_bytes(source.number) + long_bytes(source.received_at)
        value = raw_value(prefix, stamp, nullable_long_bytes(message.at), message.payload)
        at = None if message.at is None else message.at // 1000
        time_ms = record_milliseconds(at, source.received_at)
        return PrivateRecord("raw", self.account.encode(), time_ms, value, None)

    def _provenance(self, connection_id: int, number: int, received_at: int) -> Provenance:
        return Provenance(self.market, self.account, self._writer.epoch, connection_id, number, received_at)


def _event_time(given: int | str | None) -> int | None:
    """Return the event time in microseconds, None where there is none to be believed."""
    if isinstance(given, str):
        given = int(given) if given.isascii() and given.isdigit() and len(given) < 20 else None
    return None if given is None or event_milliseconds(given) is None else micros(given)
