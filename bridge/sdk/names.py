"""Names as users give them: of symbols, currencies and accounts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from bridge.errors import UsageError

Names: TypeAlias = str | Iterable[str] | None
"""One name, several, or None for all."""


def names(given: Names, what: str) -> frozenset[str] | None:
    """Return the names given; None for all.

    Args:
        given: the names.
        what: the argument's name, for the error.

    Raises:
        UsageError: there are none, or an empty one.
    """
    if given is None:
        return None
    wanted = frozenset((given,) if isinstance(given, str) else given)
    if not wanted or not all(wanted):
        raise UsageError(f"{what} is empty; give one, several, or None for all")
    return wanted
