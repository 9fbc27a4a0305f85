"""Fixtures for all tests."""

from hypothesis import HealthCheck, settings

from tests.kafka_fixture import kafka, own_kafka, topic_prefix, unique

__all__ = ["kafka", "own_kafka", "topic_prefix", "unique"]

# How long an example takes says how busy the machine is, and nothing of our code. The examples are the same in
# every run, so that the same code gets the same verdict.
settings.register_profile(
    "ours", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ours")
