"""Unified records of accounts before and after they are encoded: what they hold, their keys and their identity.

A draft holds values as they are computed with: decimals are unscaled integers (times 10**18), times microseconds. So
drafts can be compared and merged exactly; :class:`Encoder` makes Avro bytes of one.
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.core.decimals import PRECISION, SCALE, decimal_bytes
from bridge.core.schema import ENVELOPE, encode
from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bridge.core.schema import Schema
    from bridge.model import Market, Origin

CHANNEL = "user"
"""Channel of all that is told of accounts: private events and private answers lie in ``raw.<market>.user``."""

PRIVATE = ("order", "my-trade", "balance", "ledger", "account-event")
"""Structures that every account has."""
FUTURES = ("position",)
"""Structures that futures accounts have besides."""

_TIMES = {"order": "lastUpdateTimestamp"}
_LONGEST = 1 << 63
_WIDE = Context(prec=PRECISION + SCALE)


class Draft(NamedTuple):
    """A unified record of an account, not yet encoded.

    Attributes:
        structure: its structure.
        values: its fields by name, ``symbol``, ``exchangeSymbol`` and ``sequence`` of the envelope among them.
        origin: where it comes from.
        connection: id of the connection it came on; 0 for answers of REST.
        asked_at: when REST was asked, microseconds of the exchange's time; 0 for events.
    """

    structure: str
    values: Mapping[str, Any]
    origin: Origin
    connection: int
    asked_at: int = 0

    @property
    def time(self) -> int:
        """The time of its Kafka record, microseconds."""
        time: int = self.values[_TIMES.get(self.structure, "timestamp")]
        return time

    def replaced(self, **values: object) -> Draft:
        """Return the same with some fields changed."""
        return self._replace(values={**self.values, **values})


class Provenance(NamedTuple):
    """What the envelope of a record says besides its symbol.

    Attributes:
        market: the account's market.
        account: the account.
        epoch: of the shard.
        connection_id: see :class:`Draft`.
        number: number of the message on its connection, or of the answer.
        received_at: microseconds.
    """

    market: Market
    account: str
    epoch: int
    connection_id: int
    number: int
    received_at: int


class PrivateRecord(NamedTuple):
    """A record for Kafka.

    Attributes:
        structure: unified structure, or ``raw``.
        key: of the raw or unified record.
        time_ms: its Kafka time, milliseconds.
        value: encoded.
        state: key of the same record in ``state.<structure>``; None where the structure has none.
    """

    structure: str
    key: bytes
    time_ms: int
    value: bytes
    state: bytes | None


def identity(draft: Draft) -> tuple[str, ...]:
    """Return what tells an order, a balance or a position from all others of an account.

    The exchange's symbol and not the unified one: that changes once exchangeInfo lists a new instrument.
    """
    values = draft.values
    if draft.structure == "order":
        return (values["exchangeSymbol"], f"algo-{values['id']}" if values["conditional"] else values["id"])
    if draft.structure == "position":
        return (values["exchangeSymbol"], values["positionSide"])
    return (values["exchangeSymbol"],)


def key(draft: Draft, account: str) -> bytes:
    """Return the key of its unified record: symbol or currency code, of account events the account."""
    return (account if draft.structure == "account-event" else str(draft.values["symbol"])).encode()


def state_key(draft: Draft, account: str, market: Market) -> bytes | None:
    """Return the key of its newest value, None where the structure does not change."""
    if draft.structure not in {"order", "balance", "position"}:
        return None
    return ":".join((account, market, *identity(draft))).encode()


class Encoder:
    """Encodes drafts of one structure.

    Args:
        schema: of the structure.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema, self._named = schema, dict(_definitions(schema.text))

    def encoded(self, draft: Draft, source: Provenance) -> bytes:
        """Return the record in single-object encoding.

        Raises:
            UnexpectedMessage: a value does not fit its field.
        """
        values: dict[str, Any] = {
            **draft.values,
            "market": source.market,
            "account": source.account,
            "channel": CHANNEL,
            "origin": draft.origin,
            "writerEpoch": source.epoch,
            "connectionId": source.connection_id,
            "connectionSequence": source.number,
            "receivedAt": source.received_at,
        }
        try:
            return encode(self._schema, self._prepared(self._schema.text, values))
        except UnicodeEncodeError as error:
            raise UnexpectedMessage(f"text that is no Unicode: {error.reason}") from None

    def _prepared(self, type_: Any, value: Any) -> Any:
        """Return a value as fastavro writes it: all fields of records, decimals as their bytes."""
        if isinstance(type_, list):
            return None if value is None else self._prepared(type_[1], value)
        if isinstance(type_, str):
            named = self._named.get(type_)
            return _plain(type_, value) if named is None else self._prepared(named, value)
        if type_["type"] == "record":
            return {f["name"]: self._prepared(f["type"], value.get(f["name"])) for f in type_["fields"]}
        if type_["type"] == "array":
            return [self._prepared(type_["items"], item) for item in value or ()]
        if type_["type"] == "enum":
            return _symbol(type_["symbols"], value)
        return _plain(type_["logicalType"], value)


def _definitions(type_: Any) -> Iterator[tuple[str, Any]]:
    """Yield the named types inside a type."""
    if isinstance(type_, list):
        yield from _definitions(type_[1])
    elif isinstance(type_, dict):
        if "name" in type_:
            yield type_["name"], type_
        for field in type_.get("fields", ()):
            yield from _definitions(field["type"])
        yield from _definitions(type_.get("items"))


def _symbol(symbols: list[str], value: object) -> object:
    if value not in symbols:
        raise UnexpectedMessage(f"{value!r} is none of {', '.join(symbols)}")
    return value


def _plain(kind: str, value: Any) -> Any:
    if kind == "decimal":
        return decimal_bytes(value)[1:]  # without the length, which fastavro writes
    return _long(value) if kind in {"long", "int", "timestamp-micros"} else value


def _long(value: int) -> int:
    if not -_LONGEST <= value < _LONGEST:
        raise UnexpectedMessage(f"{value} does not fit a long")
    return value


def draft_of(schema: Schema, record: Mapping[str, Any]) -> Draft:
    """Return the draft that a published record was made of.

    Args:
        schema: of its structure.
        record: as :class:`bridge.core.wire.Decoder` gives it without types.
    """
    values = {k: _computed(v) for k, v in record.items() if k in {"symbol", "exchangeSymbol", "sequence"}}
    values |= {f.name: _computed(record[f.name]) for f in schema.fields if f.name not in ENVELOPE}
    origin: Origin = record["origin"]
    return Draft(schema.structure, values, origin, record["connectionId"])


def _computed(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value.scaleb(SCALE, _WIDE))
    if isinstance(value, dict):
        return {name: _computed(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_computed(inner) for inner in value]
    return value
