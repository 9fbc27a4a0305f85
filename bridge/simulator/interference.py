"""Faults that touch single events on their way out: duplicate, reorder, skip, mute."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bridge.simulator.faults import ALL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.model import Market
    from bridge.simulator.exchange import Emission
    from bridge.simulator.faults import Fault


class _Armed:
    """A fault that waits for its events."""

    __slots__ = ("ends", "fault", "left", "only")

    def __init__(self, fault: Fault, ends: float, only: tuple[Market, str] | None) -> None:
        self.fault, self.ends, self.only = fault, ends, only
        self.left = ALL if fault.fault == "mute" else fault.count

    def concerns(self, emission: Emission) -> bool:
        if self.only is not None:
            return (emission.market, emission.stream) == self.only
        return self.fault.concerns(emission.market, emission.stream)


class _Held(NamedTuple):
    emission: Emission
    until: float


class Interference:
    """Decides for each event what goes out: nothing, itself, itself twice, or itself after its successor.

    Attributes:
        active: whether anything is armed or held; while not, events pass without being asked about.
    """

    def __init__(self, touched: Callable[[Fault, int], None]) -> None:
        self._touched = touched
        self._armed: list[_Armed] = []
        self._held: dict[tuple[Market, str], _Held] = {}
        self.active = False

    def arm(self, fault: Fault, now: float, only: tuple[Market, str] | None = None) -> None:
        """Let ``fault`` wait for its events; with ``only``, for those of one stream (a mute of one)."""
        ends = now + fault.seconds if fault.fault == "mute" else float("inf")
        self._armed.append(_Armed(fault, ends, only))
        self.active = True

    def apply(self, emission: Emission, number: int, now: float) -> Sequence[Emission]:
        """Return what to send for event ``number`` of the ground truth."""
        key = (emission.market, emission.stream)
        if key in self._held:
            return (emission, self._held.pop(key).emission)
        armed = next((a for a in self._armed if a.ends > now and a.concerns(emission)), None)
        if armed is None:
            return (emission,)
        armed.left -= 1
        if armed.left <= 0:
            self._armed.remove(armed)
        self._touched(armed.fault, number)
        match armed.fault.fault:
            case "duplicate":
                return (emission, emission)
            case "reorder":
                self._held[key] = _Held(emission, now + armed.fault.seconds)
                return ()
            case _:
                return ()

    def overdue(self, now: float) -> list[Emission]:
        """Return held events whose successor did not come in time, and forget faults that are over."""
        late = [key for key, held in self._held.items() if held.until <= now]
        released = [self._held.pop(key).emission for key in late]
        self._armed = [armed for armed in self._armed if armed.ends > now]
        self.active = bool(self._armed or self._held)
        return released
