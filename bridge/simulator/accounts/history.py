"""The script as it runs: takes steps when they are due, and keeps count of what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.errors import ConfigError
from bridge.simulator.accounts.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.simulator.accounts.script import Script, Step


class History:
    """Steps of a script in the order they are due.

    Args:
        script: takes them.
        note: told of each step that was taken, and how it ended.

    Attributes:
        taken: how many steps were taken.
        refused: how many of them the exchange refused.
    """

    def __init__(self, script: Script, note: Callable[[dict[str, object]], None]) -> None:
        self._script, self._note = script, note
        self._due: list[tuple[int, Step]] = []
        self.taken = self.refused = 0

    @property
    def waiting(self) -> int:
        """How many steps are still to come."""
        return len(self._due)

    def add(self, steps: Iterable[Step], now_ms: int) -> None:
        """Plan steps, their times counted from ``now_ms``; those without a time are due at once."""
        self._due += [(now_ms + int((step.at or 0.0) * 1000), step) for step in steps]
        self._due.sort(key=lambda due: due[0])

    def advance(self, now_ms: int) -> None:
        """Take what is due; what is wrong or refused is noted, and the script goes on."""
        while self._due and self._due[0][0] <= now_ms:
            due_ms, step = self._due.pop(0)
            self.take(step, due_ms)

    def take(self, step: Step, now_ms: int) -> dict[str, object]:
        """Take one step now; return its line of the ground truth."""
        line: dict[str, object] = {"step": self.taken, "do": step.fields.get("do"), "at_ms": now_ms}
        if "account" in step.fields:
            line["account"] = step.fields["account"]
        self.taken += 1
        try:
            self._script.take(step.fields, now_ms)
        except Refused as refused:
            line |= {"refused": refused.code, "error": refused.message}
        except ConfigError as error:
            line |= {"error": str(error)}
        self.refused += "error" in line
        self._note(line)
        return line
