"""Is each stream of a connection alive? Pure.

An acknowledgement is no proof: a wrong futures path, an upper-case or unknown symbol is acknowledged and then
says nothing. Silence is no proof either: markets sleep. So a stream that is silent for longer than it should
be is only *suspect*; the verdict needs REST to show that the market moved while the stream did not:

1. silent beyond its deadline: :class:`Ask` REST for the market's *marker*, an id or time that moves with it;
2. a second marker, later, that differs from the first proves movement;
3. still no frame a grace later: :class:`Silent` (subscribe again); the same once more: :class:`Deaf`.

Where another connection carries the same streams (redundancy), it answers sooner than REST and for nothing: frames
that came there, ``other_leg_seconds`` apart, while none came here, prove movement too. Two are asked for, because a
single one may have been here a moment before it was there.

How long is too long comes from the stream's first-frame deadline, then from its promised cadence, or, where
frames come with events only, from the silences it used to have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bridge.core.connection_settings import ConnectionSettings
    from bridge.model import Stream, StreamState

#: What REST says of a market: equal markers mean nothing happened between two looks.
Marker = int | str


class Ask(NamedTuple):
    """REST should be asked for the stream's marker."""

    stream: Stream


Proof = Literal["the market moved", "the other leg had frames"]
MARKET_MOVED: Final = "the market moved"
OTHER_LEG: Final = "the other leg had frames"


class Silent(NamedTuple):
    """The market moved, the stream did not: subscribe it again."""

    stream: Stream
    seconds: float
    proof: Proof = MARKET_MOVED


class Deaf(NamedTuple):
    """Silent again after it was subscribed again: the connection should be replaced."""

    stream: Stream
    seconds: float
    proof: Proof = MARKET_MOVED


Finding = Ask | Silent | Deaf


