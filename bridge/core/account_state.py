"""What was published of an account, so that live events and REST's answers become one history. Pure.

The same thing is told several times: by two connections while one replaces the other, by REST after each reconnect,
and again after a restart. Each fill and ledger entry goes out once. Of an order, a balance or a position every state
goes out once and none behind a newer one; a state that REST told of first is not told again when its event comes late.

The rules are of what the exchange tells, no clock: an order's execution id (spot), its update time, what has filled and
whether it is done with; a balance's and a position's update time. docs/adr/0015-accounts.md gives the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.core.account_ledger import Entries
from bridge.core.account_records import Draft, identity
from bridge.core.remembered import Remembered

if TYPE_CHECKING:
    from collections.abc import Iterable

REMEMBERED = 20_000
"""Fills, finished orders and other things told once that are remembered one by one, of each kind."""

MOST_EVENTS = 1_000
"""The same of account events, which are remembered whole."""

FINISHED = frozenset({"closed", "canceled", "rejected", "expired"})
"""Statuses of orders that are done with."""
_UNTOLD = object()
_KEPT = ("timestamp", "lastTradeTimestamp")
"""Fields of an order that later messages may not tell again."""


class OpenOrder(NamedTuple):
    """An order that is open as far as is known.

    Attributes:
        symbol: the exchange's symbol.
        id: order id, or algo id.
        conditional: which of them.
    """

    symbol: str
    id: str
    conditional: bool


class _Version(NamedTuple):
    """How new a state is: of two states of one thing the greater is the newer.

    Attributes:
        time: when it changed, microseconds.
        filled: of an order.
        finished: of an order.
    """

    time: int
    filled: int = 0
    finished: bool = False


@dataclass(slots=True)
class _Known:
    """The newest state of an order, a balance or a position that was published.

    Attributes:
        draft: the state.
        version: how new it is.
        shown: what a reader sees of it, whoever told it (:func:`_shown`).
        seen: all that was shown with this version.
        told: the connections that told it, and so are as far as it; 0 for REST.
        execution: newest execution id, where one was told.
        settled: REST told it, asked after the millisecond in which it changed: nothing else of that one is newer.
    """

    draft: Draft
    version: _Version
    shown: tuple[Any, ...]
    seen: list[tuple[Any, ...]]
    told: set[int]
    execution: int | None = None
    settled: bool = False

    def learn(self, draft: Draft, version: _Version, shown: tuple[Any, ...]) -> None:
        """Take what a message tells besides, though it is not published."""
        if version == self.version and _same(shown, self.shown):
            self.told.add(draft.connection)
            self.settled = self.settled or _is_settled(draft, version)
        if draft.structure == "order":
            self.draft = _with_known(self.draft, draft)
        elif draft.connection == 0 and version > self.version:
            # the state as REST saw it later: what is older than that is older than what is known
            self.version, self.seen, self.settled = version, [shown], _is_settled(draft, version)
            self.told.add(0)


class AccountState:
    """One account on one market.

    Args:
        remembered: how many things told once to remember, of each kind.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._known: dict[tuple[str, ...], _Known] = {}
        self._finished = Remembered(remembered)
        self._fills = Remembered(remembered)
        self._events = Remembered(min(remembered, MOST_EVENTS))
        self._entries = Entries(remembered)

    def accept(self, draft: Draft) -> Draft | None:
        """Take what an event or an answer tells.

        Returns:
            What to publish: the draft, of an order with what was known of it before; None where it is known, or older
            than what is known.
        """
        if draft.structure == "my-trade":
            return draft if self._fills.add(_fill(draft), draft.time) else None
        if draft.structure == "ledger":
            return draft if self._entries.add(draft) else None
        if draft.structure == "account-event":
            return draft if self._events.add(repr(draft.values), draft.time) else None
        return self._accept_state(draft)

    def resume(self, draft: Draft) -> None:
        """Take note of what was published before: by another process, or another owner of the account."""
        self.accept(draft._replace(connection=0))

    def open_orders(self) -> list[OpenOrder]:
        """Return the orders that are open as far as is known, oldest known first.

        One that the exchange does not list as open any more has ended meanwhile: ask for it by its id.
        """
        orders = [known.draft.values for known in self._known.values() if known.draft.structure == "order"]
        return [OpenOrder(v["exchangeSymbol"], v["id"], v["conditional"]) for v in orders]

    def left_out(self, structure: str, listed: Iterable[Draft], asked_at: int) -> list[Draft]:
        """Return balances of zero, or flat positions, for what an answer that lists all of them does not list.

        Args:
            structure: ``balance`` or ``position``.
            listed: what the answer lists.
            asked_at: when it was asked, microseconds of the exchange's time. What changed since then stays.
        """
        names = {identity(draft) for draft in listed}
        gone = [
            known.draft
            for known in self._known.values()
            if known.draft.structure == structure
            and identity(known.draft) not in names
            and not _is_nothing(known.draft)
            and known.version.time < asked_at
        ]
        return [_nothing(draft, asked_at) for draft in gone]

    def _accept_state(self, draft: Draft) -> Draft | None:
        name = (draft.structure, *identity(draft))
        known = self._known.get(name)
        version, shown = _version(draft, known), _shown(draft)
        if known is None:
            if version.finished and not self._finished.add(name, version.time):
                return None
            if name in self._finished and not version.finished:
                return None
            self._note(name, draft, version, shown, None)
            return None if draft.connection == 0 and _is_nothing(draft) else draft
        if not _is_newer(known, draft, version, shown):
            known.learn(draft, version, shown)
            return None
        if draft.structure == "order":
            draft = _with_known(draft, known.draft)
        self._note(name, draft, version, shown, known)
        return draft

    def _note(
        self,
        name: tuple[str, ...],
        draft: Draft,
        version: _Version,
        shown: tuple[Any, ...],
        before: _Known | None,
    ) -> None:
        if version.finished:
            self._finished.add(name, version.time)
            self._known.pop(name, None)
            return
        same = before is not None and before.version == version
        seen = [*before.seen, shown] if same and before is not None else [shown]
        execution = draft.values.get("sequence")
        if execution is None and before is not None:
            execution = before.execution
        settled = _is_settled(draft, version)
        self._known[name] = _Known(draft, version, shown, seen, {draft.connection}, execution, settled)


