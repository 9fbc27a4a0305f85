import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.backoff import AttemptBudget, Backoff, Failure, LoginBackoff
from bridge.core.connection_settings import ConnectionSettings
from bridge.core.private_settings import PrivateSettings

SETTINGS = ConnectionSettings(retry_minimum_seconds=0.5, retry_maximum_seconds=60)


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50))
def test_waits_stay_between_the_minimum_and_a_doubling_ceiling(draws):
    """Each wait is at least the minimum and at most minimum times two to the attempt, and 60 s."""
    values = iter(draws)
    backoff = Backoff(SETTINGS, lambda: next(values))
    for attempt in range(1, len(draws) + 1):
        wait = backoff.failed()
        assert 0.5 <= wait <= min(60.0, 0.5 * 2**attempt)
        assert backoff.attempt == attempt


def test_waits_grow_to_the_maximum_and_start_again_after_reset():
    """The ceiling doubles up to 60 s; a reset begins at one second again."""
    backoff = Backoff(SETTINGS, lambda: 1.0)
    assert [backoff.failed() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    backoff.reset()
    assert backoff.failed() == 1


@pytest.mark.parametrize(
    ("failure", "least"),
    [
        (Failure(), 0.5),
        (Failure(status=503), 0.5),
        (Failure(status=429), 60),
        (Failure(status=429, retry_after=171), 171),
        (Failure(status=418), 300),
        (Failure(status=418, retry_after=7200), 7200),
        (Failure(status=403), 300),
        (Failure(status=451), 900),
        (Failure(tls=True), 120),
    ],
)
def test_what_the_host_said_sets_the_least_wait(failure, least):
    """Bans, firewalls and bad certificates are waited out; an ordinary failure is not."""
    assert Backoff(SETTINGS, lambda: 0.0).failed(failure) == least


@given(st.lists(st.floats(0, 20), max_size=400))
def test_attempts_in_any_five_minutes_stay_under_150(pauses):
    """However eagerly attempts are asked for, no 300 seconds see more than 150 of them."""
    budget = AttemptBudget(30, 0.4)
    now, starts = 1000.0, []
    for pause in pauses:
        now += pause
        starts.append(now + budget.reserve(now))
    starts.sort()
    for index, start in enumerate(starts):
        assert sum(1 for other in starts[index:] if other < start + 300) <= 150


def test_a_burst_goes_at_once_and_the_rest_queues_up():
    """Two tokens at two a second: the third waits half a second, the fourth a whole one."""
    budget = AttemptBudget(2, 2.0)
    assert [budget.reserve(0.0) for _ in range(4)] == [0, 0, 0.5, 1.0]
    assert budget.reserve(10.0) == 0


def test_an_attempt_given_back_is_free_again():
    """A reserved attempt that was never made does not count."""
    budget = AttemptBudget(1, 0.001)
    assert budget.reserve(0.0) == 0
    budget.give_back()
    assert budget.reserve(0.0) == 0


def test_a_refused_ip_holds_every_attempt():
    """While the host bars the IP, nobody connects, whoever got the refusal."""
    budget = AttemptBudget(30, 0.4)
    budget.hold(60.0)
    assert budget.reserve(20.0) == 40
    assert budget.held(59.0) == 1
    assert budget.held(61.0) == 0


@given(st.floats(0, 1), st.integers(1, 60))
def test_a_refused_key_waits_at_least_twice_as_long_each_time(drawn, refusals):
    """From five seconds up to fifteen minutes, never less for good luck; after a calm time it begins anew."""
    backoff = LoginBackoff(PrivateSettings(), lambda: drawn)
    waits = [backoff.failed() for _ in range(refusals)]
    least = [min(900.0, 5.0 * 2**number) for number in range(refusals)]
    assert all(low <= wait <= low * 1.25 for low, wait in zip(least, waits, strict=True))
    assert backoff.attempt == refusals
    backoff.reset()
    assert backoff.failed() == waits[0]
