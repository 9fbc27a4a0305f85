"""Who owns which shard: each member about as many as any other, and as few moves as that allows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Claim(NamedTuple):
    """The shards that a member owned last, and the generation of the group in which it did."""

    generation: int = -1
    shards: frozenset[int] = frozenset()


def share_out(shards: int, claims: Mapping[str, Claim]) -> dict[str, frozenset[int]]:
    """Return the shards of each member.

    Every shard has one owner, and no member has two more than another. A member keeps what it claims as far as
    its share goes; a shard that several claim is whose claim is the newest.

    Args:
        shards: how many there are; they are numbered from 0.
        claims: every member, with what it owned last.
    """
    if not claims:
        return {}
    kept = _undisputed(shards, claims)
    share, extra = divmod(shards, len(claims))
    # Those with most to keep have the larger shares: else a shard would move for nothing.
    order = sorted(claims, key=lambda member: (-len(kept[member]), member))
    sizes = {member: share + (place < extra) for place, member in enumerate(order)}
    owned = {member: set(sorted(kept[member])[: sizes[member]]) for member in order}
    free = iter(sorted(set(range(shards)).difference(*owned.values())))
    for member in order:
        while len(owned[member]) < sizes[member]:
            owned[member].add(next(free))
    return {member: frozenset(mine) for member, mine in owned.items()}


def _undisputed(shards: int, claims: Mapping[str, Claim]) -> dict[str, set[int]]:
    kept: dict[str, set[int]] = {member: set() for member in claims}
    taken: set[int] = set()
    newest_first: Iterable[str] = sorted(claims, key=lambda member: (-claims[member].generation, member))
    for member in newest_first:
        kept[member] = {shard for shard in claims[member].shards - taken if 0 <= shard < shards}
        taken |= kept[member]
    return kept
