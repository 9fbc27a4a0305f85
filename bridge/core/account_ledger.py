"""Tells entries of a futures ledger that were published from new ones, though events have no ids.

REST's income has a transaction id, and of what a fill earned or cost the trade id, as the fill's event has. Of the rest
an event has only time and amount: such an entry and a row of REST's are the same where currency, amount and direction
are, the contract is where both name one, and their times are at most :data:`APART` apart. One matches one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.core.remembered import Remembered

if TYPE_CHECKING:
    from bridge.core.account_records import Draft

APART = 10_000_000
"""Microseconds between an event and REST's row of the same thing."""

_ALONE = 1_000
"""Most entries of one source that wait for the other's."""


class Entries:
    """The entries of one account's ledger that were published.

    Args:
        most: how many to remember one by one.
    """

    def __init__(self, most: int) -> None:
        self._told = Remembered(most)
        self._alone: dict[bool, list[Draft]] = {True: [], False: []}

    def add(self, draft: Draft) -> bool:
        """Take an entry; return whether it is a new one."""
        values = draft.values
        if values.get("referenceId") is not None:
            return self._told.add(_of_trade(values), draft.time)
        has_id = values.get("id") is not None
        if not self._told.add(_of_row(values) if has_id else _of_event(values), draft.time):
            return False
        waiting = self._alone[not has_id]
        match = next((other for other in waiting if _is_same(draft, other)), None)
        if match is not None:
            waiting.remove(match)
            return False
        mine = self._alone[has_id]
        mine.append(draft)
        if len(mine) > _ALONE:
            mine.remove(min(mine, key=lambda entry: entry.time))
        return True


def _of_trade(values: Any) -> tuple[Any, ...]:
    instrument, trade = values.get("instrument"), values["referenceId"]
    return ("trade", values.get("exchangeType"), instrument, trade, values["currency"])


def _of_row(values: Any) -> tuple[Any, ...]:
    return ("row", values.get("exchangeType"), values["id"], values["currency"])


def _of_event(values: Any) -> tuple[Any, ...]:
    what = ("exchangeType", "currency", "direction", "amount", "timestamp", "instrument", "after")
    return ("event", *(values.get(name) for name in what))


def _is_same(one: Draft, other: Draft) -> bool:
    a, b = one.values, other.values
    contracts = {a.get("instrument"), b.get("instrument")} - {None}
    return (
        all(a[name] == b[name] for name in ("currency", "direction", "amount"))
        and len(contracts) <= 1
        and abs(one.time - other.time) <= APART
    )
