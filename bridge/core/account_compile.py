"""Compiles a declaration of ``topics/account/`` into a typed decoder and functions that make drafts, per market.

Other than streams, these make values and not Avro bytes: what an account's events and REST's answers tell is merged
(:mod:`bridge.core.account_state`) before it is encoded, and there is little of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from bridge.core.account_conversions import ACCOUNT_CONVERSIONS
from bridge.core.account_records import FUTURES, PRIVATE, Draft
from bridge.core.conversions import micros
from bridge.core.decimals import UNSCALED
from bridge.core.field_map import CALL, DEFAULT_WIRE, WireKeys, attributes, checked_call
from bridge.core.instruments import currency_code
from bridge.core.schema import ENVELOPE, Schema, SchemaField
from bridge.errors import ContractError, UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bridge.core.declaration import AccountRecord, AccountSource
    from bridge.core.instruments import Instrument, Instruments
    from bridge.model import Market, Origin

_GIVEN = frozenset({"instrument", "instruments"})
_SPECIAL = ("nonzero",)
_OURS = "account"
"""The field that the deriver knows."""


class Scope(NamedTuple):
    """What the fields of one record are made from.

    Attributes:
        message: the decoded event, or the answer (a row of it where it is an array).
        row: the row of the array that makes a record a row; the message itself elsewhere.
        instrument: of the record's symbol; a stand-in where it has none.
        instruments: the table.
        asked_at: when REST was asked, microseconds of the exchange's time; 0 for events.
    """

    message: Any
    row: Any
    instrument: Instrument
    instruments: Instruments
    asked_at: int


Source: TypeAlias = "Callable[[Scope], Any]"


class Unmade(NamedTuple):
    """A record that could not be made.

    Attributes:
        structure: its structure.
        error: why not.
    """

    structure: str
    error: str


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the records of one entry of a declaration."""

    structure: str
    each: tuple[str, ...] | None
    symbol: Source | None
    currency: Source | None
    conditions: tuple[Source, ...]
    fields: tuple[tuple[str, Source], ...]

    def scopes(self, message: Any, instruments: Instruments, asked_at: int) -> Iterator[Scope]:
        """Yield a scope for each row."""
        rows = (message,) if self.each is None else _inside(message, self.each) or ()
        nothing = instruments.get("")
        return (Scope(message, row, nothing, instruments, asked_at) for row in rows)

    def values(self, scope: Scope) -> dict[str, Any] | None:
        """Return the fields of a record; None where it does not exist."""
        if not all(condition(scope) for condition in self.conditions):
            return None
        if self.symbol is not None:
            scope = scope._replace(instrument=scope.instruments.get(self.symbol(scope)))
        values = {"symbol": scope.instrument.symbol, "exchangeSymbol": scope.instrument.id}
        if self.currency is not None:
            asset = self.currency(scope)
            if asset is None:
                raise UnexpectedMessage("no asset is named")
            values = {
                "symbol": currency_code(asset),
                "exchangeSymbol": asset,
                "currency": currency_code(asset),
            }
        return values | {name: source(scope) for name, source in self.fields}


@dataclass(frozen=True, slots=True)
class CompiledSource:
    """A kind of event, or answers of one shape, on one market.

    Attributes:
        name: of its file.
        market: the market.
        declaration: what it was compiled from.
        decode: bytes → the decoded message, or rows.
        message: the type of a message; attributes are ``f_<wire key>``.
        makers: what makes its records.
    """

    name: str
    market: Market
    declaration: AccountSource
    decode: Callable[[bytes | msgspec.Raw], Any]
    message: Any
    makers: tuple[_Maker, ...]

    def drafts(
        self, decoded: Any, instruments: Instruments, origin: Origin, connection: int, asked_at: int = 0
    ) -> Iterator[Draft | Unmade]:
        """Yield the records of what was decoded, in order; one that fails leaves the others as they are."""
        messages = decoded if isinstance(decoded, list) else (decoded,)
        for message in messages:
            for maker in self.makers:
                for scope in maker.scopes(message, instruments, asked_at):
                    try:
                        values = maker.values(scope)
                    except (UnexpectedMessage, OverflowError) as error:
                        yield Unmade(maker.structure, str(error))
                    else:
                        if values is not None:
                            yield Draft(maker.structure, values, origin, connection, asked_at)


