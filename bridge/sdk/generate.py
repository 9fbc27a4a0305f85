"""Writes ``bridge/sdk/records.py`` from ``avro/``: ``python -m bridge.sdk.generate``."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from bridge.core.schema import ENVELOPE
from bridge.schema import schemas

TARGET = Path(__file__).with_name("records.py")
_WIDTH = 110
_TIME_FIELDS = {
    "raw": "receivedAt", "gap": "detectedAt", "coverage": "updatedAt", "lifecycle": "at", "dead-letter": "at",
}  # fmt: skip
_PLAIN = {
    "string": "str",
    "long": "int",
    "int": "int",
    "boolean": "bool",
    "bytes": "bytes",
    "double": "float",
}
_SHAPES = {"market": "instrument"}
_NOT_IN_CCXT = frozenset({"account-event"})
_HEAD = '''"""The record class of each structure.

Written by ``python -m bridge.sdk.generate`` from ``avro/``: change it there.
"""

# ruff: noqa: N815, TC003 - names are those of avro/; typing.get_type_hints finds Decimal here

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

import msgspec

from bridge.sdk import shapes
from bridge.sdk.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.sdk.shapes import Number

'''


def text() -> str:
    """Return what ``records.py`` must be."""
    return _Writer().module()


class _Writer:
    def __init__(self) -> None:
        self.enums: dict[str, str] = {}
        self.parts: dict[str, str] = {}
        self.named_parts: dict[str, list[dict[str, Any]]] = {}
        self.built: list[str] = []

    def module(self) -> str:
        # All have the same fields; the docs of those of accounts are of accounts alone.
        envelope = schemas()["trade"].text["fields"][: len(ENVELOPE)]
        classes = [self.envelope(envelope)]
        classes += [self.record(name, schema.text, schema.unified) for name, schema in schemas().items()]
        by_structure = "".join(f'    "{n}": {s.text["name"]},\n' for n, s in schemas().items())
        by_name = "".join(f'    "{name}": {name},\n' for name in sorted(self.built))
        tables = (
            f"CLASSES: dict[str, type[Record]] = {{\n{by_structure}}}\n"
            '"""The class of each structure."""\n\n'
            f"TYPES: dict[str, Callable[..., Any]] = {{\n{by_name}}}\n"
            '"""Every class by the name of its Avro record, for :class:`bridge.core.wire.Decoder`."""\n'
        )
        return _HEAD + "\n".join(self.enums.values()) + "\n\n\n" + "\n\n".join([*classes, tables])

    def envelope(self, fields: list[dict[str, Any]]) -> str:
        doc = "What every unified record begins with."
        head = f"class Envelope(Record, frozen=True, gc=False):\n{_docstring(doc, fields)}\n"
        return head + self.fields(fields)

    def record(self, structure: str, schema: dict[str, Any], unified: bool) -> str:
        name, fields = schema["name"], schema["fields"]
        self.built.append(name)
        own = fields[len(ENVELOPE) :] if unified else fields
        body = (
            f"class {name}({'Envelope' if unified else 'Record'}, frozen=True, gc=False):\n"
            f"{_docstring(schema['doc'], own)}\n"
            f'    structure: ClassVar[str] = "{structure}"\n'
            f'    time_field: ClassVar[str] = "{_TIME_FIELDS.get(structure, "timestamp")}"\n\n'
            f"{self.fields(own)}"
        )
        if unified and structure not in _NOT_IN_CCXT:
            body += self.shape(structure)
        inner = [part for part in self.parts.values() if part]
        self.parts = dict.fromkeys(self.parts, "")
        return "\n\n".join([*inner, body])

    def shape(self, structure: str) -> str:
        function = _SHAPES.get(structure, structure.replace("-", "_"))
        result, what = ("list[Any]", "list") if structure == "ohlcv" else ("dict[str, Any]", "dictionary")
        return (
            f"\n    def as_ccxt(self, number: Number = float) -> {result}:\n"
            f'        """Return CCXT\'s {what}; see :func:`bridge.sdk.shapes.{function}`."""\n'
            f"        return shapes.{function}(self, number)\n"
        )

    def fields(self, fields: list[dict[str, Any]]) -> str:
        return "".join(f"    {f['name']}: {self.type(f['type'])}\n" for f in fields)

    def type(self, type_: Any) -> str:
        if isinstance(type_, list):
            return f"{self.type(type_[1])} | None"
        if isinstance(type_, str):
            return _PLAIN.get(type_, type_)
        if type_.get("logicalType") == "decimal":
            return "Decimal"
        if type_["type"] == "array":
            return f"tuple[{self.type(type_['items'])}, ...]"
        if type_["type"] in {"enum", "record"}:
            return self.named(type_)
        return _PLAIN[type_["type"]]

    def named(self, type_: dict[str, Any]) -> str:
        name: str = type_["name"]
        if type_["type"] == "enum":
            symbols = ", ".join(f'"{s}"' for s in type_["symbols"])
            self.enums[name] = f"{name}: TypeAlias = Literal[{symbols}]"
        else:
            self.part(type_)
        return name

    def part(self, type_: dict[str, Any]) -> None:
        """Write the class of a record inside a record; levels are tuples, so that they unpack."""
        name, fields = type_["name"], type_["fields"]
        known = self.named_parts.setdefault(name, fields)
        if known is not fields:
            assert known == fields, f"avro/: {name} is not the same everywhere"
            return
        base = "NamedTuple" if name == "Level" else "msgspec.Struct, frozen=True, gc=False"
        lines = self.fields(fields)
        doc = f"Part ``{name}`` of a record."
        self.parts[name] = f"class {name}({base}):\n{_docstring(doc, fields)}\n{lines}"
        self.built.append(name)


def _docstring(doc: str, fields: list[dict[str, Any]]) -> str:
    end = min(n for n in (doc.find(". "), doc.find(": "), len(doc)) if n > 0)
    summary, rest = doc[:end].rstrip("."), doc[end + 2 :]
    lines = [f'"""{summary}.']
    if rest:
        lines += ["", *textwrap.wrap(rest[0].upper() + rest[1:], _WIDTH - 4)]
    lines += ["", "Attributes:"]
    for field in fields:
        lines += textwrap.wrap(
            f"{field['name']}: {_doc(field)}", _WIDTH - 8, initial_indent="    ", subsequent_indent=" " * 8
        )
    return "".join(f"    {line}\n" if line else "\n" for line in [*lines, '"""'])


def _doc(field: dict[str, Any]) -> str:
    type_ = field["type"]
    inner = type_[1] if isinstance(type_, list) else type_
    is_time = isinstance(inner, dict) and inner.get("logicalType") == "timestamp-micros"
    doc = field.get("doc") or {"market": "The market.", "channel": "Raw channel."}.get(
        field["name"], "See ``avro/``."
    )
    return f"{doc} Microseconds." if is_time else str(doc)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
