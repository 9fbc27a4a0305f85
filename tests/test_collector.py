"""What is frozen, and what is collected all the same."""

import gc
import weakref

import pytest

from bridge.collector import Collector, seldom


class Stays:
    """Something that refers to itself, so that only a collection can free it."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def collector():
    """Leave no trace in this process."""
    made = Collector()
    yield made
    made.end()
    assert gc.get_freeze_count() == 0


def test_what_stays_is_frozen_once_it_has_settled(collector):
    """Not before: until then it grows."""
    shard = Stays()
    collector.look([shard], 100.0)
    collector.look([shard], 109.9)
    assert gc.get_freeze_count() == 0
    collector.look([shard], 110.0)
    assert gc.get_freeze_count() > 0


def test_what_has_gone_is_freed_when_the_rest_is_frozen_anew(collector):
    """A shard that went to another process, cycles and all."""
    stays, goes = Stays(), Stays()
    collector.look([stays, goes], 0.0)
    collector.look([stays, goes], 10.0)
    gone = weakref.ref(goes)
    del goes
    gc.collect()
    assert gone() is not None, "it is frozen: else this shows nothing"
    collector.look([stays], 20.0)
    collector.look([stays], 30.0)
    assert gone() is None


def test_cycles_among_what_is_frozen_are_found_within_the_hour(collector):
    """Connections come and go while their shard stays."""
    shard, connection = Stays(), Stays()
    collector.look([shard], 0.0)
    collector.look([shard], 10.0)
    gone = weakref.ref(connection)
    del connection
    collector.look([shard], 3609.0)
    assert gone() is not None
    collector.look([shard], 3610.0)
    assert gone() is None


def test_a_job_collects_seldom_and_leaves_the_rule_as_it_was():
    """Also when it fails."""
    before = gc.get_threshold()

    def fail():
        assert gc.get_threshold()[0] > before[0]
        raise KeyError

    with pytest.raises(KeyError), seldom():
        fail()
    assert gc.get_threshold() == before
