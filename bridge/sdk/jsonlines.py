"""Records as JSON, and back, without losing anything.

Fields have the names of ``avro/``. Decimals are text, times are integers (microseconds), a ``connectionId`` is
its 16 hexadecimal digits, and bytes are text: a ``payload`` that is not UTF-8 comes as ``payloadBase64``.
"""

from __future__ import annotations

import base64
import binascii
import json
from decimal import Decimal, InvalidOperation
from typing import Any

from bridge.errors import DecodeError
from bridge.schema import schemas
from bridge.sdk.record import Record
from bridge.sdk.records import CLASSES, TYPES


def plain(record: Record) -> dict[str, Any]:
    """Return ``record`` as a value that ``json.dumps`` can write."""
    found: dict[str, Any] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if name == "connectionId" and value is not None:
            found[name] = f"{value:016x}"
        elif isinstance(value, bytes):
            try:
                found[name] = value.decode()
            except UnicodeDecodeError:
                found[f"{name}Base64"] = base64.b64encode(value).decode()
        else:
            found[name] = plain_value(value)
    return found


def plain_value(value: Any) -> Any:
    """Return one field's value as JSON has it."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if hasattr(value, "_fields"):
        return {name: plain_value(getattr(value, name)) for name in value._fields}
    if isinstance(value, tuple):
        return [plain_value(item) for item in value]
    if hasattr(value, "__struct_fields__"):
        return {name: plain_value(getattr(value, name)) for name in value.__struct_fields__}
    return value


def record(structure: str, value: dict[str, Any]) -> Record:
    """Return the record that :func:`plain` made ``value`` of. A field that may be null can be left out.

    Raises:
        DecodeError: it is no such record; names the field.
    """
    schema = schemas().get(structure)
    if schema is None or not isinstance(value, dict):
        raise DecodeError(f"no structure {structure!r}; there are {', '.join(CLASSES)}")
    value = dict(value)
    for name in [key for key in value if key.endswith("Base64")]:
        try:
            value[name.removesuffix("Base64")] = base64.b64decode(value.pop(name), validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise DecodeError(f"{structure}: {name} is not base64") from error
    found = _Builder(structure).record(schema.text, value)
    assert isinstance(found, Record)
    return found


class _Builder:
    def __init__(self, structure: str) -> None:
        self.structure = structure
        self.named: dict[str, Any] = {}
        self.learn(schemas()[structure].text)

    def learn(self, type_: Any) -> None:
        """Note each named type in ``type_``, for it is defined once and only named after that."""
        if isinstance(type_, list):
            for choice in type_:
                self.learn(choice)
        elif isinstance(type_, dict):
            if "name" in type_:
                self.named[type_["name"]] = type_
            self.learn(type_.get("items"))
            for field in type_.get("fields", ()):
                self.learn(field["type"])

    def record(self, type_: dict[str, Any], value: Any) -> Any:
        if not isinstance(value, dict):
            raise DecodeError(f"{self.structure}: a {type_['name']} is {value!r}, not an object")
        stray = set(value) - {f["name"] for f in type_["fields"]}
        if stray:
            raise DecodeError(f"{self.structure}: there is no field {', '.join(sorted(stray))}")
        return TYPES[type_["name"]](*(self.field(f, value) for f in type_["fields"]))

    def field(self, field: dict[str, Any], value: dict[str, Any]) -> Any:
        type_, name = field["type"], field["name"]
        given = value.get(name)
        if isinstance(type_, list):
            if given is None:
                return None
            type_ = type_[1]
        try:
            return self.value(type_, given, name)
        except (TypeError, ValueError, InvalidOperation) as error:
            raise DecodeError(f"{self.structure}: {name} is {given!r}") from error

    def value(self, type_: Any, given: Any, name: str) -> Any:
        if isinstance(type_, str):
            type_ = self.named.get(type_, {"type": type_})
        kind = type_.get("logicalType", type_["type"])
        if kind == "record":
            return self.record(type_, given)
        if kind == "array":
            return tuple(self.value(type_["items"], item, name) for item in given)
        if kind == "enum":
            return type_["symbols"][type_["symbols"].index(given)]
        if name == "connectionId" and isinstance(given, str):
            return int(given, 16)
        return _simple(kind, given)


def _simple(kind: str, given: Any) -> Any:
    if kind == "decimal" and type(given) in {str, int, Decimal}:
        return Decimal(given)
    if kind == "bytes" and isinstance(given, str):
        return given.encode()
    if type(given) is not {"string": str, "bytes": bytes, "boolean": bool}.get(kind, int):
        raise TypeError(type(given).__name__)
    return given


def line(content: dict[str, Any]) -> str:
    """Return one line of JSON; symbols that are not ASCII stay as they are."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