def _is_newer(known: _Known, draft: Draft, version: _Version, shown: tuple[Any, ...]) -> bool:
    """Tell whether a state is behind what is known, in the exchange's order."""
    if version < known.version or version.filled < known.version.filled:
        return False
    if draft.connection == 0:
        # The exchange may have been asked between two changes in one millisecond; asked later, it knows all of them.
        sure = version > known.version or _is_settled(draft, version)
        return sure and not _same(shown, known.shown)
    return _is_newer_event(known, draft, version, shown)


def _is_newer_event(known: _Known, draft: Draft, version: _Version, shown: tuple[Any, ...]) -> bool:
    if known.settled and version.time == known.version.time:
        return False
    repeated = any(_same(shown, one) for one in known.seen)
    execution = draft.values.get("sequence")
    if execution is not None and known.execution is not None:
        told_by_rest = repeated and version == known.version and 0 in known.told
        return bool(execution > known.execution) and not told_by_rest
    if version > known.version:
        return True
    if draft.connection in known.told:
        # A connection tells things in order, and repeats something at once if at all. So one that is as far as what is
        # known goes on from there, though it may come to a state that there was before in the same millisecond.
        return not _same(shown, known.shown)
    # Another connection may lag: only where REST told what is known does what was not seen yet count as newer.
    return 0 in known.told and not repeated


def _is_settled(draft: Draft, version: _Version) -> bool:
    return draft.connection == 0 and draft.asked_at > version.time


def _version(draft: Draft, known: _Known | None) -> _Version:
    time = draft.values["lastUpdateTimestamp"]
    if draft.structure != "order":
        return _Version(time)
    filled = draft.values.get("filled")
    if filled is None:  # rows of conditional orders do not tell
        filled = 0 if known is None else known.version.filled
    return _Version(time, filled, draft.values["status"] in FINISHED)


def _shown(draft: Draft) -> tuple[Any, ...]:
    """Return what events and REST both tell of a state; :data:`_UNTOLD` where this message does not."""
    values = draft.values
    if draft.structure == "order":
        price = values.get("price") if values.get("type") == "limit" else None
        names = ("exchangeStatus", "amount", "triggerPrice", "workingTime")
        told = (values.get(name) for name in names)
        return (*told, price, *(_told(values.get(name)) for name in ("filled", "preventedAmount")))
    if draft.structure == "balance":
        if values.get("used") is not None:
            return (values["free"], values["used"])
        return (values["total"], values.get("crossWalletBalance"))
    return (values["contracts"], values["side"], values["entryPrice"], _told(values.get("marginMode")))


def _told(value: object) -> object:
    return _UNTOLD if value is None else value


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(a == b or _UNTOLD in {a, b} for a, b in zip(one, other, strict=True))


def _with_known(draft: Draft, known: Draft) -> Draft:
    """Return an order with what it does not tell itself; when it was placed is kept from what was known first."""
    before, values = known.values, draft.values
    kept = {name: before[name] for name in _KEPT if before.get(name) is not None and values.get(name) is None}
    return draft.replaced(**kept) if kept else draft


def _is_nothing(draft: Draft) -> bool:
    """Tell whether it is a flat position or a balance of zero: what was never heard of is that as well."""
    names = {"position": ("contracts",), "balance": ("total",)}.get(draft.structure)
    return names is not None and not any(draft.values.get(name) for name in names)


def _nothing(draft: Draft, at: int) -> Draft:
    """Return the flat position, or the balance of zero, that takes the place of what is gone."""
    values = draft.values
    kept = {name: values[name] for name in ("symbol", "exchangeSymbol")}
    kept |= {"timestamp": at, "lastUpdateTimestamp": at}
    if draft.structure == "balance":
        zeros = ("free", "used", "total", "crossWalletBalance")
        kept |= {"currency": values["currency"]} | {n: 0 for n in zeros if values.get(n) is not None}
    else:
        same = ("contractSize", "hedged", "positionSide", "marginMode", "isolated", "marginAsset")
        kept |= {name: values.get(name) for name in same}
        kept |= {"contracts": 0, "side": None, "entryPrice": 0, "unrealizedPnl": 0}
    return Draft(draft.structure, kept, "snapshot", 0, at)


def _fill(draft: Draft) -> tuple[Any, ...]:
    """Return what tells a fill from others: where an account trades with itself, one trade is two fills."""
    values = draft.values
    id_ = values["id"]
    if id_ is None:
        id_ = f"allocation-{values.get('allocationId')}"
    return (values["exchangeSymbol"], id_, values["order"])
