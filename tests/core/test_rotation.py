"""When connections are replaced for their age."""

import random

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.rotation import lifetime

DAY = 82_800.0


def test_a_lone_pool_counts_from_the_opening():
    """Without another leg a connection lives its age less the jitter, whenever it opened."""
    assert lifetime(DAY, 100.0, elapsed=12_345.0) == DAY - 100.0
    assert lifetime(10.0, 20.0) == 0.0


def test_the_first_connections_of_two_legs_rotate_half_an_age_apart():
    """Both opened at the start: the first leg's lives an age, the second's half of one."""
    assert lifetime(DAY, 0.0, 0.0, 0.0) == DAY
    assert lifetime(DAY, 0.0, 0.0, 0.5) == DAY / 2


@given(elapsed=st.floats(0, 10 * DAY), phase=st.sampled_from([0.0, 0.5]), jitter=st.floats(0, 0.02 * DAY))
def test_no_connection_lives_longer_than_its_age_nor_hardly_at_all(elapsed, phase, jitter):
    """Whenever it opens, a connection is rotated within an age, and not at once."""
    assert 0.05 * DAY <= lifetime(DAY, jitter, elapsed, phase) <= DAY


@given(seed=st.integers(0, 1000))
def test_legs_stay_apart_although_their_connections_break(seed):
    """Over twenty ages with random breaks, no rotation of one leg is near one of the other's."""
    draw = random.Random(seed)
    rotations = {phase: [] for phase in (0.0, 0.5)}
    for phase, times in rotations.items():
        now = 0.0
        while now < 20 * DAY:
            life = lifetime(DAY, draw.random() * 0.02 * DAY, now, phase)
            broken = draw.random() < 0.5
            if not broken:
                times.append(now + life)
            now += life * draw.random() if broken else life
    for one in rotations[0.0]:
        assert all(abs(one - other) > 0.1 * DAY for other in rotations[0.5])
