"""The port between the SDK and where records come from: a Kafka cluster, or a list in a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bridge.model import Fetched

__all__ = ["CaughtUp", "Fetched", "Reading", "Request", "Source"]

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from bridge.sdk.times import When


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """History has met live: what follows was written after the reading began.

    Attributes:
        at: milliseconds since the epoch when it was noticed.
    """

    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to read.

    Attributes:
        topics: the topics; all must exist.
        keys: the record keys wanted; only partitions that can hold them are read. None means all. The owner may
            add keys later that lie in the partitions read already.
        start: from when on, or None for live from now.
        end: up to when (exclusive), ``"now"`` for what is there already, or None for going on live.
        late: milliseconds: how much later than its own time a record may have been written and still be found
            by a reading that has an end. What a gap's backfill brings comes late. None searches everything.
    """

    topics: tuple[str, ...]
    keys: AbstractSet[bytes] | None = None
    start: When | None = None
    end: When | None = None
    late: int | None = 3_600_000


class Reading(Protocol):
    """One reading under way."""

    async def open(self) -> None:
        """Fix where to read from; what is written after is read.

        Where it raises, nothing is left open, and it can be tried again.

        Raises:
            TopicMismatch: a topic does not exist.
            KafkaUnavailable: no broker answers.
        """

    async def fetch(self) -> Sequence[Fetched | CaughtUp]:
        """Wait for records and return them, each key's in order; none at all means that the end is there."""

    async def close(self) -> None:
        """Let go of everything."""


class Source(Protocol):
    """Where a client's records come from."""

    def read(self, request: Request) -> Reading:
        """Return a reading, not yet open."""

    async def partition(self, topic: str, key: bytes) -> int:
        """Return the partition of a key.

        Raises:
            TopicMismatch: the topic does not exist.
            KafkaUnavailable: no broker answers.
        """

    async def close(self) -> None:
        """Let go of everything."""
