"""The decoding side of the wire format: from the bytes of a Kafka value to a record.

A value tells its schema by its first bytes (contract, section 4): ``C3 01`` and an 8-byte fingerprint (Avro
single-object encoding), or ``00`` and a 4-byte id of a schema registry (Confluent). What follows is Avro's
binary body, which a decoder generated from the schema reads straight into the record's class. Whatever the
bytes are, nothing but :class:`~bridge.errors.DecodeError` is raised.
"""

from __future__ import annotations

import struct
from decimal import Context, Decimal
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeGuard

from bridge.core.decimals import LIMIT, ONE, PRECISION, SCALE
from bridge.core.schema import MARKER
from bridge.errors import ContractError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bridge.core.schema import Schema

    Body = Callable[[bytes, int], Any]
    """``body(value, offset)``: decodes the Avro body that begins at ``offset`` and ends with the value."""

    Types = Mapping[str, Callable[..., Any]]
    """By name of an Avro record: what to call with its fields in order (``Trade``, ``Level``)."""

CONFLUENT_MAGIC = 0
_REGISTRY_HEADER = struct.Struct(">xI")
_FINGERPRINT_END = len(MARKER) + 8
_BROKEN = (IndexError, KeyError, ValueError, OverflowError, struct.error)


class Decoder:
    """Tells which schema a value was written with, and decodes it.

    Args:
        schemas: the schemas known by fingerprint.
        types: see :data:`Types`; None gives dicts.
        ids: schemas by their id in a schema registry; what it lacks can't be read.
    """

    def __init__(
        self, schemas: Iterable[Schema], types: Types | None = None, ids: Mapping[int, Schema] | None = None
    ) -> None:
        self._schemas = {schema.fingerprint: schema for schema in schemas}
        self._types, self._ids = types, ids
        self._bodies: dict[str, Body] = {}
        self._by_head: dict[bytes, Body] = {}

    def identify(self, value: bytes) -> tuple[Schema, int]:
        """Return the schema ``value`` was written with and where its body begins.

        Raises:
            DecodeError: neither framing, or a schema that is not known.
        """
        if value[:2] == MARKER:
            fingerprint = value[len(MARKER) : _FINGERPRINT_END]
            schema = self._schemas.get(fingerprint)
            if schema is None:
                raise DecodeError(
                    f"no schema here has the fingerprint {fingerprint.hex() or '(missing)'}: the record was "
                    "written by another version of binance-kafka-bridge; install that one"
                )
            return schema, _FINGERPRINT_END
        if value[:1] == b"\x00" and len(value) >= _REGISTRY_HEADER.size:
            (id_,) = _REGISTRY_HEADER.unpack_from(value)
            if self._ids is None:
                raise DecodeError(f"the value names schema id {id_} of a schema registry; none is configured")
            schema = self._ids.get(id_)
            if schema is None:
                raise DecodeError(f"the schema registry's id {id_} is none of this version's schemas")
            return schema, _REGISTRY_HEADER.size
        raise DecodeError(
            f"a value of {len(value)} bytes that begins with {value[:2].hex() or 'nothing'} is neither Avro "
            "single-object encoding (c301) nor Confluent's wire format (00)"
        )

    def decode(self, value: bytes) -> Any:
        """Return the record in ``value``.

        Raises:
            DecodeError: the value is not one whole record of a known schema.
        """
        body = self._by_head.get(value[:_FINGERPRINT_END])
        if body is not None:
            return body(value, _FINGERPRINT_END)
        schema, offset = self.identify(value)
        body = self._bodies.get(schema.structure)
        if body is None:
            body = self._bodies[schema.structure] = compile_body(schema, self._types)
        if offset == _FINGERPRINT_END:
            self._by_head[value[:offset]] = body
        return body(value, offset)


def compile_body(schema: Schema, types: Types | None = None) -> Body:
    """Return a function ``(value, offset) -> record`` for the body of ``schema``.

    The function raises DecodeError for anything but one whole record up to the end of the value.

    Args:
        schema: the schema.
        types: see :data:`Types`; None gives dicts, with arrays as tuples all the same.
    """
    source, space = _Source(schema, types).write()
    exec(compile(source, f"<decoder of {schema.structure}>", "exec"), space)  # noqa: S102 - generated here from avro/
    body: Body = space["read"]
    return body