class AccountSources(NamedTuple):
    """What tells of accounts.

    Attributes:
        events: by market and event name (``e``).
        answers: by market and path of the endpoint.
    """

    events: Mapping[tuple[Market, str], CompiledSource]
    answers: Mapping[tuple[Market, str], CompiledSource]

    @staticmethod
    def structures(market: Market) -> tuple[str, ...]:
        """Return the unified structures that an account of a market has."""
        return PRIVATE if market == "spot" else PRIVATE + FUTURES


def compile_source(
    name: str, declaration: AccountSource, market: Market, schemas: Mapping[str, Schema]
) -> CompiledSource:
    """Compile ``topics/account/<name>.yaml`` for ``market``.

    Raises:
        ContractError: the declaration does not fit its schema; names the file, the record and the field.
    """
    where = f"topics/account/{name}.yaml"
    if (declaration.event is None) == (not declaration.endpoints):
        raise ContractError(f"{where}: wants either event or endpoints")
    keys = WireKeys()
    makers = tuple(_maker(record, market, schemas, keys, where) for record in declaration.records)
    message = keys.message_type(f"{name}:{market}")
    shape = message if declaration.event is not None else message | list[message]  # type: ignore[valid-type]
    decode = msgspec.json.Decoder(shape).decode
    return CompiledSource(name, market, declaration, decode, message, makers)


def _maker(
    record: AccountRecord, market: Market, schemas: Mapping[str, Schema], keys: WireKeys, where: str
) -> _Maker:
    schema = schemas.get(record.structure)
    if schema is None or not schema.unified or _OURS not in {f.name for f in schema.fields}:
        raise ContractError(f"{where}: no unified structure {record.structure!r} of accounts in avro/")
    sources = {**record.fields, **getattr(record, market)}
    given = {_OURS} | ({"currency"} if record.currency is not None else set())
    targets = [f for f in schema.fields if f.name not in ENVELOPE or f.name == "sequence"]
    stray = set(sources) - {f.name for f in targets}
    if stray:
        raise ContractError(f"{where}: avro/{record.structure}.avsc has no field {', '.join(sorted(stray))}")
    rows = keys if record.each is None else keys.rows(record.each)
    reader = _Reader(keys, rows, where, {record.when, record.unless_zero})
    fields = []
    for target in targets:
        reader.where = f"{where}: {record.structure}.{target.name}"
        expression = sources.get(target.name)
        if expression is not None:
            fields.append((target.name, reader.source(expression, target)))
        elif not target.nullable and target.kind != "array" and target.name not in given:
            raise ContractError(f"{reader.where}: may not be null; the declaration has no source for it")
    reader.where = f"{where}: {record.structure}"
    return _Maker(
        structure=record.structure,
        each=None if record.each is None else attributes(record.each),
        symbol=None if record.symbol is None else reader.source(record.symbol, _TEXT),
        currency=None if record.currency is None else reader.source(record.currency, _MAYBE_TEXT),
        conditions=tuple(reader.conditions(record)),
        fields=tuple(fields),
    )


_TEXT = SchemaField("text", "string", False, (), "")
_MAYBE_TEXT = SchemaField("text", "string", True, (), "")


