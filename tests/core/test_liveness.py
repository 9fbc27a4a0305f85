import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.connection_settings import ConnectionSettings
from bridge.core.liveness import Ask, Deaf, Liveness, Silences, Silent
from bridge.model import Stream, StreamState

SETTINGS = ConnectionSettings(market_look_seconds=3, market_grace_seconds=2, learned_minimum_seconds=30)


def watched(*, cadence=None, first=10.0, patience=None, name="btcusdt@trade"):
    """Return a liveness that watches one stream since second 0, and the stream's state."""
    stream = Stream("spot", "trade", name, "BTCUSDT", "", first, cadence)
    state, liveness = StreamState(stream), Liveness(SETTINGS, patience)
    liveness.acknowledged(0.0, state)
    return liveness, state


def run(liveness, seconds, start=0.0, market=lambda _now: 0):
    """Tick every half second, answer each question from ``market``, and return findings with their times."""
    findings, now = [], start
    while now < start + seconds:
        now += 0.5
        for finding in liveness.tick(now):
            findings.append((now, finding))
            if isinstance(finding, Ask):
                liveness.answered(now, finding.stream.name, market(now))
    return findings


def verdicts(findings):
    """Drop the questions."""
    return [(now, finding) for now, finding in findings if not isinstance(finding, Ask)]


def moving(now):
    """Answer as a market would where something happens each second."""
    return int(now)


def test_no_question_before_the_first_frame_deadline():
    """A stream has its own first-frame time after the acknowledgement before anyone looks."""
    liveness, _ = watched(first=10)
    assert run(liveness, 10) == []
    assert isinstance(run(liveness, 1, start=10)[0][1], Ask)


def test_silence_of_a_sleeping_market_is_no_fault():
    """While REST shows the same marker there is no verdict, and ever fewer questions."""
    liveness, _ = watched()
    findings = run(liveness, 3600)
    assert verdicts(findings) == []
    assert len(findings) < 20


def test_rest_that_cannot_say_is_no_verdict():
    """Without an answer from REST a silent stream stays merely suspect."""
    liveness, _ = watched()
    assert verdicts(run(liveness, 3600, market=lambda _now: None)) == []


def test_a_stream_that_never_speaks_while_its_market_moves_is_silent_then_deaf():
    """Acknowledged but silent: told within a few looks, once more after it was subscribed again."""
    liveness, state = watched(first=10)
    ((told, silent),) = verdicts(run(liveness, 60, market=moving))
    assert isinstance(silent, Silent)
    assert told < 20
    liveness.acknowledged(60, state)
    ((_, deaf),) = verdicts(run(liveness, 60, start=60, market=moving))
    assert isinstance(deaf, Deaf)


def test_nothing_more_is_said_until_the_stream_is_acknowledged_again():
    """Between the verdict and the new acknowledgement there is nothing to ask."""
    liveness, _ = watched()
    run(liveness, 30, market=moving)
    assert run(liveness, 600, start=30, market=moving) == []


def test_a_frame_in_time_acquits():
    """A frame that comes while REST is being asked ends the suspicion."""
    liveness, state = watched(first=10)
    assert [type(finding) for _, finding in run(liveness, 11, market=moving)] == [Ask]
    state.frames += 1
    assert run(liveness, 20, start=11, market=moving) == []


def test_a_frame_after_subscribing_again_starts_over():
    """A stream that recovered is silent, not deaf, the next time."""
    liveness, state = watched(first=10)
    run(liveness, 30, market=moving)
    liveness.acknowledged(30, state)
    state.frames += 1
    findings = verdicts(run(liveness, 300, start=30, market=moving))
    assert [type(finding) for _, finding in findings] == [Silent]


def test_a_promised_cadence_is_held_to():
    """A stream that promises a frame a second is suspect after three and a margin."""
    liveness, state = watched(cadence=1.0, first=60)
    now = 0.0
    for _ in range(5):
        state.frames += 1
        now += 0.5
        liveness.tick(now)
    findings = run(liveness, 10, start=now, market=moving)
    assert findings[0][0] - now <= 6


