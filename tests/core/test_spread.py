from hypothesis import given
from hypothesis import strategies as st

from bridge.core.spread import Seat, batches, control_frame, spread
from bridge.model import Stream


def stream(name, market="spot", path=""):
    """Return a stream of that name."""
    return Stream(market, "trade", name, name.split("@")[0].upper(), path, 10.0, None)


NAMES = st.text('abc币😀"\\/é', min_size=1, max_size=12)
STREAMS = st.lists(
    st.builds(
        stream,
        NAMES,
        market=st.sampled_from(["spot", "usdm"]),
        path=st.sampled_from(["", "public", "market"]),
    ),
    max_size=60,
)


def key(one):
    """Return what tells a stream from others."""
    return one.market, one.path, one.name


def seated(plan):
    """Return what sits anywhere."""
    return sorted((seat.market, seat.path, name) for seat, streams in plan.items() for name in streams)


@given(STREAMS, STREAMS, st.integers(1, 7))
def test_each_wanted_stream_sits_once_where_its_host_and_path_are_and_no_seat_is_overfull(
    before, wanted, limit
):
    """Whatever was seated before, the plan holds exactly what is wanted, within the limit."""
    plan = spread(spread({}, before, limit), wanted, limit)
    assert seated(plan) == sorted({key(one) for one in wanted})
    assert all(0 < len(streams) <= limit for streams in plan.values())
    for seat, streams in plan.items():
        assert all((seat.market, seat.path) == (one.market, one.path) for one in streams.values())


@given(STREAMS, STREAMS, st.integers(1, 7))
def test_a_stream_that_stays_wanted_stays_where_it_sits(before, wanted, limit):
    """No stream moves because others come or go."""
    first = spread({}, before, limit)
    second = spread(first, wanted, limit)
    kept = {key(one) for one in before} & {key(one) for one in wanted}
    where = {
        (seat.market, seat.path, name): seat.number for seat, streams in second.items() for name in streams
    }
    for seat, streams in first.items():
        for name in streams:
            place = (seat.market, seat.path, name)
            if place in kept:
                assert where[place] == seat.number


def test_streams_spread_evenly_over_as_few_connections_as_the_limit_allows():
    """450 streams at 200 each make three connections of 150."""
    plan = spread({}, [stream(f"s{n}@trade") for n in range(450)], 200)
    assert [len(streams) for streams in plan.values()] == [150, 150, 150]


def test_usdm_paths_never_share_a_connection():
    """A stream asked for on the wrong futures path is acknowledged and silent, so paths are kept apart."""
    plan = spread({}, [stream("a@depth", "usdm", "public"), stream("a@aggTrade", "usdm", "market")], 200)
    assert set(plan) == {Seat("usdm", "public", 0), Seat("usdm", "market", 0)}


def test_the_limit_never_passes_what_the_exchange_allows():
    """A configured 5000 is held to 1024 streams a connection."""
    plan = spread({}, [stream(f"s{n}@trade") for n in range(1025)], 5000)
    assert max(len(streams) for streams in plan.values()) <= 1024


@given(st.lists(NAMES, max_size=80), st.integers(1, 9), st.integers(90, 200))
def test_frames_keep_every_name_in_order_within_both_limits(names, max_names, max_bytes):
    """Names come out once each, in order; no frame is too long in names or in UTF-8 bytes."""
    frames, oversized = batches("UNSUBSCRIBE", names, max_names, max_bytes)
    assert [name for frame in frames for name in frame] == [name for name in names if name not in oversized]
    assert all(0 < len(frame) <= max_names for frame in frames)
    assert all(len(control_frame("UNSUBSCRIBE", frame, 2**63 - 1)) <= max_bytes for frame in frames)


def test_a_name_that_fits_no_frame_is_handed_back():
    """A 10 kB symbol is told apart, and its neighbours are subscribed all the same."""
    frames, oversized = batches("SUBSCRIBE", ["a@trade", "x" * 10_000, "b@trade"], 100, 3_500)
    assert (frames, oversized) == ([("a@trade", "b@trade")], ("x" * 10_000,))


def test_frames_carry_names_as_raw_utf8():
    """Non-ASCII symbols go unescaped, as both hosts echo them."""
    assert control_frame("SUBSCRIBE", ["币安人生usdt@trade"], 7) == (
        '{"method":"SUBSCRIBE","params":["币安人生usdt@trade"],"id":7}'.encode()
    )
