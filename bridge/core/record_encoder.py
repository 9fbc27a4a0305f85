"""Compiles a schema without decimals into an encoder of its records, for those that are written by the hundred.

fastavro looks at the schema for every value; here that is done once, and what is left is straight-line code. Its bytes
are fastavro's, as a property test says. What it can't encode it leaves to fastavro, which says what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.core.varint import long_bytes, size_bytes, text_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_INLINE = {
    "string": "text({})",
    "long": "long({})",
    "int": "long({})",
    "timestamp-micros": "long({})",
    "boolean": "BOOLEAN[{}]",
}


class UnsupportedType(Exception):  # noqa: N818 - it is the type that is not supported
    """The schema has a type for which there is no code."""


def compile_encoder(text: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bytes]:
    """Return what encodes a record of the schema in ``text``; without a header.

    It raises something, whatever that is, for nearly all that is no valid record: the reason is fastavro's to say.

    Raises:
        UnsupportedType: decimals, maps and the like.
    """
    writer = _Writer()
    parts = writer.record(text, "r")
    lines = [*writer.functions, "def encode(r):", f"    return b''.join({parts})"]
    exec(compile("\n".join(lines), f"<encoder of {text['name']}>", "exec"), writer.space)  # noqa: S102 - generated here from avro/
    encode: Callable[[Mapping[str, Any]], bytes] = writer.space["encode"]
    return encode


class _Writer:
    """Writes an expression for each value; what takes a loop becomes a function of its own."""

    def __init__(self) -> None:
        self.named: dict[str, Mapping[str, Any]] = {}
        self.functions: list[str] = []
        self.space: dict[str, Any] = {
            "text": text_bytes,
            "long": long_bytes,
            "size": size_bytes,
            "BOOLEAN": {True: b"\x01", False: b"\x00"},
            "whole": _whole,
        }

    def record(self, type_: Mapping[str, Any], source: str) -> str:
        """Return the expression of a tuple: a record's encoded fields, and nothing if there are no others."""
        fields = type_["fields"]
        parts = [self.value(f["type"], f"{source}[{f['name']!r}]") for f in fields]
        return f"({', '.join(parts)}, whole({source}, {len(fields)}))"

    def value(self, type_: Any, source: str) -> str:
        """Return the expression that encodes the value of the expression ``source``."""
        if isinstance(type_, list):
            return self.nullable(type_, source)
        if isinstance(type_, str):
            type_ = self.named.get(type_, {"type": type_})
        kind = type_.get("logicalType", type_["type"])
        if kind in _INLINE:
            return _INLINE[kind].format(source)
        if kind == "bytes":
            return f"size(len({source})) + {source}"
        if kind == "enum":
            return self.enum(type_, source)
        if kind == "record":
            self.named[type_["name"]] = type_
            return f"b''.join({self.record(type_, source)})"
        if kind == "array":
            return self.array(type_, source)
        raise UnsupportedType(kind)

    def nullable(self, type_: list[Any], source: str) -> str:
        if len(type_) != 2 or type_[0] != "null":
            raise UnsupportedType("union")
        return f"(b'\\x00' if {source} is None else b'\\x02' + {self.value(type_[1], source)})"

    def enum(self, type_: Mapping[str, Any], source: str) -> str:
        table = f"ENUM_{type_['name']}"
        self.named[type_["name"]] = type_
        self.space[table] = {symbol: long_bytes(n) for n, symbol in enumerate(type_["symbols"])}
        return f"{table}[{source}]"

    def array(self, type_: Mapping[str, Any], source: str) -> str:
        item = self.value(type_["items"], "i")
        name = f"array{len(self.functions)}"
        block = f"size(len(a)) + b''.join([{item} for i in a]) + b'\\x00'"
        self.functions.append(f"def {name}(a): return {block} if a else b'\\x00'")
        return f"{name}({source})"


def _whole(record: Mapping[str, Any], fields: int) -> bytes:
    if len(record) != fields:
        raise ValueError("a record has a field that its schema does not know")
    return b""