class Silences:
    """How long a stream's silences usually are: a decaying histogram over powers of two of a second."""

    __slots__ = ("_counts", "_total")

    _ENOUGH = 20
    _MANY = 4096

    def __init__(self) -> None:
        self._counts = [0] * 20  # up to 2^18 s, three days
        self._total = 0

    def note(self, seconds: float) -> None:
        """Count a silence that ended."""
        slot = 0 if seconds <= 0.5 else min(len(self._counts) - 1, math.ceil(math.log2(seconds)) + 1)
        self._counts[slot] += 1
        self._total += 1
        if self._total >= self._MANY:
            self._counts = [count // 2 for count in self._counts]
            self._total = sum(self._counts)

    def usual(self) -> float | None:
        """Return a length that 99 % of the silences stayed under, or None before enough were seen."""
        if self._total < self._ENOUGH:
            return None
        beyond = self._total * 0.01
        for slot in range(len(self._counts) - 1, -1, -1):
            beyond -= self._counts[slot]
            if beyond < 0:
                return float(2.0 ** (slot - 1))
        return None


@dataclass(slots=True)
class _Watch:
    state: StreamState
    seen_at: float
    frames: int
    flowing: bool = False
    subscribed_again: bool = False
    asking: bool = False
    next_ask_at: float = 0.0
    ask_after: float = 0.0
    marker: Marker | None = None
    moved_at: float | None = None
    proof: Proof = MARKET_MOVED
    other_at: int = 0  # the newest frame of ours, or of the other leg's when ours was acknowledged
    ahead_at: int = 0  # the first of the other leg's after that; 0 while there is none
    silences: Silences = field(default_factory=Silences)


class Liveness:
    """Watches the streams of one connection. ``now`` is monotonic seconds throughout.

    Args:
        settings: the factors and times.
        patience: streams that stayed deaf over earlier connections, by name, with how often: their
            first-frame deadline is doubled that many times, so that a stream that never speaks costs ever
            less.
        others: when (microseconds since the epoch) the newest frame of a stream, by name, came on the other leg,
            0 for never; None where no other leg carries the streams.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        patience: Mapping[str, int] | None = None,
        others: Callable[[str], int] | None = None,
    ) -> None:
        self._settings = settings
        self._patience = patience or {}
        self._others = others
        self._watches: dict[str, _Watch] = {}
        self._asking = 0

    def acknowledged(self, now: float, state: StreamState) -> None:
        """Start (or start again, after another SUBSCRIBE) the first-frame deadline of a stream."""
        name = state.stream.name
        known = self._watches.get(name)
        if known is None:
            known = self._watches[name] = _Watch(state, now, state.frames)
        else:
            known.seen_at, known.frames, known.flowing = now, state.frames, False
            self._calm(known)
        if self._others is not None:
            known.other_at, known.ahead_at = self._others(name), 0

    def forget(self, name: str) -> None:
        """Stop watching a stream: it was unsubscribed."""
        watch = self._watches.pop(name, None)
        if watch is not None and watch.asking:
            self._asking -= 1

    def names(self) -> Iterable[str]:
        """Return the names of the streams watched."""
        return self._watches.keys()

    def unproven(self) -> tuple[str, ...]:
        """Return the streams of which no frame has come yet on this connection."""
        return tuple(name for name, watch in self._watches.items() if not watch.state.frames)

    def tick(self, now: float) -> list[Finding]:
        """Look at every stream; at most ``market_looks`` questions are open at once."""
        findings: list[Finding] = []
        for watch in self._watches.values():
            if watch.state.frames != watch.frames:
                self._frames_came(now, watch)
                continue
            silent = now - watch.seen_at
            if watch.moved_at is None and self._others is not None:
                self._compare(now, watch, self._others)
            if watch.moved_at is not None:
                if now - watch.moved_at >= self._settings.market_grace_seconds:
                    findings.append(self._verdict(watch, silent))
            elif silent <= self._allowed(watch):
                continue
            elif not watch.asking and now >= watch.next_ask_at and self._asking < self._settings.market_looks:
                watch.asking = True
                self._asking += 1
                findings.append(Ask(watch.state.stream))
        return findings

    def answered(self, now: float, name: str, marker: Marker | None) -> None:
        """Take REST's answer to an :class:`Ask`; None where REST could not say."""
        watch = self._watches.get(name)
        if watch is None or not watch.asking:
            return
        watch.asking = False
        self._asking -= 1
        settings = self._settings
        if marker is not None and watch.marker is not None and marker != watch.marker:
            watch.moved_at = now
        if watch.marker is None:
            watch.marker = marker
        watch.ask_after = min(
            settings.market_look_maximum_seconds,
            watch.ask_after * 2 if watch.ask_after else settings.market_look_seconds,
        )
        watch.next_ask_at = now + watch.ask_after

    def _compare(self, now: float, watch: _Watch, others: Callable[[str], int]) -> None:
        """Take the other leg's frames for a proof, once they are far enough apart and later than ours."""
        if watch.next_ask_at == math.inf:
            return
        other_at = others(watch.state.stream.name)
        if other_at <= watch.other_at:
            return
        if not watch.ahead_at:
            watch.ahead_at = other_at
        elif other_at - watch.ahead_at >= self._settings.other_leg_seconds * self._doubled(watch) * 1_000_000:
            watch.moved_at, watch.proof = now, OTHER_LEG

    def _frames_came(self, now: float, watch: _Watch) -> None:
        if watch.flowing:
            watch.silences.note(now - watch.seen_at)
        watch.frames, watch.seen_at, watch.flowing, watch.subscribed_again = (
            watch.state.frames,
            now,
            True,
            False,
        )
        watch.other_at, watch.ahead_at = watch.state.last_received_at, 0
        if watch.marker is not None or watch.asking or watch.ask_after or watch.moved_at is not None:
            self._calm(watch)

    def _calm(self, watch: _Watch) -> None:
        if watch.asking:
            watch.asking = False
            self._asking -= 1
        watch.marker, watch.moved_at, watch.ask_after, watch.next_ask_at = None, None, 0.0, 0.0
        watch.proof = MARKET_MOVED

    def _verdict(self, watch: _Watch, silent: float) -> Finding:
        stream, proof = watch.state.stream, watch.proof
        self._calm(watch)
        # Until the new acknowledgement (or the next connection) comes, nothing more is said of this stream.
        watch.next_ask_at = math.inf
        if watch.subscribed_again:
            return Deaf(stream, silent, proof)
        watch.subscribed_again = True
        return Silent(stream, silent, proof)

    def _allowed(self, watch: _Watch) -> float:
        stream, settings = watch.state.stream, self._settings
        if not watch.flowing:
            return stream.first_frame_seconds * self._doubled(watch)
        if stream.cadence_seconds is not None:
            return stream.cadence_seconds * settings.cadence_factor + settings.cadence_margin_seconds
        usual = watch.silences.usual()
        if usual is None:
            return max(stream.first_frame_seconds, settings.learned_minimum_seconds)
        return max(usual * settings.learned_factor, settings.learned_minimum_seconds)

    def _doubled(self, watch: _Watch) -> int:
        """How many times its patience a stream gets that stayed deaf over earlier connections."""
        if watch.flowing:
            return 1
        before = self._patience.get(watch.state.stream.name, 0)
        return min(1 << min(before, 32), self._settings.deaf_patience_maximum)
