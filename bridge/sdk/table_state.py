"""The rows of a current-state table, made from the records of a state topic. No I/O.

A state topic has the newest record of each identity, and, until Kafka compacts it, older ones before. Its writer
lets nothing older follow on what is newer; but a bridge that another has replaced may not know that yet, and what was
written twice comes twice. So a row is replaced only by what is as new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from bridge.sdk.records import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.errors import DecodeError

T = TypeVar("T", bound=Envelope)
_NAMES = ("symbol", "exchangeSymbol", "id", "clientOrderId")
_TIMES = ("lastUpdateTimestamp", "timestamp", "receivedAt")


@dataclass(slots=True)
class Seen:
    """What was read of a state topic.

    Attributes:
        records: records that are wanted.
        deleted: rows that were deleted.
        dropped: records of a writer that another had replaced (lower ``writerEpoch``).
        older: records that tell of an older state than the row.
    """

    records: int = 0
    deleted: int = 0
    dropped: int = 0
    older: int = 0


class TableState(Generic[T]):
    """The newest record of each identity.

    Args:
        wants: whether a record belongs into the table.

    Attributes:
        rows: the records by identity, which is their key in the state topic.
        unreadable: the error of each identity whose newest value is no record.
        received_at: when the bridge received the newest of them, microseconds.
        seen: what was read.
    """

    def __init__(self, wants: Callable[[T], bool]) -> None:
        self._wants = wants
        self.rows: dict[str, T] = {}
        self.unreadable: dict[str, DecodeError] = {}
        self.received_at: int | None = None
        self.seen = Seen()
        self._epochs: dict[tuple[str, str], int] = {}
        self._by_name: dict[str, set[str]] = {}

    def take(self, key: str, record: T) -> bool:
        """Take the next record of an identity; return whether the row is another one now."""
        if not self._wants(record):
            return False
        self.seen.records += 1
        if record.writerEpoch < self._epochs.get((key, record.channel), 0):
            self.seen.dropped += 1
            return False
        self._epochs[key, record.channel] = record.writerEpoch
        before = self.rows.get(key)
        if before is not None and _is_older(record, before):
            self.seen.older += 1
            return False
        self.unreadable.pop(key, None)
        self._put(key, record, before)
        self.received_at = max(self.received_at or 0, record.receivedAt)
        return record != before

    def delete(self, key: str) -> bool:
        """Delete a row, as its identity's record without a value says; return whether there was one.

        What its writers had reached is kept in mind: one that was replaced does not bring the row back.
        """
        unreadable = self.unreadable.pop(key, None) is not None
        deleted = self._remove(key)
        self.seen.deleted += deleted
        return deleted or unreadable

    def fail(self, key: str, error: DecodeError) -> bool:
        """Note that the newest value of an identity is no record; return True, as its row is gone."""
        self._remove(key)
        self.unreadable[key] = error
        return True

    def named(self, name: str) -> list[str]:
        """Return the identities of rows with a symbol, an id or a client order id."""
        return sorted(self._by_name.get(name, ()))

    def _put(self, key: str, record: T, before: T | None) -> None:
        self.rows[key] = record
        if before is not None and _names(before) == _names(record):
            return
        self._forget_names(key, before)
        for name in _names(record):
            self._by_name.setdefault(name, set()).add(key)

    def _remove(self, key: str) -> bool:
        before = self.rows.pop(key, None)
        self._forget_names(key, before)
        return before is not None

    def _forget_names(self, key: str, record: T | None) -> None:
        for name in () if record is None else _names(record):
            keys = self._by_name[name]
            keys.discard(key)
            if not keys:
                del self._by_name[name]


def _names(record: Envelope) -> frozenset[str]:
    """Return what a row may be called besides its identity."""
    found = (getattr(record, name, None) for name in _NAMES)
    return frozenset(name for name in found if name)


def _is_older(record: Envelope, row: Envelope) -> bool:
    """Return whether ``record`` tells of a state before that of ``row``, in the exchange's order.

    Times of two channels (ticker and mini-ticker, in one row) can't be compared: then the later record counts.
    """
    if record.channel != row.channel:
        return False
    at, known = _updated(record), _updated(row)
    if at != known:
        return at < known
    return record.sequence is not None and row.sequence is not None and record.sequence < row.sequence


def _updated(record: Envelope) -> int:
    """Return when the exchange changed it, else when it came, microseconds."""
    found = (getattr(record, name, None) for name in _TIMES)
    return next(int(micros) for micros in found if micros is not None)
