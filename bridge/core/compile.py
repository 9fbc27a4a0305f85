"""Compiles a declaration of ``topics/streams/`` into a typed decoder and an encoder, per market.

The encoder is generated Python that goes straight from the decoded fields to Avro bytes; ``CompiledChannel.source``
is its text. Its result is checked against fastavro by property tests.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from bridge.core.conversions import CONVERSIONS, micros, text
from bridge.core.decimals import DECIMALS, NONZERO_DECIMALS, NULLABLE_DECIMALS, decimal_bytes
from bridge.core.event_time import record_time
from bridge.core.field_map import CALL, DEFAULT_WIRE, WireKeys, checked_call
from bridge.core.schema import ENVELOPE, Schema, SchemaField
from bridge.core.varint import long_bytes, number_text_bytes, text_bytes
from bridge.errors import ContractError, UnexpectedMessage

if TYPE_CHECKING:
    from bridge.core.declaration import Channel, Record
    from bridge.core.instruments import Instrument
    from bridge.model import Header, Market

UNDECODABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError)
"""What reading the exchange's bytes as JSON may raise, times beyond a long included."""

Publish = Callable[[Any, bytes, int], bool]
"""``publish(message, stamp, received_ms)`` queues the records of a message; returns whether it made any.

``stamp`` is ``connectionSequence`` and ``receivedAt``, encoded; ``received_ms`` the latter in milliseconds. Where a
value fits no record it raises ``UnexpectedMessage`` or ``OverflowError``, and nothing is queued.
"""


class Bind(Protocol):
    """What gives the :data:`Publish` of a symbol on a connection."""

    def __call__(
        self,
        *,
        stream: str,
        symbol: str,
        instrument: Instrument,
        constants: Sequence[bytes],
        prefixes: Sequence[bytes],
        lanes: Sequence[Callable[[int, bytes, bytes, tuple[Header, ...]], None]],
        sides: Sequence[Callable[[msgspec.Raw], bytes]],
        key: bytes,
        headers: tuple[Header, ...],
    ) -> Publish:
        """Bind what is the same for all of its messages.

        Args:
            stream: the stream's name, for errors.
            symbol: what each message has to name, where its kind names one.
            instrument: what that is.
            constants: see :attr:`CompiledChannel.constants`.
            prefixes: of each record: header and envelope up to the connection's id.
            lanes: the lane's ``append`` of each.
            sides: what encodes each field of levels; see :attr:`CompiledChannel.sides`.
            key: of the records.
            headers: of the records.
        """


_ENCODERS = {
    "decimal": "decimal_bytes",
    "timestamp": "long_bytes",
    "long": "long_bytes",
    "int": "long_bytes",
    "string": "text_bytes",
    "boolean": "boolean",
}
"""What encodes a Python value for a kind of field."""

_GIVEN = frozenset({"instrument"})
_SPECIAL = ("nonzero", "levels", "option", "zone")


class TimeTable(dict[int, bytes]):
    """``table[time]`` is the Avro encoding of a time of the exchange; many events share one."""

    def __missing__(self, time: int) -> bytes:
        """Encode ``time`` for the first time."""
        if len(self) > 10_000:
            self.clear()
        value = self[time] = long_bytes(micros(time))
        return value


class NullableTimeTable(dict[int | None, bytes]):
    """The same for ``["null", timestamp-micros]``."""

    def __missing__(self, time: int | None) -> bytes:
        """Encode ``time`` for the first time."""
        if len(self) > 10_000:
            self.clear()
        value = self[time] = b"\x00" if time is None else b"\x02" + TIMES[time]
        return value


