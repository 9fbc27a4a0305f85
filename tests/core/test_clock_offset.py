"""The exchange's time from samples of it."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.clock_offset import Sample, measured


def test_the_quickest_answer_counts_and_time_goes_on_monotonically():
    """Of several samples the one with the shortest way says the time, at the middle of it."""
    found = measured([Sample(10.0, 11.0, 5_000), Sample(12.0, 12.2, 7_000), Sample(13.0, 13.9, 7_900)])
    assert (found.at, found.micros) == (12.1, 7_000_000)
    assert abs(found.uncertainty - 0.1) < 1e-9
    assert found.now_micros(13.1) == 8_000_000


@given(
    st.floats(-100, 100),
    st.lists(st.tuples(st.floats(0.0001, 3), st.floats(0, 1)), min_size=1, max_size=5),
)
def test_the_estimate_is_never_further_off_than_it_says(offset, ways):
    """Wherever on its way the exchange looked at its clock, the estimate is within half the way (and a millisecond)."""
    samples, now = [], 1_000.0
    for way, share in ways:
        server = (now + way * share + offset) * 1000
        samples.append(Sample(now, now + way, int(server)))
        now += way + 1
    found = measured(samples)
    truth = (now + offset) * 1e6
    assert abs(found.now_micros(now) - truth) <= found.uncertainty * 1e6 + 1_002


def test_the_least_that_its_time_can_be() -> None:
    """No earlier than the estimate less half of the way there and back, and it goes on by the monotonic clock."""
    found = measured([Sample(10.0, 10.4, 1_000_000)])
    assert found.now_micros(10.2) == 1_000_000_000
    assert found.least_micros(10.2) == 999_800_000
    assert found.least_micros(11.2) == 1_000_800_000
