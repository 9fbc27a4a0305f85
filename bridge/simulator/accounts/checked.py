"""Reads entries of plans: each value checked, each error naming the entry, the key and the mend."""

from __future__ import annotations

import difflib
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, TypeVar

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

T = TypeVar("T", bound=str)


class Entry:
    """A mapping of a plan.

    Args:
        where: what errors call it, such as ``accounts[0]``.
        found: what was read.

    Raises:
        ConfigError: it is no mapping.
    """

    def __init__(self, where: str, found: object) -> None:
        if not isinstance(found, dict):
            raise ConfigError(f"{where}: must be a mapping, found {type(found).__name__}")
        self.where = where
        self.found: Mapping[str, object] = found

    def only(self, known: Collection[str]) -> None:
        """Refuse keys that are not ``known``."""
        for key in self.found:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "takes " + ", ".join(sorted(known))
                raise ConfigError(f"{self.where}.{key}: unknown key; {hint}")

    def text(self, key: str, usual: str | None = None) -> str:
        """Return a text, ``usual`` where it is not given."""
        value = self.found.get(key, usual)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            need = "is needed" if value is None else f"must be a text, found {type(value).__name__}"
            raise ConfigError(f"{self.where}.{key}: {need}")
        return str(value)

    def one_of(self, key: str, choices: Sequence[T], usual: T | None = None) -> T:
        """Return one of some words."""
        value = self.found.get(key, usual)
        for choice in choices:
            if value == choice:
                return choice
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "one of " + ", ".join(choices)
        raise ConfigError(f"{self.where}.{key}: {value!r} is not known; {hint}")

    def amount(self, key: str, usual: str | None = None) -> Decimal:
        """Return an exact number, given as text or as a whole number."""
        value = self.found.get(key, usual)
        if value is None:
            raise ConfigError(f"{self.where}.{key}: is needed")
        if isinstance(value, float):
            # YAML read it; its shortest text is what was written
            value = repr(value)
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            amount = Decimal("NaN")
        if isinstance(value, bool) or not amount.is_finite():
            raise ConfigError(f"{self.where}.{key}: must be a number such as '0.5', found {value!r}")
        return amount

    def flag(self, key: str) -> bool:
        """Return true or false; false where it is not given."""
        value = self.found.get(key, False)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.where}.{key}: must be true or false, found {value!r}")
        return value

    def seconds(self, key: str, usual: float | None = None) -> float | None:
        """Return seconds from 0, ``usual`` where they are not given."""
        value = self.found.get(key, usual)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ConfigError(f"{self.where}.{key}: must be seconds from 0, found {value!r}")
        return float(value)

    def items(self, key: str) -> list[object]:
        """Return a list, empty where it is not given."""
        value = self.found.get(key, [])
        if not isinstance(value, list):
            raise ConfigError(f"{self.where}.{key}: must be a list, found {type(value).__name__}")
        return value

    def inner(self, key: str) -> Entry:
        """Return a mapping, empty where it is not given."""
        return Entry(f"{self.where}.{key}", self.found.get(key, {}))
