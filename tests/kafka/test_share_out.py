"""How shards are shared out, for any members and whatever they claim."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.kafka.share_out import Claim, share_out

SHARDS = 12
CLAIMS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.builds(Claim, st.integers(-1, 3), st.frozensets(st.integers(0, SHARDS + 2))),
    min_size=1,
    max_size=20,
)


@given(CLAIMS)
def test_every_shard_has_one_owner_and_members_have_alike(claims):
    """Each shard is given once, and no member has two more than another, whatever they claim."""
    owned = share_out(SHARDS, claims)
    assert owned.keys() == claims.keys()
    assert sorted(shard for mine in owned.values() for shard in mine) == list(range(SHARDS))
    sizes = {len(mine) for mine in owned.values()}
    assert max(sizes) - min(sizes) <= 1


@given(CLAIMS)
def test_nothing_moves_without_need(claims):
    """Sharing out again what was shared out moves nothing."""
    owned = share_out(SHARDS, claims)
    assert share_out(SHARDS, {member: Claim(1, mine) for member, mine in owned.items()}) == owned


@given(st.integers(1, 9), st.integers(1, 9))
def test_as_few_shards_move_as_can(before, after):
    """When members come or go, those that stay keep up to their share, and what nobody had is all that moves."""
    members = [f"{number}" for number in range(max(before, after))]
    owned = share_out(SHARDS, dict.fromkeys(members[:before], Claim()))
    shared = share_out(
        SHARDS, {member: Claim(1, owned.get(member, frozenset())) for member in members[:after]}
    )
    for member in members[: min(before, after)]:
        kept = len(owned[member] & shared[member])
        assert kept == min(len(owned[member]), len(shared[member]))


def test_the_newest_claim_counts():
    """A shard that two claim stays with whom the later generation gave it to."""
    stale, current = Claim(3, frozenset({0, 1})), Claim(4, frozenset({0, 1}))
    owned = share_out(4, {"a": stale, "b": current})
    assert owned == {"a": frozenset({2, 3}), "b": frozenset({0, 1})}


def test_without_members_nobody_owns_anything():
    """There is nothing to share out among nobody."""
    assert share_out(4, {}) == {}