@dataclass(frozen=True, slots=True)
class CompiledChannel:
    """A channel on one market, ready to run.

    Attributes:
        channel: its name.
        market: the market.
        declaration: what it was compiled from.
        structures: the structure of each record index.
        decode: bytes of a combined frame → object with ``data``.
        bind: see :class:`Bind`.
        event_time: message → event time as the exchange sent it, or None.
        symbol: message → exchange symbol, or None where messages have none.
        product: message → 1 (usdm), 2 (coinm) or None: rows of merged all-market streams.
        link: message → (previous id, last id) for ``contiguous`` and ``linked``; None for other rules.
        candle: message → (open time, close time, closed) for ``candle``.
        newest: message → the value that never goes back, for ``newest``.
        message: the type of a message; attributes are ``f_<wire key>``.
        constants: which constants of the stream ``bind`` wants, in order (see :func:`constants_of`).
        sides: how many fields of levels there are.
        source: the generated text.
    """

    channel: str
    market: Market
    declaration: Channel
    structures: tuple[str, ...]
    decode: Callable[[bytes], Any]
    decode_rows: Callable[[bytes], Any]
    bind: Bind
    event_time: Callable[[Any], int | None]
    symbol: Callable[[Any], str | None]
    product: Callable[[Any], int | None]
    link: Callable[[Any], tuple[int, int]] | None
    candle: Callable[[Any], tuple[int, int, bool]] | None
    newest: Callable[[Any], int | None] | None
    message: Any
    constants: tuple[tuple[str, SchemaField], ...]
    sides: int
    source: str = field(repr=False)


def compile_channel(
    name: str, declaration: Channel, market: Market, schemas: Mapping[str, Schema], file: str | None = None
) -> CompiledChannel:
    """Compile ``declaration`` of ``topics/streams/<file>.yaml`` (``name`` where not given) for ``market``.

    Raises:
        ContractError: the declaration does not fit its schema; names the file, the record and the field.
    """
    return _Compiler(name, declaration, market, schemas, file or name).compile()


