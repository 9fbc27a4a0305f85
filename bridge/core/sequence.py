"""Puts the messages of one stream in the exchange's order, drops repeats, and names what is missing.

One sequencer per stream, shared by all connections that carry it: while two connections overlap, each event
comes twice, and one of them may be ahead. A message that comes too early is held for up to ``hold`` microseconds;
then what lies between is missing.

Decisions follow from the messages and their receive times alone, so replaying raw records decides the same:
time passes only through :meth:`accept` and :meth:`expire`, and a live bridge calls ``expire`` between messages only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from bridge.core.conversions import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.core.compile import CompiledChannel

Item = TypeVar("Item", bound="Sequenced")

_RESET_AFTER_MS = 5_000
"""An id far back with an event time this much newer than the newest one is a new series, not a repeat."""
_RESET_AFTER = 3
_BEFORE_ALL = -(1 << 63)


class Sequenced(Protocol):
    """What a sequencer needs to know of an item."""

    message: Any
    received_at: int
    event_ms: int | None
    connection_id: int
    payload: bytes


class Missing(NamedTuple):
    """Ids (or a stretch of time) that did not come.

    Attributes:
        first: first missing id; None where the stream is known by time only.
        last: last missing id.
        start_time: start of the stretch, milliseconds; None where ids tell.
        end_time: its end.
    """

    first: int | None
    last: int | None
    start_time: int | None = None
    end_time: int | None = None


class Tail(NamedTuple):
    """How far a stream has come: what its next owner needs to go on without a seam.

    Attributes:
        last: the last id; of candles the open time of the newest, milliseconds.
        event_ms: event time of the newest message, milliseconds; 0 where it is not known.
        close_time: of candles, close time of the newest, milliseconds.
        closed: of candles, whether that one is closed.
    """

    last: int
    event_ms: int = 0
    close_time: int = 0
    closed: bool = False


class Sequencer(Protocol[Item]):
    """One stream's order.

    Attributes:
        first: the first id (of candles: open time, milliseconds) of the series that goes on now; None before it,
            and where nothing can be found missing.
        began_at: when that first message was received, microseconds.
    """

    first: int | None
    began_at: int

    def resume(self, tail: Tail) -> None:
        """Go on behind what an earlier owner of the stream published."""

    @property
    def tail(self) -> Tail | None:
        """How far the stream has come; None before its first message, and where nothing can be found missing."""

    def follows(self, message: Any, event_ms: int | None, payload: bytes) -> bool:
        """Take a message if it simply follows, as nearly all do: then it alone is due. Where not, nothing changes.

        Its parts are given, as :class:`Sequenced` has them: nearly all need never be an item.
        """

    def accept(self, item: Item) -> Sequence[Item | Missing]:
        """Take a message; return what is due now, in order."""

    def expire(self, now: int) -> Sequence[Item | Missing]:
        """Return what has been held for too long at ``now`` (microseconds), with what is missing before it."""

    @property
    def deadline(self) -> int | None:
        """When :meth:`expire` has something to do, microseconds; None while nothing is held."""


class Unordered(Generic[Item]):
    """A stream with nothing to go by: everything passes."""

    deadline: int | None = None
    first: int | None = None
    began_at = 0
    tail: Tail | None = None

    def resume(self, tail: Tail) -> None:
        """Nothing can be resumed."""

    def follows(self, message: Any, event_ms: int | None, payload: bytes) -> bool:  # noqa: ARG002 - the port's
        """Whatever comes follows."""
        return True

    def accept(self, item: Item) -> Sequence[Item | Missing]:
        """Pass ``item`` on."""
        return (item,)

    def expire(self, now: int) -> Sequence[Item | Missing]:  # noqa: ARG002 - the port's
        """Nothing is ever held."""
        return ()


class Linked(Generic[Item]):
    """Each message says which id it follows: contiguous ids, spot depth (``U`` - 1), futures depth (``pu``)."""

    __slots__ = (
        "_event_ms",
        "_far_back",
        "_held",
        "_hold",
        "_last",
        "_link",
        "began_at",
        "deadline",
        "first",
    )

    def __init__(self, link: Callable[[Any], tuple[int, int]], hold: int) -> None:
        self._link, self._hold = link, hold
        self.first: int | None = None
        self.began_at = 0
        self._last: int | None = None
        self._held: dict[int, tuple[int, Item]] = {}  # last id -> (previous id, item)
        self._event_ms = 0
        self._far_back = 0
        self.deadline: int | None = None

    def resume(self, tail: Tail) -> None:
        """Go on behind what an earlier owner of the stream published."""
        self._last, self._event_ms = tail.last, tail.event_ms

    @property
    def tail(self) -> Tail | None:
        """How far the stream has come."""
        return None if self._last is None else Tail(self._last, self._event_ms)

    def follows(self, message: Any, event_ms: int | None, payload: bytes) -> bool:  # noqa: ARG002 - the port's
        """Take a message whose previous id is the last one."""
        previous, last = self._link(message)
        if previous != self._last or self._held:
            return False
        self._last = last
        if event_ms is not None:
            self._event_ms = event_ms
        return True

    def accept(self, item: Item) -> Sequence[Item | Missing]:
        """Take a message; return what is due now, in order."""
        previous, last = self._link(item.message)
        due: list[Item | Missing] = []
        if self.deadline is not None and item.received_at > self.deadline:
            due += self.expire(item.received_at)
        if self._last is None:
            self.first, self.began_at = previous + 1, item.received_at
            due.append(self._pass(last, item))
        elif last <= self._last:
            if self._is_new_series(item):
                due += self.expire(1 << 62)
                self.first, self.began_at = previous + 1, item.received_at
                due.append(self._pass(last, item))
        elif previous <= self._last:
            due.append(self._pass(last, item))
            due += self._released()
        elif last not in self._held:
            self._held[last] = (previous, item)
            if self.deadline is None:
                self.deadline = item.received_at + self._hold
        return due

    def expire(self, now: int) -> Sequence[Item | Missing]:
        """Release what has been held too long, with the ids missing before it."""
        due: list[Item | Missing] = []
        while self.deadline is not None and now > self.deadline:
            first = min(self._held)
            previous, item = self._held.pop(first)
            assert self._last is not None
            due.append(Missing(self._last + 1, previous))
            due.append(self._pass(first, item))
            due += self._released()
        return due

    def _pass(self, last: int, item: Item) -> Item:
        self._last = last
        self._far_back = 0
        if item.event_ms is not None:
            self._event_ms = item.event_ms
        return item

    def _released(self) -> list[Item]:
        """Return the held messages that follow now, in order; set the deadline of the rest."""
        due: list[Item] = []
        for last in sorted(self._held):
            previous, item = self._held[last]
            assert self._last is not None
            if last <= self._last:
                del self._held[last]
            elif previous <= self._last:
                del self._held[last]
                due.append(self._pass(last, item))
            else:
                break
        self.deadline = (
            min(i.received_at for _, i in self._held.values()) + self._hold if self._held else None
        )
        return due

    def _is_new_series(self, item: Item) -> bool:
        """Whether the exchange began to count anew: ids far back, yet clearly newer events, several times."""
        if item.event_ms is None or item.event_ms < self._event_ms + _RESET_AFTER_MS:
            return False
        self._far_back += 1
        return self._far_back >= _RESET_AFTER


class Candle(Generic[Item]):
    """Open times follow each other; each candle closes once."""

    __slots__ = ("_candle", "_close_time", "_closed", "_event_ms", "_newest", "began_at", "deadline", "first")

    def __init__(self, candle: Callable[[Any], tuple[int, int, bool]]) -> None:
        self._candle = candle
        self.first: int | None = None
        self.began_at = 0
        self._newest: int | None = None
        self._close_time = 0
        self._closed = False
        self._event_ms = 0
        self.deadline: int | None = None

    def resume(self, tail: Tail) -> None:
        """Go on behind what an earlier owner of the stream published."""
        self._newest, self._event_ms, self._close_time, self._closed = tail

    @property
    def tail(self) -> Tail | None:
        """How far the stream has come."""
        if self._newest is None:
            return None
        return Tail(self._newest, self._event_ms, self._close_time, self._closed)

    def follows(self, message: Any, event_ms: int | None, payload: bytes) -> bool:  # noqa: ARG002 - the port's
        """Leave all to :meth:`accept`: there are few candles."""
        return False

    def accept(self, item: Item) -> Sequence[Item | Missing]:
        """Take a message; return it unless it was seen, with the stretch of candles missing before it."""
        began, ended, closed = self._candle(item.message)
        # Spot's may come in microseconds; candles begin and end with milliseconds all the same.
        open_time, close_time = milliseconds(began), milliseconds(ended)
        event_ms = item.event_ms or 0
        due: list[Item | Missing] = []
        if self._newest is not None:
            if open_time < self._newest or (
                open_time == self._newest and (self._closed or event_ms < self._event_ms)
            ):
                return ()
            if open_time == self._newest and event_ms == self._event_ms and not closed:
                return ()
            expected = self._close_time + 1 if self._closed else self._newest
            if open_time > self._newest and open_time > expected:
                due.append(Missing(None, None, expected, open_time - 1))
        else:
            self.first, self.began_at = open_time, item.received_at
        self._newest, self._close_time, self._closed, self._event_ms = open_time, close_time, closed, event_ms
        due.append(item)
        return due

    def expire(self, now: int) -> Sequence[Item | Missing]:  # noqa: ARG002 - the port's
        """Nothing is ever held."""
        return ()


class Newest(Generic[Item]):
    """A value that never goes back (update id, event time): what is older, or the very same again, is dropped.

    Equal values are common within one connection (two changes in a millisecond); the same bytes again are a repeat.
    While two connections overlap, the one that is behind is dropped message by message.
    """

    __slots__ = ("_key", "_payload", "_payloads", "_value", "deadline")

    first: int | None = None
    began_at = 0
    tail: Tail | None = None

    def __init__(self, key: Callable[[Any], int | None]) -> None:
        self._key = key
        self._value = _BEFORE_ALL
        self._payload = b""  # the first of that value
        self._payloads: set[bytes] = set()  # the others
        self.deadline: int | None = None

    def resume(self, tail: Tail) -> None:
        """Nothing need be: what comes next is newer."""

    def follows(self, message: Any, event_ms: int | None, payload: bytes) -> bool:  # noqa: ARG002 - the port's
        """Take a message whose value is higher than any before."""
        value = self._key(message)
        if value is None:
            return True
        if value <= self._value:
            return False
        self._value, self._payload = value, payload
        if self._payloads:
            self._payloads = set()
        return True

    def accept(self, item: Item) -> Sequence[Item | Missing]:
        """Take a message; return it unless it is old."""
        if self.follows(item.message, item.event_ms, item.payload):
            return (item,)
        value = self._key(item.message)
        if value != self._value or item.payload == self._payload or item.payload in self._payloads:
            return ()
        self._payloads.add(item.payload)
        return (item,)

    def expire(self, now: int) -> Sequence[Item | Missing]:  # noqa: ARG002 - the port's
        """Nothing is ever held."""
        return ()


def sequencer(compiled: CompiledChannel, hold: int) -> Sequencer[Any]:
    """Return the sequencer a channel declares; ``hold`` is in microseconds."""
    if compiled.link is not None:
        return Linked(compiled.link, hold)
    if compiled.candle is not None:
        return Candle(compiled.candle)
    if compiled.newest is not None:
        return Newest(compiled.newest)
    return Unordered()
