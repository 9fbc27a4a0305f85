"""Faults that touch single user events on their way out: lost, sent twice, or held for a while."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.simulator.accounts.registry import UserEvent
    from bridge.simulator.faults import Fault


class _Armed:
    """A fault that waits for its events, or lasts."""

    __slots__ = ("ends", "fault", "left")

    def __init__(self, fault: Fault, ends: float) -> None:
        self.fault, self.ends, self.left = fault, ends, fault.count

    def concerns(self, event: UserEvent) -> bool:
        return (
            self.fault.market in (None, event.market)
            and fnmatchcase(event.account, self.fault.account)
            and fnmatchcase(event.kind, self.fault.event)
        )


class _Held(NamedTuple):
    event: UserEvent
    until: float


class UserFaults:
    """Decides what goes out of each user event.

    Args:
        touched: told of each event that a fault touched, with the event's number.
    """

    def __init__(self, touched: Callable[[Fault, int], None]) -> None:
        self._touched = touched
        self._armed: list[_Armed] = []
        self._held: list[_Held] = []

    def arm(self, fault: Fault, now: float) -> None:
        """Let ``fault`` wait for its events; a stall begins at once."""
        ends = now + fault.seconds if fault.fault == "stall-user-events" else float("inf")
        self._armed.append(_Armed(fault, ends))

    def apply(self, event: UserEvent, now: float) -> tuple[UserEvent, ...]:
        """Return what to send in place of an event."""
        armed = next((a for a in self._armed if a.ends > now and a.concerns(event)), None)
        if armed is None:
            # what was held goes first, so that an account's events keep their order
            waits = max((h.until for h in self._held if h.event.account == event.account), default=0.0)
            if waits > now:
                self._held.append(_Held(event, waits))
                return ()
            return (event,)
        self._touched(armed.fault, event.number)
        if armed.fault.fault == "stall-user-events":
            self._held.append(_Held(event, armed.ends))
            return ()
        armed.left -= 1
        if armed.left <= 0:
            self._armed.remove(armed)
        return (event, event) if armed.fault.fault == "duplicate-user-events" else ()

    def overdue(self, now: float) -> list[UserEvent]:
        """Return held events whose time has come, in order, and forget faults that are over."""
        if not self._armed and not self._held:
            return []
        due = [held.event for held in self._held if held.until <= now]
        self._held = [held for held in self._held if held.until > now]
        self._armed = [armed for armed in self._armed if armed.ends > now]
        return due
