"""How far the exchange's clock is from ours, from questions for its time. Pure.

The answer's time lies somewhere between our question and our hearing the answer, so half of the way there and back is
the most the estimate can be off: of several samples the quickest is the best. Between measurements time goes on by the
monotonic clock, so a wall clock that steps doesn't matter.
"""

from __future__ import annotations

from typing import NamedTuple


class Sample(NamedTuple):
    """One question for the exchange's time.

    Attributes:
        asked_at: monotonic seconds.
        heard_at: monotonic seconds.
        server_ms: what the exchange said, milliseconds since the epoch.
    """

    asked_at: float
    heard_at: float
    server_ms: int


class ExchangeTime(NamedTuple):
    """The exchange's time at a moment of the monotonic clock.

    Attributes:
        at: monotonic seconds of the measurement.
        micros: the exchange's time then, microseconds since the epoch.
        uncertainty: seconds it may be off at most.
    """

    at: float
    micros: int
    uncertainty: float

    def now_micros(self, monotonic: float) -> int:
        """Return the exchange's time at a moment of the monotonic clock."""
        return self.micros + int((monotonic - self.at) * 1_000_000)

    def least_micros(self, monotonic: float) -> int:
        """Return what the exchange's time is at least at a moment of the monotonic clock."""
        return self.now_micros(monotonic) - int(self.uncertainty * 1_000_000)


def measured(samples: list[Sample]) -> ExchangeTime:
    """Return the exchange's time from at least one sample."""
    best = min(samples, key=lambda sample: sample.heard_at - sample.asked_at)
    half = (best.heard_at - best.asked_at) / 2
    return ExchangeTime(best.asked_at + half, best.server_ms * 1000, half)
