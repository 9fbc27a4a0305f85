"""The schemas of ``avro/``: what every record looks like.

``manifest()``, ``structure(name)`` and ``fields(name)`` are public: they tell consumers, documentation and code
generators what the records hold.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from bridge import __version__, contracts
from bridge.core.schema import Schema, SchemaField, load
from bridge.errors import UsageError

__all__ = ["fields", "manifest", "schemas", "structure"]


@cache
def schemas() -> dict[str, Schema]:
    """Return all schemas by structure name."""
    return {name: load(name, text) for name, text in contracts.texts("avro", ".avsc")}


def structure(name: str) -> Schema:
    """Return the schema of one structure (``trade``).

    Raises:
        UsageError: no such structure.
    """
    found = schemas().get(name)
    if found is None:
        raise UsageError(f"no structure {name!r}; there are {', '.join(schemas())}")
    return found


def fields(name: str) -> tuple[SchemaField, ...]:
    """Return the fields of one structure, in order."""
    return structure(name).fields


def manifest() -> dict[str, Any]:
    """Return the whole contract as one JSON value."""
    return {
        "version": __version__,
        "structures": {
            name: {
                "fingerprint": schema.fingerprint.hex(),
                "unified": schema.unified,
                "doc": schema.text.get("doc", ""),
                "fields": [
                    {"name": f.name, "kind": f.kind, "nullable": f.nullable, "doc": f.doc}
                    | ({"symbols": list(f.symbols)} if f.symbols else {})
                    for f in schema.fields
                ],
            }
            for name, schema in schemas().items()
        },
    }
