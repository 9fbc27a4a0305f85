"""A current-state table, as users see it: the newest record of each identity, kept current in the background."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, overload

from bridge.core.account_state import FINISHED
from bridge.errors import NotInSync, UsageError
from bridge.sdk.records import CLASSES, Envelope, Order

if TYPE_CHECKING:
    from collections.abc import ItemsView, ValuesView
    from types import TracebackType

    from bridge.errors import DecodeError
    from bridge.model import Market
    from bridge.sdk.names import Names
    from bridge.sdk.table_feed import TableFeed, Tables
    from bridge.sdk.table_state import Seen, TableState

T = TypeVar("T", bound=Envelope)
D = TypeVar("D")
_SHOWN = 5


class TableOptions(TypedDict, total=False):
    """What ``client.table`` takes besides the structure; see there."""

    account: Names
    market: Market | None
    timeout: float | None
    stale_ok: bool


class Table(Mapping[str, T]):
    """The newest record of each identity, by that. Made by ``client.table``.

    A row is also found by its symbol or currency code, the exchange's name for that, its id or its client order id,
    where no other row is called the same. Records are immutable: a row that changes is another record.

    Reading while the table is not kept current raises :class:`NotInSync`, unless ``stale_ok`` is set. Close it by
    :meth:`aclose` or ``async with``; the client's end closes it too.

    Attributes:
        stale_ok: whether rows may be read while the table is not kept current.
    """

    def __init__(self, feed: TableFeed, tables: Tables, *, stale_ok: bool = False) -> None:
        self.stale_ok = stale_ok
        self._feed, self._tables = feed, tables
        self._fields = CLASSES[feed.structure].__struct_fields__
        tables.drop_with(self, feed)

    def __repr__(self) -> str:
        shown = "" if self.reason is None else f", not kept current: {self.reason}"
        return f"<{type(self).__name__} of {self.structure}, {len(self._feed.state.rows)} rows{shown}>"

    # The table

    @property
    def structure(self) -> str:
        """Name of the structure (``balance``)."""
        return self._feed.structure

    @property
    def caught_up(self) -> bool:
        """Whether it has all that lay in the topic at first, and is kept current since."""
        return self._feed.caught_up and self._feed.reason is None

    @property
    def reason(self) -> str | None:
        """Why the table is not kept current any more; None while it is."""
        return self._feed.reason

    @property
    def receivedAt(self) -> int | None:  # noqa: N802 - the records' own name
        """When the bridge received the newest of what was read, microseconds; None before there is anything."""
        return self._feed.state.received_at

    @property
    def age(self) -> float | None:
        """Seconds since then, by this machine's clock."""
        at = self.receivedAt
        return None if at is None else time.time() - at / 1e6

    @property
    def version(self) -> int:
        """Grows with every row that changes; see :meth:`changed`."""
        return self._feed.version

    @property
    def seen(self) -> Seen:
        """What was read of the topic, in numbers."""
        return self._feed.state.seen

    @property
    def unreadable(self) -> Mapping[str, DecodeError]:
        """The error of each identity whose newest value is no record: it has no row until the next one comes."""
        return dict(self._feed.state.unreadable)

    async def changed(self, since: int | None = None) -> int:
        """Wait until a row changes, and return the table's :attr:`version` then.

        Args:
            since: a version seen before; where the table has changed since, it returns at once.

        Raises:
            NotInSync: the table was closed, or its source ended: no change will come.
            BridgeError: its reader failed.
        """
        return await self._feed.changed(since)

    async def aclose(self) -> None:
        """Stop keeping it current."""
        await self._tables.drop(self._feed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # Its rows

    def __getitem__(self, name: str) -> T:
        """Return a row by its identity, or by a name that no other row has.

        Raises:
            KeyError: there is no such row.
            UsageError: several rows are called so.
            DecodeError: the newest value of the identity is no record.
        """
        state = self._checked()
        row = state.rows.get(name)
        if row is not None:
            return row
        found = state.named(name)
        if len(found) == 1:
            return state.rows[found[0]]
        if found:
            raise _ambiguous(self.structure, repr(name), found)
        for key, error in state.unreadable.items():
            if key == name or key.endswith(f":{name}"):
                raise error
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        state = self._checked()
        return isinstance(name, str) and (name in state.rows or bool(state.named(name)))

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._checked().rows))

    def __len__(self) -> int:
        return len(self._checked().rows)

    def items(self) -> ItemsView[str, T]:
        """Return identities and rows as they are now: they stay so, however long it takes to go through them."""
        return dict(self._checked().rows).items()

    def values(self) -> ValuesView[T]:
        """Return the rows as they are now; see :meth:`items`."""
        return dict(self._checked().rows).values()

    @overload
    def get(self, name: str | None = None, /, **fields: Any) -> T | None: ...
    @overload
    def get(self, name: str | None, default: D, /, **fields: Any) -> T | D: ...

    def get(self, name: str | None = None, default: Any = None, /, **fields: Any) -> Any:
        """Return the one row with a name, or with values of fields, or both; ``default`` where there is none.

        Args:
            name: its identity, or what else it is called; see :class:`Table`.
            default: what to return where there is no such row.
            fields: as of :meth:`where`: ``account="main", market="spot"``.

        Raises:
            UsageError: several rows are so; or there is no such field.
        """
        state = self._checked()
        test = self._test(fields)
        keys = [*state.rows] if name is None else [name] if name in state.rows else state.named(name)
        found = [key for key in keys if test(state.rows[key])]
        if len(found) > 1:
            wanted = [] if name is None else [repr(name)]
            wanted += [f"{field}={value!r}" for field, value in fields.items()]
            raise _ambiguous(self.structure, " with ".join(wanted) or "anything", found)
        return state.rows[found[0]] if found else default

    def where(self, *tests: Callable[[T], bool], **fields: Any) -> list[T]:
        """Return the rows with these values of fields that pass all tests.

        Args:
            tests: functions that take a row: ``lambda order: order.amount > 1``.
            fields: values by the record's own names of fields: ``status="open"``. A set, a list or a tuple is any of
                its values.

        Raises:
            UsageError: there is no such field.
        """
        state, test = self._checked(), self._test(fields)
        return [row for row in state.rows.values() if test(row) and all(each(row) for each in tests)]

    def _test(self, fields: Mapping[str, Any]) -> Callable[[T], bool]:
        for name in fields:
            if name not in self._fields:
                near = difflib.get_close_matches(name, self._fields, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise UsageError(f"{self.structure} records have no field {name!r}{hint}")
        anyhow = {
            name: value if isinstance(value, (set, frozenset, list, tuple)) else (value,)
            for name, value in fields.items()
        }
        return lambda row: all(getattr(row, name) in values for name, values in anyhow.items())

    def _checked(self) -> TableState[T]:
        if self._feed.reason is not None and not self.stale_ok:
            raise NotInSync(
                f"{self._feed.what} is not kept current: {self._feed.reason}. stale_ok=True reads it as it was"
            )
        return self._feed.state


class OrderTable(Table[Order]):
    """The newest state of each order; see :class:`Table`."""

    def open(self, *tests: Callable[[Order], bool], **fields: Any) -> list[Order]:
        """Return the orders that are not done with; for the arguments see :meth:`Table.where`."""
        return self.where(lambda order: order.status not in FINISHED, *tests, **fields)


def _ambiguous(structure: str, what: str, keys: list[str]) -> UsageError:
    shown = ", ".join(keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")
    return UsageError(
        f"{len(keys)} rows of the {structure} table are {what}: {shown}; name one of them, "
        "or give account=, market= or other fields"
    )