def _reason(error: Exception) -> str:
    if isinstance(error, IndexError):
        return "it ends early"
    if isinstance(error, KeyError):
        return f"{error} is no choice of the field"
    return str(error)


# Primitive readers, called by the generated code


def _more_source() -> str:
    """Return the text of ``more``: a loop over ten bytes, unrolled, which halves its time.

    Each step adds the next seven bits and takes away the "more follows" bit of the byte before.
    """
    lines = ["def more(value, at, number):"]
    for n in range(1, 10):
        lines += [
            f"    byte = value[at + {n - 1}]",
            f"    number += (byte << {7 * n}) - {0x80 << 7 * (n - 1)}",
            "    if byte < 128:",
            f"        return number, at + {n}" if n < 9 else "        return fits(number), at + 9",
        ]
    return "\n".join([*lines, "    return fits(number + (1 << 64)), at"])


def _fits(number: int) -> int:
    if number >> 64:
        raise DecodeError("a number does not fit 64 bits")
    return number


def _compiled_more() -> Callable[[bytes, int, int], tuple[int, int]]:
    space: dict[str, Any] = {"fits": _fits}
    exec(_more_source(), space)  # noqa: S102 - the text above
    more: Callable[[bytes, int, int], tuple[int, int]] = space["more"]
    return more


_more = _compiled_more()
"""``more(value, at, first)``: reads the rest of a varint; returns the unsigned number and where it ends."""


def _varint(value: bytes, at: int) -> tuple[int, int]:
    byte = value[at]
    return (byte, at + 1) if byte < 0x80 else _more(value, at + 1, byte)


# A time of this age of the world takes 8 bytes, of which the last four change every two minutes. These tables hold
# what its parts are worth when their sum is the time: zigzag, which doubles what is not negative, is undone in them.
_PARTS = struct.Struct("<HHI").unpack_from
_PAIRS = {low | 0x80 | (high | 0x80) << 8: low | high << 7 for low in range(128) for high in range(128)}
_FIRST = {word: number >> 1 for word, number in _PAIRS.items() if number % 2 == 0}
_SECOND = {word: number << 13 for word, number in _PAIRS.items()}


class _LastTable(dict[int, int]):
    """The last four bytes of an 8-byte varint → what they are worth; KeyError where it ends elsewhere."""

    def __missing__(self, word: int) -> int:
        if word & 0x80808080 != 0x00808080:
            raise KeyError(word)
        if len(self) > 10_000:
            self.clear()
        groups = (word & 0x7F, word >> 8 & 0x7F, word >> 16 & 0x7F, word >> 24 & 0x7F)
        number = self[word] = sum(group << 27 + 7 * n for n, group in enumerate(groups))
        return number


def _time(value: bytes, at: int) -> tuple[int, int]:
    """Read a time of another age; return it and where it ends."""
    number, end = _varint(value, at)
    return number >> 1 ^ -(number & 1), end


_EXACT = Context(prec=PRECISION)
_ONE = Decimal(ONE)
_integer = int.from_bytes


_REMEMBERED = 50_000
"""More would be found again more often, but farther from the processor: no faster."""


class DecimalTable(dict[bytes, Decimal]):
    """``table[length byte + two's complement]`` is exact. Numbers repeat: each is converted once."""

    def __missing__(self, data: bytes) -> Decimal:
        """Convert ``data`` for the first time."""
        size = len(data) - 1
        if data[0] != 2 * size:
            raise DecodeError("a decimal has a wrong length or ends early")
        number = _integer(data[1:], "big")
        if size and data[1] > 127:  # two's complement; ``signed=True`` takes twice as long
            number -= 1 << 8 * size
        if not -LIMIT < number < LIMIT:
            raise DecodeError("a decimal has more than 38 digits")
        if len(self) >= _REMEMBERED:
            self.clear()
        # An exact quotient has the exponent nearest to 0 that holds it: no zeros behind the point.
        found = self[data] = _EXACT.divide(number, _ONE)
        return found


DECIMALS = DecimalTable()
_decimal = DECIMALS.__getitem__  # subscripting a subclass of dict is slow