class _Reader:
    """Makes sources of a record's expressions, and notes the keys that they read.

    Args:
        keys: of the message.
        rows: of the rows, or of the message where it has none.
        where: for messages.
        guarded: keys without which the record does not exist, so that messages may lack them.
    """

    def __init__(self, keys: WireKeys, rows: WireKeys, where: str, guarded: set[str | None]) -> None:
        self.keys, self.rows, self.where, self.guarded = keys, rows, where, guarded

    def conditions(self, record: AccountRecord) -> Iterator[Source]:
        """Yield what must be true for a record to exist."""
        if record.when is not None:
            given = self.read(record.when, self.rows.wire(record.when, "text?"))
            yield lambda scope: given(scope) not in {None, ""}
        for key, wanted in record.where.items():
            yield _is_one_of(self.read(key, "text"), frozenset(wanted))
        if record.unless_zero is not None:
            amount = self.read(record.unless_zero, "text?")
            yield lambda scope: bool((text := amount(scope)) and UNSCALED[text])

    def source(self, expression: str, target: SchemaField) -> Source:
        """Return what makes a field's value."""
        if expression.startswith("="):
            return _constant(expression[1:], target, self.where)
        if expression.endswith("| asked()"):
            return self.or_asked(expression.removesuffix("| asked()").strip(), target)
        call = CALL.fullmatch(expression)
        if call is None:
            return self.plain(expression, target)
        name, wanted = call[1], [k.strip() for k in call[2].split(",") if k.strip()]
        if name == "nonzero" and target.kind == "decimal" and target.nullable and len(wanted) == 1:
            amount = self.read(wanted[0], "text?")
            return lambda scope: (UNSCALED[text] or None) if (text := amount(scope)) else None
        arguments = checked_call(name, wanted, target, ACCOUNT_CONVERSIONS, _GIVEN, _SPECIAL, self.where)
        sources = [_given(n) if wire is None else self.read(n, wire) for n, wire in arguments]
        function = ACCOUNT_CONVERSIONS[name]
        return lambda scope: function(*[source(scope) for source in sources])

    def or_asked(self, key: str, target: SchemaField) -> Source:
        """Return a time that REST may leave out, or give as 0: then the state is as of when it was asked."""
        if target.kind != "timestamp":
            raise ContractError(f"{self.where}: asked() is a time; the field is a {target.kind}")
        time = self.read(key, "int?")
        return lambda scope: micros(found) if (found := time(scope)) else scope.asked_at

    def plain(self, key: str, target: SchemaField) -> Source:
        """Return what reads a key as its field's type says."""
        wire = DEFAULT_WIRE.get(target.kind)
        if wire is None:
            raise ContractError(f"{self.where}: {target.name} is a {target.kind}; name a conversion for it")
        found = self.read(key, wire + "?" if target.nullable else wire)
        if target.kind == "decimal":
            return lambda scope: UNSCALED[text] if (text := found(scope)) else _absent(text, target)
        if target.kind == "timestamp":
            return lambda scope: None if (time := found(scope)) is None else micros(time)
        if wire == "text" and target.nullable:
            return lambda scope: found(scope) or None
        return found

    def read(self, key: str, wire: str) -> Source:
        """Return what reads a key, of the row or with ``^`` of the message."""
        outer = key.startswith("^")
        bare = key.removeprefix("^")
        if key in self.guarded and not wire.endswith("?"):
            wire += "?"
        path = (self.keys if outer else self.rows).use(bare, wire, self.where)
        if outer:
            return lambda scope: _inside(scope.message, path)
        return lambda scope: _inside(scope.row, path)


def _inside(value: Any, path: tuple[str, ...]) -> Any:
    """Return what lies at a path of attributes; None where a part on the way is missing."""
    for attribute in path:
        value = None if value is None else getattr(value, attribute)
    return value


def _given(name: str) -> Source:
    return lambda scope: getattr(scope, name)


def _is_one_of(found: Source, wanted: frozenset[str]) -> Source:
    return lambda scope: found(scope) in wanted


def _absent(text: str | None, target: SchemaField) -> None:
    if not target.nullable:
        raise UnexpectedMessage(f"{target.name}: {text!r} is not a decimal number")


def _constant(text: str, target: SchemaField, where: str) -> Source:
    if target.kind == "boolean":
        return lambda _: text == "true"
    if target.kind != "string":
        raise ContractError(f"{where}: {target.name} is a {target.kind}; a constant can't be given")
    return lambda _: text