def test_usual_silences_are_learned():
    """A stream that speaks every 40 s is left alone at 100 s and asked about after eight times its usual."""
    liveness, state = watched(first=10)
    now = 0.0
    for _ in range(40):
        state.frames += 3
        liveness.tick(now)
        now += 40
    now -= 40
    assert run(liveness, 400, start=now) == []
    assert run(liveness, 200, start=now + 400) != []


def test_a_busy_stream_is_suspect_within_half_a_minute():
    """A stream that spoke at every tick is asked about at the floor of 30 s."""
    liveness, state = watched(first=10)
    for half in range(1, 200):
        state.frames += 10
        liveness.tick(half / 2)
    assert run(liveness, 30, start=99.5) == []
    assert run(liveness, 2, start=129.5) != []


def test_few_questions_are_open_at_once():
    """A hundred streams that fall silent together ask REST two at a time."""
    liveness = Liveness(SETTINGS)
    for number in range(100):
        stream = Stream("spot", "trade", f"s{number}@trade", f"S{number}", "", 10.0, None)
        liveness.acknowledged(0.0, StreamState(stream))
    first = liveness.tick(11)
    assert [type(finding) for finding in first] == [Ask, Ask]
    assert liveness.tick(12) == []
    liveness.answered(12, first[0].stream.name, 1)
    assert len(liveness.tick(12)) == 1


def test_forgetting_a_stream_under_question_frees_the_question():
    """An unsubscribed stream neither speaks nor blocks others, and its late answer is ignored."""
    liveness, _ = watched()
    (ask,) = liveness.tick(11)
    liveness.forget(ask.stream.name)
    liveness.answered(12, ask.stream.name, 5)
    assert list(liveness.names()) == []
    other = StreamState(Stream("spot", "trade", "x@trade", "X", "", 1.0, None))
    liveness.acknowledged(12, other)
    assert len(liveness.tick(14)) == 1


def test_a_stream_without_deadline_is_never_asked_about():
    """An infinite first-frame time means that only events make frames."""
    liveness, _ = watched(first=float("inf"))
    assert run(liveness, 7200, market=moving) == []


@pytest.mark.parametrize(("times", "deadline"), [(0, 10), (1, 20), (3, 80), (50, 640)])
def test_patience_grows_with_each_deaf_connection(times, deadline):
    """A stream that stayed deaf before is asked about ever later, up to 64 times its deadline."""
    liveness, state = watched(first=10, patience={"btcusdt@trade": times})
    assert liveness.tick(deadline) == []
    assert liveness.tick(deadline + 1) == [Ask(state.stream)]


def test_unproven_streams_are_those_without_a_frame():
    """What rotation waits for is the first frame of each stream."""
    liveness, state = watched()
    assert liveness.unproven() == ("btcusdt@trade",)
    state.frames = 1
    assert liveness.unproven() == ()


@given(st.lists(st.floats(0, 300_000), min_size=20, max_size=99))
def test_the_usual_silence_covers_all_of_few_and_is_at_most_twice_the_longest(silences):
    """Under a hundred samples the 99th percentile is the longest, rounded up to a power of two."""
    profile = Silences()
    for silence in silences:
        profile.note(silence)
    longest = max(silences)
    usual = profile.usual()
    assert min(longest, 2**18) <= usual <= max(0.5, 2 * longest)


def test_old_silences_fade():
    """Two nights of slow trading do not set the measure for a busy day."""
    profile = Silences()
    for _ in range(2000):
        profile.note(1000.0)
    for _ in range(60_000):
        profile.note(0.4)
    assert profile.usual() == 0.5


# Beside another leg


