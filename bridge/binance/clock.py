"""The clocks that the shells take; tests pass their own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def _micros() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Clock:
    """Two clocks: timers never follow the wall, stamps always do.

    Attributes:
        monotonic: seconds; never steps back.
        micros: microseconds since the epoch.
    """

    monotonic: Callable[[], float] = time.monotonic
    micros: Callable[[], int] = _micros
