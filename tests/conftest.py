"""Fixtures for all tests."""

from tests.kafka_fixture import kafka, own_kafka, topic_prefix, unique

__all__ = ["kafka", "own_kafka", "topic_prefix", "unique"]