class Beside:
    """A stream watched on this leg, while another leg carries it too; frames are put in at whole times."""

    def __init__(self, patience=None, first=30.0):
        self.other_at = 0
        stream = Stream("spot", "trade", "btcusdt@trade", "BTCUSDT", "", first, None)
        self.state = StreamState(stream)
        self.liveness = Liveness(SETTINGS, patience, lambda _name: self.other_at)
        self.liveness.acknowledged(0.0, self.state)

    def here(self, at):
        """Let a frame come on this leg."""
        self.state.frames += 1
        self.state.last_received_at = int(at * 1e6)

    def there(self, at):
        """Let a frame come on the other leg."""
        self.other_at = int(at * 1e6)

    def run(self, until, here=(), there=(), start=0.0):
        """Tick every half second with frames at the times given; return the verdicts with their times."""
        times = sorted(
            [(at, self.here) for at in here] + [(at, self.there) for at in there], key=lambda t: t[0]
        )
        found, now = [], start
        while now < until:
            now += 0.5
            while times and times[0][0] <= now:
                at, put = times.pop(0)
                put(at)
            found += verdicts([(now, one) for one in self.liveness.tick(now)])
        return found


def test_a_stream_that_flows_there_and_not_here_is_silent_within_seconds():
    """The other leg goes on, this one stops: told in less than ten seconds, without a look at REST."""
    beside = Beside()
    busy = [second / 5 for second in range(1, 200)]
    ((told, silent),) = beside.run(40, here=[at + 0.01 for at in busy if at < 10], there=busy)
    assert (type(silent), silent.proof) == (Silent, "the other leg had frames")
    assert 15 <= told <= 18


def test_deaf_beside_the_other_leg_after_subscribing_again():
    """Subscribed again and still nothing here while the other leg has frames: the connection is replaced."""
    beside = Beside()
    ((told, _),) = beside.run(20, there=range(1, 20))
    beside.liveness.acknowledged(20, beside.state)
    ((_, deaf),) = beside.run(40, there=range(20, 40), start=20)
    assert told <= 9
    assert (type(deaf), deaf.proof) == (Deaf, "the other leg had frames")


def test_a_leg_that_is_a_little_later_is_not_deaf():
    """Rare frames that come here up to two seconds after the other leg, or before it, are no verdict."""
    beside = Beside()
    rare = [10.0 * number for number in range(1, 30)]
    late = [at + (1.4 if number % 2 else -1.4) for number, at in enumerate(rare)]
    assert beside.run(320, here=late, there=rare) == []


def test_a_burst_that_the_other_leg_held_back_is_no_verdict():
    """Frames that stalled there and come all at once, long after they came here, prove nothing."""
    beside = Beside()
    assert beside.run(29, here=[1, 2, 3], there=[20, 20.1, 20.2, 20.3]) == []


def test_an_other_leg_that_is_silent_or_gone_leaves_the_question_to_rest():
    """Without frames there, the ordinary deadline holds; its newest frame may be forgotten as well."""
    beside = Beside(first=10)
    beside.there(0.5)
    assert beside.run(8) == []
    beside.other_at = 0
    beside.run(9, start=8)
    assert [type(one) for one in beside.liveness.tick(10.5)] == [Ask]


def test_a_stream_deaf_over_many_connections_gets_more_patience_beside_the_other_leg():
    """Twice deaf: four times as long until the first frame is missed."""
    beside = Beside(patience={"btcusdt@trade": 2})
    ((told, _),) = beside.run(60, there=range(1, 60))
    assert 20 <= told <= 25


@given(
    here=st.lists(st.integers(0, 100), max_size=30),
    there=st.lists(st.integers(0, 100), max_size=30),
)
def test_a_verdict_needs_frames_there_and_none_here(here, there):
    """Whatever comes where: who is told silent had no frame for seconds, and the other leg had two."""
    beside = Beside(first=1000)
    for told, _ in beside.run(110, here=here, there=there):
        last = max((at for at in here if at <= told), default=0)
        assert told - last >= 5
        assert len({at for at in there if last < at <= told}) >= 2
