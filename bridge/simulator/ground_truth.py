"""The ground truth: JSON lines of everything the exchange did, whether or not anyone received it."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Self

import msgspec

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from bridge.simulator.accounts.registry import UserEvent
    from bridge.simulator.exchange import Emission

_FLUSH_AT = 4096


class GroundTruth:
    """Writes events, faults and connections as they happen.

    An event's line has ``n`` (counted from 0), ``at_ms``, ``market``, ``stream``, ``first_id``, ``last_id``,
    ``event_time`` and ``data`` (the payload's text). User events' lines begin with ``{"user":``, accounts' states
    with ``{"account":``, steps of a script with ``{"step":``. Fault lines begin with ``{"fault":``, connection lines
    with ``{"connection":``.

    Attributes:
        path: the file; None where nothing is written and events are only counted.
        events: how many events there were.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.events = 0
        self._lines: list[bytes] = []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self.path is not None:
            self._file = self.path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def event(self, emission: Emission, at_ms: int) -> int:
        """Write one event; return its number."""
        number = self.events
        self.events += 1
        if self._file is not None:
            self._write(
                {
                    "n": number,
                    "at_ms": at_ms,
                    "market": emission.market,
                    "stream": emission.stream,
                    "first_id": emission.first_id,
                    "last_id": emission.last_id,
                    "event_time": emission.event_time_ms,
                    "data": emission.data.decode(),
                }
            )
        return number

    def user_event(self, event: UserEvent, at_ms: int) -> None:
        """Write one event of an account."""
        if self._file is not None:
            self._write(
                {
                    "user": event.account,
                    "number": event.number,
                    "at_ms": at_ms,
                    "market": event.market,
                    "kind": event.kind,
                    "event_time": event.event_time_ms,
                    "data": event.data.decode(),
                }
            )

    def note(self, line: dict[str, object]) -> None:
        """Write a fault or connection line."""
        if self._file is not None:
            self._write(line)

    def flush(self) -> None:
        """Hand everything written so far to the file."""
        if self._file is not None and self._lines:
            self._file.write(b"".join(self._lines))
            self._file.flush()
        self._lines.clear()

    def _write(self, line: dict[str, object]) -> None:
        self._lines.append(msgspec.json.encode(line) + b"\n")
        if len(self._lines) >= _FLUSH_AT:
            self.flush()
