"""Where what is derived again goes: the wanted lanes, or nowhere while a resumed run catches up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.schema import encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bridge.catalogue import TopicNames
    from bridge.core.notices import Notice
    from bridge.core.schema import Schema
    from bridge.model import Header, Lane, Publisher


class Output:
    """The topics of a replay.

    Args:
        schemas: the schemas.
        names: names of the topics to write to.
        publisher: where records go.
        structures: which unified structures are wanted.
        symbols: which unified or exchange symbols are wanted; None for all.

    Attributes:
        muted: while set, everything is derived but nothing is queued: how a resumed run comes to know again what
            the one before knew.
        records: how many unified records were queued.
    """

    def __init__(
        self,
        schemas: Mapping[str, Schema],
        names: TopicNames,
        publisher: Publisher,
        structures: frozenset[str],
        symbols: frozenset[str] | None,
    ) -> None:
        self._schemas, self._names, self._publisher = schemas, names, publisher
        self._structures, self._symbols = structures, symbols
        self.muted = False
        self.records = 0

    def lane(self, structure: str, key: bytes) -> Lane:
        """Return the lane of a key into the topic of a structure."""
        wanted = structure in self._structures and (self._symbols is None or key.decode() in self._symbols)
        return _OutputLane(
            self, self._publisher.lane(self._names.unified(structure), key) if wanted else None
        )

    def topic(self, structure: str) -> str:
        """Return the topic of a structure."""
        return self._names.unified(structure)

    def send(self, family: str, notice: Notice) -> None:
        """Queue a gap or a dead letter."""
        if not self.muted:
            value = encode(self._schemas[notice.structure], notice.record)
            lane = self._publisher.lane(self._names.of(family), notice.key)
            lane.append(notice.at // 1000, notice.key, value)


class _OutputLane:
    """Queues unless the output is muted."""

    __slots__ = ("_lane", "_owner")

    def __init__(self, owner: Output, lane: Lane | None) -> None:
        self._owner, self._lane = owner, lane

    def append(self, timestamp_ms: int, key: bytes, value: bytes, headers: Sequence[Header] = ()) -> None:
        if self._lane is not None and not self._owner.muted:
            self._lane.append(timestamp_ms, key, value, headers)
            self._owner.records += 1