class _Compiler:
    """Collects the wire keys while it writes the source, then builds the message type from them."""

    def __init__(
        self, name: str, declaration: Channel, market: Market, schemas: Mapping[str, Schema], file: str
    ) -> None:
        self.name, self.declaration, self.market, self.schemas = name, declaration, market, schemas
        self.keys = WireKeys()
        self.constants: list[tuple[str, SchemaField]] = []
        self.sides = 0
        self.enums: dict[tuple[str, ...], str] = {}
        self.file = self.where = f"topics/streams/{file}.yaml"

    def compile(self) -> CompiledChannel:
        accessors = self.accessors()
        self.bind()  # for its keys: only when all are known is it sure which of them a message may lack
        self.constants.clear()
        self.sides = 0
        lines = [*self.bind(), *accessors]
        source = "\n".join(lines) + "\n"
        space = self.namespace()
        exec(compile(source, self.where, "exec"), space)  # noqa: S102 - generated here, from our own files
        message = self.keys.message_type(f"{self.name}:{self.market}")
        return CompiledChannel(
            channel=self.name,
            market=self.market,
            declaration=self.declaration,
            structures=tuple(r.structure for r in self.declaration.records),
            decode=_decoder(self.name, message),
            decode_rows=_decoder(self.name, list[message]),  # type: ignore[valid-type]
            bind=space["bind"],
            event_time=space["event_time"],
            symbol=space["symbol"],
            product=space["product"],
            link=space.get("link"),
            candle=space.get("candle"),
            newest=space.get("newest"),
            message=message,
            constants=tuple(self.constants),
            sides=self.sides,
            source=source,
        )

    # Records

    def bind(self) -> list[str]:
        """Return the text of ``bind``: one expression a record, whose parts are joined."""
        records = [(one.when, *self.record(index, one)) for index, one in enumerate(self.declaration.records)]
        numbers = range(len(records))
        return [
            "def bind(*, stream, symbol, instrument, constants, prefixes, lanes, sides, key, headers):",
            *(f"    constant{n} = constants[{n}]" for n in range(len(self.constants))),
            *(f"    prefix{n}, append{n} = prefixes[{n}], lanes[{n}]" for n in numbers),
            *(f"    side{n} = sides[{n}]" for n in range(self.sides)),
            "    def publish(m, stamp, received_ms):",
            *(f"        {line}" for line in self.checks()),
            *(f"        value{n} = {value}" for n, (_, _, value) in enumerate(records)),
            *(
                f"        {'' if when is None else f'if value{n} is not None: '}"
                f"append{n}({time}, key, value{n}, headers)"
                for n, (when, time, _) in enumerate(records)
            ),
            f"        return {self.made([when for when, _, _ in records])}",
            "    return publish",
        ]

    def checks(self) -> list[str]:
        lines = []
        if self.declaration.symbol is not None:
            found = self.use(self.declaration.symbol, "text")
            wrong = f"raise UnexpectedMessage(f'symbol {{{found}!r}} on the stream {{stream}}')"
            lines.append(f"if {found} != symbol: {wrong}")
        for key, value in self.declaration.drop.items():
            lines.append(f"if {self.use(key, 'text?')} == {value!r}: return False")
        return lines

    @staticmethod
    def made(conditions: list[str | None]) -> str:
        """Return the expression that says whether any record was made."""
        if None in conditions:
            return "True"
        return " or ".join(f"value{n} is not None" for n in range(len(conditions))) or "False"

    def record(self, index: int, record: Record) -> tuple[str, str]:
        """Return the expressions of a record's Kafka time and of its value, None where it is not due."""
        schema = self.schemas.get(record.structure)
        if schema is None or not schema.unified:
            raise ContractError(f"{self.where}: no unified structure {record.structure!r} in avro/")
        fields = {**record.fields, **getattr(record, self.market)}
        body = [f for f in schema.fields if f.name not in ENVELOPE]
        stray = set(fields) - {f.name for f in body} - {"sequence"}
        if stray:
            raise ContractError(
                f"{self.where}: avro/{record.structure}.avsc has no field {', '.join(sorted(stray))}"
            )
        sequence = next(f for f in schema.fields if f.name == "sequence")
        parts = [f"prefix{index}", "stamp"]
        for target in (sequence, *body):
            self.where = f"{self.file}: {record.structure}.{target.name}"
            parts += self.value(fields.get(target.name), target, record)
        self.where = self.file
        value = f"b''.join(({', '.join(_merge_constants(parts))}))"
        if record.when is not None:
            value += f" if {self.use(record.when, 'text?')} else None"
        return self.kafka_time(record.time or fields.get("timestamp")), value

    def kafka_time(self, expression: str | None) -> str:
        if expression is None:
            return "received_ms"
        keys = [self.use(key.strip(), "int?") for key in expression.split("|")]
        return f"record_time({' or '.join(keys)}, received_ms)"

    def value(self, expression: str | None, target: SchemaField, record: Record) -> list[str]:  # noqa: PLR0911 - a table
        """Return the Python expressions whose values, joined, are the Avro encoding of one field."""
        if expression is None:
            return [repr(self.empty(target, record))]
        if expression.startswith("="):
            return [repr(self.constant(expression[1:], target))]
        if expression in {"option()", "zone()"}:
            self.constants.append((expression[:-2], target))
            return [f"constant{len(self.constants) - 1}"]
        call = CALL.fullmatch(expression)
        if call is None:
            return self.plain(expression, target)
        name, keys = call[1], [k.strip() for k in call[2].split(",") if k.strip()]
        if name == "levels" and target.kind == "array" and len(keys) == 1:
            self.sides += 1
            return [f"side{self.sides - 1}({self.use(keys[0], 'levels')})"]
        if name == "nonzero" and target.kind == "decimal" and target.nullable and len(keys) == 1:
            price = self.use(keys[0], "text?")
            return [f"nonzero_decimal({price})"]
        return self.call(name, keys, target)

    def call(self, name: str, keys: list[str], target: SchemaField) -> list[str]:
        """Return how the result of a conversion is encoded."""
        found = checked_call(name, keys, target, CONVERSIONS, _GIVEN, _SPECIAL, self.where)
        values = ["instrument" if wire is None else self.use(key, wire) for key, wire in found]
        function = CONVERSIONS[name]
        if [wire for _, wire in found] == ["flag"]:  # it has two results only, which are made here
            yes, no = (self.fixed(function(flag), target) for flag in (True, False))
            return [f"({yes!r} if {values[0]} else {no!r})"]
        if function is text and target.kind == "string":
            return self.encoded(values[0], target, "number_text_bytes")
        maybe = str(function.__annotations__["return"]).endswith("None")
        return self.encoded(f"{name}({', '.join(values)})", target, maybe=maybe)

    def plain(self, expression: str, target: SchemaField) -> list[str]:
        if "|" in expression:  # the first key, or the second where the message lacks it
            first, second = (k.strip() for k in expression.split("|"))
            value = f"({self.use(first, 'int?')} or {self.use(second, 'int')})"
            return [f"time({value})"]
        wire = DEFAULT_WIRE.get(target.kind)
        if wire is None:
            raise ContractError(f"{self.where}: {target.name} is a {target.kind}; name a conversion for it")
        value = self.use(expression, wire + "?" if target.nullable else wire)
        maybe = self.keys.wire(expression, wire).endswith("?")
        if target.kind == "decimal":
            return [f"nullable_decimal({value})" if target.nullable else f"decimal({value})"]
        if target.kind == "timestamp":
            return [f"nullable_time({value})" if target.nullable else f"time({value})"]
        return self.encoded(value, target, maybe=maybe)

    def encoded(
        self, value: str, target: SchemaField, encoder: str | None = None, *, maybe: bool = False
    ) -> list[str]:
        """Encode a Python value (unscaled integer, microseconds, text …), which may be None where ``maybe``."""
        if target.kind == "enum":
            self.enums[target.symbols] = f"ENUM_{'_'.join(target.symbols)}"
            table = self.enums[target.symbols]
            return [f"{table}_OR_NULL[{value}]" if target.nullable else f"{table}[{value}]"]
        encoder = encoder or _ENCODERS.get(target.kind)
        if encoder is None:
            raise ContractError(f"{self.where}: {target.name}: a {target.kind} can't be mapped")
        if not target.nullable:
            return [_applied(encoder, value)]
        if not maybe:
            return [repr(b"\x02"), _applied(encoder, value)]
        return _choice(f"(v := {value}) is not None", _applied(encoder, "v"))

    def fixed(self, value: object, target: SchemaField) -> bytes:
        """Return the encoding of a value that is known now."""
        if value is None:
            return b"\x00"
        text_of = str(value).lower() if isinstance(value, bool) else str(value)
        return constant_bytes(text_of, target, self.where)

    def empty(self, target: SchemaField, record: Record) -> bytes:
        if target.nullable:
            return b"\x02\x00\x00\x00" if target.name == "fee" else b"\x00"
        if target.kind == "array":
            return b"\x00"
        raise ContractError(
            f"{self.where}: avro/{record.structure}.avsc wants {target.name}; the declaration has no source for it"
        )

    def constant(self, text: str, target: SchemaField) -> bytes:
        return constant_bytes(text, target, self.where)

    # Message type

    def use(self, key: str, wire: str) -> str:
        """Note that ``key`` is read as ``wire`` (``text``, ``int?`` …); return the expression that reads it."""
        return ".".join(("m", *self.keys.use(key, wire, self.where)))

    # What the pipeline asks of a message

    def accessors(self) -> list[str]:
        declaration, rule = self.declaration, self.declaration.sequence
        event_time = self.use(declaration.event_time, "int?") if declaration.event_time else "None"
        symbol = self.use(declaration.symbol, "text") if declaration.symbol else "None"
        futures = self.market != "spot"
        product = self.use("st", "int?") if futures else "None"
        lines = [
            f"def event_time(m): return {event_time}",
            f"def symbol(m): return {symbol}",
            f"def product(m): return {product}",
        ]
        if rule is None:
            return lines
        if rule.rule == "contiguous":
            id_ = self.use(_wanted(rule.id, "id", self.where), "int")
            lines.append(f"def link(m): return {id_} - 1, {id_}")
        elif rule.rule == "linked":
            first = self.use(_wanted(rule.first, "first", self.where), "int")
            last = self.use(_wanted(rule.last, "last", self.where), "int")
            previous = f"{first} - 1"
            if rule.previous is not None and futures:
                previous = self.use(rule.previous, "int")
            lines.append(f"def link(m): return {previous}, {last}")
        elif rule.rule == "candle":
            lines.append(
                f"def candle(m): return {self.use('k.t', 'int')}, {self.use('k.T', 'int')}, {self.use('k.x', 'flag')}"
            )
        else:
            lines.append(f"def newest(m): return {self.use(_wanted(rule.id, 'id', self.where), 'int?')}")
        return lines

    def namespace(self) -> dict[str, Any]:
        space: dict[str, Any] = {
            "decimal": DECIMALS.__getitem__,
            "nullable_decimal": NULLABLE_DECIMALS.__getitem__,
            "nonzero_decimal": NONZERO_DECIMALS.__getitem__,
            "time": TIMES.__getitem__,
            "nullable_time": NULLABLE_TIMES.__getitem__,
            "decimal_bytes": decimal_bytes,
            "long_bytes": long_bytes,
            "text_bytes": text_bytes,
            "number_text_bytes": number_text_bytes,
            "record_time": record_time,
            "UnexpectedMessage": UnexpectedMessage,
            **CONVERSIONS,
        }
        for symbols, name in self.enums.items():
            table = {symbol: long_bytes(n) for n, symbol in enumerate(symbols)}
            space[name] = _EnumTable(table)
            space[f"{name}_OR_NULL"] = _EnumTable(
                {s: b"\x02" + b for s, b in table.items()} | {None: b"\x00"}
            )
        return space


