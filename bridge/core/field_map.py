"""What the field maps of ``topics/`` have in common: wire keys with their types, and checked calls of conversions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bridge.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from bridge.core.schema import SchemaField

CALL = re.compile(r"(\w+)\((.*)\)")
"""``function(keys)``."""

DEFAULT_WIRE = {
    "decimal": "text",
    "timestamp": "int",
    "long": "int",
    "int": "int",
    "string": "text",
    "enum": "text",
    "boolean": "flag",
}
"""How a key is read that is the source of a field of a kind."""

_WIRE_TYPE = {
    "Text": "text",
    "MaybeText": "text?",
    "Int": "int",
    "MaybeInt": "int?",
    "Flag": "flag",
    "Time": "time",
    "Legs": "legs",
}
_PYTHON: dict[str, Any] = {
    "text": str,
    "int": int,
    "flag": bool,
    "time": int | str,
    "levels": msgspec.Raw,
    "legs": list[dict[str, Any]],
}


class Argument(NamedTuple):
    """One argument of a conversion.

    Attributes:
        name: its name, or the wire key it is read from.
        wire: how the key is read; None where the compiler gives the value.
    """

    name: str
    wire: str | None


class WireKeys:
    """The keys of a message that a field map reads, and how; the message's type follows from them.

    A key is nested with dots; a part that ends in ``?`` may be missing with all that is in it.
    """

    def __init__(self) -> None:
        self._types: dict[str, str] = {}
        self._rows: dict[str, WireKeys] = {}

    def use(self, key: str, wire: str, where: str) -> tuple[str, ...]:
        """Note that ``key`` is read as ``wire`` (``text``, ``int?`` …); return the attributes that lead to it.

        Raises:
            ContractError: it is read otherwise elsewhere.
        """
        known = self._types.get(key)
        if known is not None and known.rstrip("?") != wire.rstrip("?"):
            raise ContractError(f"{where}: {key} is read both as {known} and as {wire}")
        nested = next((k for k in self._types if k.startswith(f"{key}.") or key.startswith(f"{k}.")), None)
        if nested is not None:
            raise ContractError(f"{where}: {key} and {nested} can't both be values")
        if known is None or known.endswith("?"):
            self._types[key] = wire
        return attributes(key)

    def wire(self, key: str, otherwise: str) -> str:
        """Return how ``key`` is read so far, or ``otherwise``."""
        return self._types.get(key, otherwise)

    def rows(self, key: str) -> WireKeys:
        """Return the keys of the rows in the array at ``key``."""
        return self._rows.setdefault(key, WireKeys())

    def message_type(self, name: str) -> Any:
        """Return the msgspec type of a message; its attributes are ``f_<wire key>``."""
        leaves: dict[str, Any] = dict(self._types)
        for key, keys in self._rows.items():
            leaves[key] = list[keys.message_type(f"{name}.{key}")]  # type: ignore[misc]
        tree: dict[str, Any] = {}
        for key, leaf in leaves.items():
            *path, last = key.split(".")
            node = tree
            for part in path:
                node = node.setdefault(part, {})
            node[last] = leaf
        return _struct(name, tree)


def attributes(key: str) -> tuple[str, ...]:
    """Return the attributes that lead to a wire key."""
    return tuple(f"f_{part.rstrip('?')}" for part in key.split("."))


def checked_call(
    name: str,
    keys: list[str],
    target: SchemaField,
    functions: Mapping[str, Callable[..., object]],
    given: Collection[str],
    special: Collection[str],
    where: str,
) -> list[Argument]:
    """Return the arguments of a conversion that is to make a field.

    Args:
        name: of the conversion.
        keys: the wire keys it is called with.
        target: the field.
        functions: the conversions there are.
        given: names of arguments that the compiler gives.
        special: what else can be called, for messages.
        where: for messages.

    Raises:
        ContractError: there is no such conversion, or it does not fit the keys or the field.
    """
    function = functions.get(name)
    if function is None:
        known = ", ".join((*functions, *special))
        raise ContractError(f"{where}: no conversion {name!r} for a {target.kind}; there are {known}")
    annotations = {k: v for k, v in function.__annotations__.items() if k != "return"}
    wanted = [argument for argument in annotations if argument not in given]
    if len(keys) != len(wanted):
        raise ContractError(f"{where}: {name}() wants {len(wanted)} keys, not {', '.join(keys) or 'none'}")
    result = str(function.__annotations__["return"])
    if result.startswith("str") != (target.kind in {"string", "enum"}):
        raise ContractError(f"{where}: {name}() gives {result}; the field is a {target.kind}")
    if result.endswith("None") and not target.nullable:
        raise ContractError(f"{where}: {name}() may give None; the field may not be null")
    rest = iter(keys)
    return [
        Argument(argument, None) if argument in given else Argument(next(rest), _WIRE_TYPE[type_])
        for argument, type_ in annotations.items()
    ]


def _struct(name: str, tree: dict[str, Any]) -> Any:
    """Build a msgspec type whose attributes are ``f_<wire key>`` (keys such as ``from`` would be no names)."""
    required: list[tuple[Any, ...]] = []
    optional: list[tuple[Any, ...]] = []
    rename: dict[str, str] = {}
    for part, wire in tree.items():
        key = part.rstrip("?")
        rename[f"f_{key}"] = key
        if isinstance(wire, dict):
            inner = _struct(f"{name}.{key}", wire)
            if part.endswith("?"):
                optional.append((f"f_{key}", inner | None, None))
            else:
                required.append((f"f_{key}", inner))
        elif not isinstance(wire, str):
            optional.append((f"f_{key}", wire | None, None))
        elif wire.endswith("?"):
            optional.append((f"f_{key}", _PYTHON[wire[:-1]] | None, None))
        else:
            required.append((f"f_{key}", _PYTHON[wire]))
    return msgspec.defstruct(
        re.sub(r"\W", "_", name), required + optional, rename=rename, frozen=True, gc=False, kw_only=True
    )
