"""An Avro schema of ``avro/`` as the compiler, the SDK and the documentation see it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastavro import parse_schema, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

from bridge.core.record_encoder import UnsupportedType, compile_encoder
from bridge.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOGICAL = {"decimal": "decimal", "timestamp-micros": "timestamp"}
MARKER = b"\xc3\x01"
ENVELOPE = (
    "symbol", "market", "exchangeSymbol", "channel", "origin", "writerEpoch", "connectionId",
    "connectionSequence", "receivedAt", "sequence",
)  # fmt: skip
"""The fields every unified record begins with, in this order."""


@dataclass(frozen=True, slots=True)
class SchemaField:
    """One field.

    Attributes:
        name: its name.
        kind: ``decimal``, ``timestamp``, ``long``, ``int``, ``string``, ``boolean``, ``bytes``, ``enum``, ``record``
            or ``array``.
        nullable: whether it may be null.
        symbols: an enum's symbols, in order.
        doc: what it means.
    """

    name: str
    kind: str
    nullable: bool
    symbols: tuple[str, ...]
    doc: str


@dataclass(frozen=True, slots=True)
class Schema:
    """One record schema.

    Attributes:
        structure: name of its file without suffix, and of its topics' last part (``bid-ask``).
        text: the file, as JSON value.
        parsed: fastavro's parsed form, for the generic reader and writer.
        fields: its fields in order.
        header: single-object encoding: marker and fingerprint, to stand before the body.
        encoder: a quick encoder of its records; None where there is none.
    """

    structure: str
    text: dict[str, Any]
    parsed: Any = field(repr=False)
    fields: tuple[SchemaField, ...] = field(repr=False)
    header: bytes
    encoder: Callable[[Mapping[str, Any]], bytes] | None = field(repr=False, compare=False)

    @property
    def unified(self) -> bool:
        """Whether it is a unified structure (its records begin with the envelope)."""
        return tuple(f.name for f in self.fields[: len(ENVELOPE)]) == ENVELOPE

    @property
    def fingerprint(self) -> bytes:
        """CRC-64-AVRO of the canonical form, little-endian, as the wire has it."""
        return self.header[2:]


def load(structure: str, text: str) -> Schema:
    """Build a schema from the text of its file.

    Raises:
        ContractError: the text is not a record schema.
    """
    try:
        value = json.loads(text)
        parsed = parse_schema(value, named_schemas={})
        digest = fingerprint(to_parsing_canonical_form(value), "CRC-64-AVRO")
        enums: dict[str, tuple[str, ...]] = {}
        fields = tuple(_field(f, enums) for f in value["fields"])
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError(f"avro/{structure}.avsc is not a record schema: {error}") from error
    return Schema(structure, value, parsed, fields, MARKER + bytes.fromhex(digest), _encoder(value))


def _field(value: dict[str, Any], enums: dict[str, tuple[str, ...]]) -> SchemaField:
    type_ = value["type"]
    nullable = isinstance(type_, list)
    if nullable:
        type_ = next(t for t in type_ if t != "null")
    symbols: tuple[str, ...] = ()
    if isinstance(type_, dict):
        kind = _LOGICAL.get(type_.get("logicalType", "")) or str(type_["type"])
        if kind == "enum":
            symbols = enums[type_["name"]] = tuple(type_["symbols"])
    elif type_ in enums:
        kind, symbols = "enum", enums[type_]
    else:
        kind = str(type_) if type_ in {"string", "long", "int", "boolean", "bytes", "double"} else "record"
    return SchemaField(value["name"], kind, nullable, symbols, value.get("doc", ""))


def encode(schema: Schema, record: dict[str, Any]) -> bytes:
    """Return a record in single-object encoding.

    Those with decimals go by fastavro: they are rare, or have an encoder of their own (:mod:`bridge.core.compile`).

    Raises:
        ValueError: a field is missing, unknown or of another type.
    """
    if schema.encoder is not None:
        try:
            return schema.header + schema.encoder(record)
        except Exception:  # noqa: BLE001, S110 - whatever it is, fastavro says what is wrong
            pass
    out = io.BytesIO()
    out.write(schema.header)
    schemaless_writer(out, schema.parsed, record, strict=True)
    return out.getvalue()


def _encoder(text: dict[str, Any]) -> Callable[[Mapping[str, Any]], bytes] | None:
    try:
        return compile_encoder(text)
    except UnsupportedType:
        return None