TIMES = TimeTable()
NULLABLE_TIMES = NullableTimeTable()


class _EnumTable(dict[Any, bytes]):
    """Symbols and their encoding; an unknown one says so."""

    def __missing__(self, symbol: object) -> bytes:
        raise UnexpectedMessage(f"{symbol!r} is none of {', '.join(str(s) for s in self if s is not None)}")


def constant_bytes(text: str, target: SchemaField, where: str) -> bytes:
    """Return the encoding of a constant; "" is null where the field may be null."""
    head = b"\x02" if target.nullable else b""
    if target.nullable and not text:
        return b"\x00"
    if target.kind == "enum":
        if text not in target.symbols:
            raise ContractError(f"{where}: {target.name} has no symbol {text!r}")
        return head + long_bytes(target.symbols.index(text))
    if target.kind == "string":
        return head + text_bytes(text)
    if target.kind in {"int", "long"}:
        return head + long_bytes(int(text))
    if target.kind == "boolean":
        return head + (b"\x01" if text == "true" else b"\x00")
    raise ContractError(f"{where}: {target.name} is a {target.kind}; a constant can't be given")


def _choice(condition: str, encoded: str) -> list[str]:
    """Return the expressions of a ``["null", …]`` field: two parts, as joining them is cheaper than adding them up."""
    return [f"(b'\\x02' if (there := {condition}) else b'\\x00')", f"({encoded} if there else b'')"]


def _applied(encoder: str, value: str) -> str:
    """Return the expression that encodes ``value``."""
    if encoder == "boolean":
        return f"(b'\\x01' if {value} else b'\\x00')"
    return f"{encoder}({value})"


def _merge_constants(parts: list[str]) -> list[str]:
    """Join neighbouring byte literals, so that a run of nulls is one piece."""
    merged: list[str] = []
    for part in parts:
        if part.startswith(("b'", 'b"')) and merged and merged[-1].startswith(("b'", 'b"')):
            merged[-1] = repr(_literal(merged[-1]) + _literal(part))
        else:
            merged.append(part)
    return merged


def _literal(text: str) -> bytes:
    value = ast.literal_eval(text)
    assert isinstance(value, bytes)
    return value


def _wanted(key: str | None, name: str, where: str) -> str:
    if key is None:
        raise ContractError(f"{where}: the sequence rule wants {name}")
    return key


def _decoder(name: str, type_: Any) -> Callable[[bytes], Any]:
    frame = msgspec.defstruct(re.sub(r"\W", "_", name) + "_frame", [("data", type_)], frozen=True, gc=False)
    return msgspec.json.Decoder(frame).decode