# Numbers of the same length that lie side by side, as those of levels do, are one long integer. The exchange writes
# them with eight decimals at most: one division gives them all as integers that are short, and quick to look up.
_FACTOR: int = 10 ** (SCALE - 8)
_EIGHT_DECIMALS = Decimal(10**8)
_LEAST_WIDTH = 8
_MOST_AT_ONCE = 256


class _Quotients(dict[int, Decimal]):
    """``table[number]`` is a hundred-millionth of it, exact."""

    def __missing__(self, number: int) -> Decimal:
        """Divide ``number`` for the first time."""
        if len(self) >= _REMEMBERED:
            self.clear()
        found = self[number] = _EXACT.divide(number, _EIGHT_DECIMALS)
        return found


_quotient = _Quotients().__getitem__


class _Row(NamedTuple):
    """Numbers side by side, each of ``width`` bytes, the one that says its length included.

    Attributes:
        lengths: the row with all numbers 0.
        beyond: the bits that a number has beyond its lowest 64.
        unpack: gives those 64 of each.
        limit: what every number is below: none is negative, none has a part in its neighbour.
    """

    lengths: int
    beyond: int
    unpack: Callable[[bytes], tuple[int, ...]]
    limit: int

    @classmethod
    def of(cls, width: int, count: int) -> _Row:
        """Return how ``count`` numbers are read."""
        size, more = width - 1, width - 8
        return cls(
            lengths=int.from_bytes((bytes((2 * size,)) + bytes(size)) * count),
            beyond=int.from_bytes((b"\xff" * more + bytes(8)) * count),
            unpack=struct.Struct(">" + f"{more}xQ" * count).unpack,
            limit=1 << 8 * size - 1,
        )


_row = lru_cache(maxsize=1_000)(_Row.of)


def _alike(value: bytes, at: int, end: int, width: int) -> Iterable[Decimal]:
    """Return the numbers between two places, all of ``width`` bytes with their (right) lengths."""
    count = (end - at) // width
    if width >= _LEAST_WIDTH and count <= _MOST_AT_ONCE:
        row = _row(width, count)
        quotients, rest = divmod(int.from_bytes(value[at:end]) - row.lengths, _FACTOR)
        if not rest and not quotients & row.beyond:
            numbers = row.unpack(quotients.to_bytes(end - at))
            # Each times the factor fits its place: then they make up the row, and no other numbers do.
            if max(numbers) * _FACTOR < row.limit:
                return map(_quotient, numbers)
    return map(_decimal, [value[place : place + width] for place in range(at, end, width)])


