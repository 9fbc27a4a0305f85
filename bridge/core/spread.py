"""Which streams go on which connection, and into which SUBSCRIBE frames. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from bridge.core.connection_settings import MAX_STREAMS_PER_CONNECTION
from bridge.model import Market, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Method = Literal["SUBSCRIBE", "UNSUBSCRIBE"]

#: Ids are 64-bit; a frame is measured with the longest, so that no id can push it over its limit.
_LONGEST_ID = 2**63 - 1


class Seat(NamedTuple):
    """The place of one connection: its host and path, and its number there."""

    market: Market
    path: str
    number: int


Plan = dict[Seat, dict[str, Stream]]


def spread(current: Mapping[Seat, Mapping[str, Stream]], wanted: Iterable[Stream], limit: int) -> Plan:
    """Seat every wanted stream, moving none that sits already.

    Args:
        current: the plan in force (empty at first).
        wanted: all streams wanted from now on; a name that comes twice on one host counts once.
        limit: streams per seat; never more than the exchange's 1024.

    Returns:
        The new plan. A seat that nobody sits on is gone; newcomers go where most room is, so that seats
        opened together fill evenly.
    """
    limit = max(1, min(limit, MAX_STREAMS_PER_CONNECTION))
    asked = {(stream.market, stream.path, stream.name): stream for stream in wanted}
    plan: Plan = {}
    for seat, streams in current.items():
        kept: dict[str, Stream] = {}
        for name in streams:
            stream = asked.pop((seat.market, seat.path, name), None)
            if stream is not None:
                kept[name] = stream
        if kept:
            plan[seat] = kept
    newcomers: dict[tuple[Market, str], list[Stream]] = {}
    for stream in asked.values():
        newcomers.setdefault((stream.market, stream.path), []).append(stream)
    for (market, path), streams_there in newcomers.items():
        _seat(plan, market, path, streams_there, limit)
    return plan


def _seat(plan: Plan, market: Market, path: str, newcomers: Sequence[Stream], limit: int) -> None:
    seats = [seat for seat in plan if (seat.market, seat.path) == (market, path)]
    room = sum(max(0, limit - len(plan[seat])) for seat in seats)
    missing = -(-max(0, len(newcomers) - room) // limit)
    taken = {seat.number for seat in seats}
    free = (number for number in range(len(taken) + missing) if number not in taken)
    for _ in range(missing):
        seat = Seat(market, path, next(free))
        plan[seat] = {}
        seats.append(seat)
    for stream in newcomers:
        emptiest = min(seats, key=lambda seat: (len(plan[seat]), seat.number))
        plan[emptiest][stream.name] = stream


class Batches(NamedTuple):
    """Names in frames.

    Attributes:
        frames: the names of each frame, in order.
        oversized: names that fit no frame at all.
    """

    frames: list[tuple[str, ...]]
    oversized: tuple[str, ...]


def control_frame(method: Method, names: Sequence[str], request_id: int) -> bytes:
    """Return the JSON of one control frame. Names go as raw UTF-8: all hosts accept and echo it."""
    return msgspec.json.encode({"method": method, "params": list(names), "id": request_id})


def batches(method: Method, names: Iterable[str], max_names: int, max_bytes: int) -> Batches:
    """Divide ``names``, in order, into frames of at most ``max_names`` names and ``max_bytes`` bytes each."""
    empty = len(control_frame(method, (), _LONGEST_ID))
    frames: list[tuple[str, ...]] = []
    oversized: list[str] = []
    batch: list[str] = []
    size = empty
    for name in names:
        cost = len(msgspec.json.encode(name)) + 1  # the comma
        if empty + cost > max_bytes:
            oversized.append(name)
            continue
        if batch and (len(batch) >= max_names or size + cost > max_bytes):
            frames.append(tuple(batch))
            batch, size = [], empty
        batch.append(name)
        size += cost
    if batch:
        frames.append(tuple(batch))
    return Batches(frames, tuple(oversized))
