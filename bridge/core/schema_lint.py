"""Rules every schema of ``avro/`` keeps, so that readers of any language can rely on them.

Why: fastavro's own compatibility rules take a changed scale or time unit for compatible, and zero-width or
recursive types can exhaust a reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.core.schema import Schema

_LOGICAL = {
    "decimal": ("bytes", {"precision": 38, "scale": 18}),
    "timestamp-micros": ("long", {}),
}
_PRIMITIVE = {"string", "long", "int", "boolean", "bytes"}


def lint(schema: Schema) -> Iterator[str]:
    """Yield one sentence for each rule a schema breaks."""
    where = f"avro/{schema.structure}.avsc"
    if not schema.text.get("doc"):
        yield f"{where}: has no doc"
    named: set[str] = set()
    yield from _record(schema.text, where, named, open_names=())


def _record(value: dict[str, Any], where: str, named: set[str], open_names: tuple[str, ...]) -> Iterator[str]:
    open_names = (*open_names, value["name"])
    named.add(value["name"])
    if not value["fields"]:
        yield f"{where}: record {value['name']} has no fields, so an array of it needs no bytes"
    for field in value["fields"]:
        at = f"{where}: {value['name']}.{field['name']}"
        type_ = field["type"]
        if isinstance(type_, list):
            if len(type_) != 2 or type_[0] != "null":
                yield f"{at}: unions are of null and one type, null first"
                continue
            if "default" not in field or field["default"] is not None:
                yield f"{at}: a nullable field has the default null"
            type_ = type_[1]
        yield from _type(type_, at, named, open_names)


def _type(type_: Any, at: str, named: set[str], open_names: tuple[str, ...]) -> Iterator[str]:
    if isinstance(type_, str):
        if type_ in open_names:
            yield f"{at}: is recursive"
        elif type_ not in _PRIMITIVE and type_ not in named:
            yield f"{at}: {type_} is not one of {', '.join(sorted(_PRIMITIVE))}"
        return
    kind, logical = type_["type"], type_.get("logicalType")
    if logical is not None:
        expected = _LOGICAL.get(logical)
        if expected is None:
            yield f"{at}: logical type {logical} is not one of {', '.join(_LOGICAL)}"
        elif kind != expected[0] or any(type_.get(k) != v for k, v in expected[1].items()):
            yield f"{at}: {logical} is {expected[0]} with {expected[1] or 'no attributes'}"
    elif kind == "record":
        yield from _record(type_, at.partition(":")[0], named, open_names)
    elif kind == "array":
        yield from _type(type_["items"], at, named, open_names)
    elif kind == "enum":
        named.add(type_["name"])
    else:
        yield f"{at}: {kind} is not used in this contract"