class _Source:
    """Writes the decoder of one schema: straight-line code, one local variable per field.

    The fields in front of ``connectionSequence`` stay the same from one record of a stream to the next; their
    bytes are remembered as one prefix, so that one comparison replaces reading them.
    """

    KEY_BYTES = 24
    """The prefix is looked up by its first bytes: fewer than any prefix has, enough to tell streams apart."""

    def __init__(self, schema: Schema, types: Types | None) -> None:
        self.schema, self.types = schema, types
        self.named: dict[str, dict[str, Any]] = {}
        self.lines: list[str] = []
        self.count = 0
        self.space: dict[str, Any] = {
            "more": _more,
            "parts": _PARTS,
            "FIRST": _FIRST,
            "SECOND": _SECOND,
            "last": _LastTable().__getitem__,
            "NO_TIME": (KeyError, struct.error),
            "time": _time,
            "decimal": _decimal,
            "alike": _alike,
            "tuple_of": tuple.__new__,
            "BOOLEAN": {0: False, 1: True},
            "DecodeError": DecodeError,
            "remember": _remember,
            "no_choice": _no_choice,
            "BROKEN": _BROKEN,
            "reason": _reason,
            "MEMO": {},
        }

    def write(self) -> tuple[str, dict[str, Any]]:
        fields = self.schema.text["fields"]
        names = [self.variable() for _ in fields]
        stable = self.stable(fields)
        if stable:
            held = f"({', '.join(names[:stable])},)"
            self.add(1, f"k = b[i:i + {self.KEY_BYTES}]", "m = MEMO.get(k)")
            self.add(1, "if m is not None and b.startswith(m[0], i):", "    i += m[1]", f"    {held} = m[2]")
            self.add(1, "else:", "    j = i")
            for field, name in zip(fields[:stable], names, strict=False):
                self.value(2, field["type"], name)
            self.add(2, f"remember(MEMO, k, b[j:i], i - j, {held})")
        for field, name in zip(fields[stable:], names[stable:], strict=True):
            self.value(1, field["type"], name)
        self.add(1, "if i != len(b):")
        self.add(2, "raise DecodeError('it ends early' if i > len(b) else f'{len(b) - i} bytes follow it')")
        self.add(1, f"return {self.built(self.schema.text, names)}")
        return "\n".join(
            ["def read(b, i):", "    try:", *(f"    {line}" for line in self.lines), *self.errors()]
        ), self.space

    def errors(self) -> list[str]:
        """Return the code that tells what is wrong with the bytes."""
        message = f"not a {self.schema.structure} record: "
        return [
            "    except DecodeError as error:",
            f"        raise DecodeError({message!r} + str(error)) from None",
            "    except BROKEN as error:",
            f"        raise DecodeError({message!r} + reason(error)) from error",
        ]

    @staticmethod
    def stable(fields: list[dict[str, Any]]) -> int:
        names = [f["name"] for f in fields]
        return names.index("connectionSequence") if names[:1] in (["symbol"], ["environment"]) else 0

    def variable(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def add(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]

    def built(self, type_: dict[str, Any], names: list[str]) -> str:
        if self.types is None:
            pairs = (f"{f['name']!r}: {name}" for f, name in zip(type_["fields"], names, strict=True))
            return f"{{{', '.join(pairs)}}}"
        constructor = self.types.get(type_["name"])
        if constructor is None:
            raise ContractError(
                f"no class is given for the record {type_['name']} of avro/{self.schema.structure}.avsc"
            )
        self.space[type_["name"]] = constructor
        if _is_tuple(constructor):
            return f"tuple_of({type_['name']}, ({', '.join(names)},))"  # what a NamedTuple's own, slower __new__ does
        return f"{type_['name']}({', '.join(names)})"

    def value(self, depth: int, type_: Any, name: str) -> None:
        """Write the code that reads one value of ``type_`` into the variable ``name``."""
        if isinstance(type_, list):
            return self.nullable(depth, type_, name)
        if isinstance(type_, str):
            type_ = self.named.get(type_, {"type": type_})
        if type_["type"] in {"record", "enum"}:
            self.named[type_["name"]] = type_
        kind = type_.get("logicalType", type_["type"])
        writer = {
            "decimal": self.decimal, "timestamp-micros": self.time, "long": self.long, "int": self.long,
            "string": self.sized, "bytes": self.sized, "boolean": self.boolean, "enum": self.enum,
            "record": self.record, "array": self.array,
        }.get(kind)  # fmt: skip
        if writer is None:
            raise ContractError(f"avro/{self.schema.structure}.avsc: no decoder for {kind}")
        return writer(depth, type_, name)

    def nullable(self, depth: int, type_: list[Any], name: str) -> None:
        if len(type_) != 2 or type_[0] != "null":
            raise ContractError(f"avro/{self.schema.structure}.avsc: a union is not [null, type]")
        self.add(depth, "u = b[i]", "i += 1", "if not u:", f"    {name} = None", "elif u == 2:")
        self.value(depth + 1, type_[1], name)
        self.add(depth, "else:", "    no_choice(u)")

    def unsigned(self, depth: int, name: str) -> None:
        self.add(
            depth, f"{name} = b[i]", "i += 1", f"if {name} > 127:", f"    {name}, i = more(b, i, {name})"
        )

    def long(self, depth: int, _type: dict[str, Any], name: str) -> None:
        self.unsigned(depth, name)
        self.add(depth, f"{name} = {name} >> 1 ^ -({name} & 1)")

    def time(self, depth: int, _type: dict[str, Any], name: str) -> None:
        self.add(
            depth,
            "try:",
            "    p, q, r = parts(b, i)",
            f"    {name} = FIRST[p] + SECOND[q] + last(r)",
            "    i += 8",
        )
        self.add(depth, "except NO_TIME:", f"    {name}, i = time(b, i)")

    def decimal(self, depth: int, _type: dict[str, Any], name: str) -> None:
        self.add(depth, "e = i + 1 + (b[i] >> 1)", f"{name} = decimal(b[i:e])", "i = e")

    def sized(self, depth: int, type_: dict[str, Any], name: str) -> None:
        self.unsigned(depth, "n")
        self.add(depth, "if n & 1:", "    raise DecodeError('a length is negative')", "e = i + (n >> 1)")
        self.add(depth, f"{name} = b[i:e]" + (".decode()" if type_["type"] == "string" else ""), "i = e")

    def boolean(self, depth: int, _type: dict[str, Any], name: str) -> None:
        self.add(depth, f"{name} = BOOLEAN[b[i]]", "i += 1")

    def enum(self, depth: int, type_: dict[str, Any], name: str) -> None:
        table = f"ENUM_{type_['name']}"
        self.space[table] = {2 * n: symbol for n, symbol in enumerate(type_["symbols"])}
        self.add(depth, f"{name} = {table}[b[i]]", "i += 1")

    def record(self, depth: int, type_: dict[str, Any], name: str) -> None:
        names = [self.variable() for _ in type_["fields"]]
        for field, inner in zip(type_["fields"], names, strict=True):
            self.value(depth, field["type"], inner)
        self.add(depth, f"{name} = {self.built(type_, names)}")

    def array(self, depth: int, type_: dict[str, Any], name: str) -> None:
        item, size = self.variable(), self.variable()
        self.add(depth, "if not b[i]:", f"    {name} = ()", "    i += 1", "else:", f"    {name} = []")
        self.add(depth + 1, "while True:")
        self.long(depth + 2, {}, size)
        self.add(depth + 2, f"if not {size}:", "    break", f"if {size} < 0:", f"    {size} = -{size}")
        self.unsigned(depth + 3, "n")  # a block of negative count says its size in bytes, too
        inner = depth + 2
        if self.at_once(inner, type_["items"], size, name):
            self.add(inner, "else:")
            inner += 1
        self.add(inner, f"for _ in range({size}):")
        self.value(inner + 1, type_["items"], item)
        self.add(inner + 1, f"{name}.append({item})")
        self.add(depth + 1, f"{name} = tuple({name})")

    def at_once(self, depth: int, items: Any, size: str, name: str) -> bool:
        """Write the code that reads a block of levels, if it is one whose numbers all have the same length.

        Each length says where the next number begins, so it is enough that all are found where they then have to be.
        """
        items = self.named.get(items, items) if isinstance(items, str) else items
        if not isinstance(items, dict) or items["type"] != "record":
            return False
        constructor = (self.types or {}).get(items["name"])
        numbers = [f for f in items["fields"] if _kind(f["type"]) == "decimal"]
        if constructor is None or len(numbers) != len(items["fields"]) or not _is_tuple(constructor):
            return False
        self.space |= {items["name"]: constructor, "repeat": repeat}
        self.add(
            depth,
            "s = 1 + (b[i] >> 1)",
            f"e = i + {size} * {len(numbers)} * s",
            f"if e <= len(b) and b[i:e:s] == b[i:i + 1] * ({size} * {len(numbers)}):",
            "    each = iter(alike(b, i, e, s))",
            f"    {name} += map(tuple_of, repeat({items['name']}), zip({', '.join(['each'] * len(numbers))}))",
            "    i = e",
        )
        return True


def _kind(type_: Any) -> str:
    return str(type_.get("logicalType", type_["type"])) if isinstance(type_, dict) else str(type_)


def _is_tuple(constructor: object) -> TypeGuard[type[tuple[Any, ...]]]:
    return isinstance(constructor, type) and issubclass(constructor, tuple)


def _no_choice(branch: int) -> NoReturn:
    raise DecodeError(f"{branch} is no choice of a union")


def _remember(
    memo: dict[bytes, tuple[bytes, int, Any]], key: bytes, prefix: bytes, size: int, held: Any
) -> None:
    """Keep what ``prefix`` was decoded to; one cut short is kept out, for it would match a longer one."""
    if len(prefix) == size:
        if len(memo) > 10_000:
            memo.clear()
        memo[key] = (prefix, size, held)
