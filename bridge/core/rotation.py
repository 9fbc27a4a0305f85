"""When a connection is replaced for its age. Pure.

Two legs that carry the same streams should not both be young, or both be at their end: their rotations are kept
half an age apart, however often connections break in between.
"""

from __future__ import annotations

_SHORTEST = 0.1
_SHORT = 0.25


def lifetime(age: float, jitter: float, elapsed: float = 0.0, phase: float | None = None) -> float:
    """Return after how many seconds a connection that opens now asks to be rotated.

    Args:
        age: most seconds a connection lives.
        jitter: seconds to take off, drawn by the caller, so that connections do not rotate together.
        elapsed: seconds since the pool began; the connection opens now.
        phase: the leg's share of an age: it rotates at ``(n + phase) * age`` after the pool began, so that 0 and
            0.5 stay apart. None counts from now, for a pool that has no other beside it.
    """
    if phase is None:
        return max(0.0, age - jitter)
    left = (phase * age - elapsed) % age or age
    if left < _SHORTEST * age:
        # Opened just before its leg's turn. Not a whole age on top, which the exchange would cut; the next one
        # is in step again, and a quarter is far from the other leg's turn.
        left = _SHORT * age
    return max(0.0, left - jitter)
