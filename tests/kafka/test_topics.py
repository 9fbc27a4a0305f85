"""Topics: the comparison by plain values, and the cluster's part against a real Kafka."""

import json
import re

import pytest

from bridge.errors import KafkaUnavailable, TopicMismatch
from bridge.kafka import topics
from bridge.kafka.settings import KafkaSettings
from bridge.kafka.topics import Cluster, ConfigChange, Extension, FoundTopic, TopicSpec, compare

WANTED = TopicSpec("raw.trade", 6, 1, {"retention.ms": "1000", "cleanup.policy": "delete"})
FOUND = FoundTopic(6, 1, {"retention.ms": "1000", "cleanup.policy": "delete", "segment.ms": "9"})


def found(**changes):
    """Return what the cluster has: the topic as wanted, but for ``changes``."""
    return {
        "raw.trade": FoundTopic(
            **{"partitions": 6, "replication_factor": 1, "config": FOUND.config} | changes
        )
    }


def test_a_missing_topic_is_to_be_created():
    """A topic the cluster lacks is created, and nothing else."""
    plan = compare([WANTED], {})
    assert plan.create == (WANTED,)
    assert not plan.empty
    assert not plan.unchanged


def test_a_topic_as_wanted_is_unchanged():
    """Settings beside those wanted are nobody's business."""
    plan = compare([WANTED], found())
    assert plan.clean
    assert plan.unchanged == ("raw.trade",)


def test_lists_have_no_order():
    """The clean-up policy ``compact,delete`` is ``delete,compact``."""
    spec = TopicSpec("t", 1, 1, {"cleanup.policy": "compact,delete"})
    assert compare([spec], {"t": FoundTopic(1, 1, {"cleanup.policy": "delete,compact"})}).clean


def test_longer_retention_is_changed():
    """Keeping records longer loses nothing, so it is done."""
    plan = compare([WANTED], found(config=FOUND.config | {"retention.ms": "500"}))
    assert plan.alter == (ConfigChange("raw.trade", "retention.ms", "500", "1000"),)


@pytest.mark.parametrize(
    "now", [{"retention.ms": "2000"}, {"retention.ms": "-1"}, {"cleanup.policy": "compact"}], ids=str
)
def test_what_deletes_records_is_refused(now):
    """A change for which Kafka would delete records is done only when allowed."""
    there = found(config=FOUND.config | now)
    plan = compare([WANTED], there)
    assert plan.empty
    assert "would delete records" in plan.refused[0].reason
    assert len(compare([WANTED], there, allow_keeping_less=True).alter) == 1


def test_more_partitions_are_refused_unless_allowed():
    """More partitions move keys, so they are added only when allowed."""
    there = found(partitions=3)
    assert compare([WANTED], there).empty
    assert "moves keys" in compare([WANTED], there).refused[0].reason
    assert compare([WANTED], there, allow_more_partitions=True).extend == (Extension("raw.trade", 3, 6),)


@pytest.mark.parametrize("shape", [{"partitions": 9}, {"replication_factor": 3}], ids=str)
def test_what_kafka_cannot_do_is_refused_always(shape):
    """Partitions are never taken away, and replicas are moved by Kafka's own tool."""
    plan = compare([WANTED], found(**shape), allow_more_partitions=True, allow_keeping_less=True)
    assert plan.empty
    assert len(plan.refused) == 1
    assert not plan.clean


def test_a_plan_reads_well():
    """People get a line per difference and the counts; programs get the same as JSON."""
    other = TopicSpec("b", 2, -1, {"cleanup.policy": "compact"})
    plan = compare(
        [WANTED, other], found(config={"retention.ms": "500", "cleanup.policy": "delete"}, partitions=9)
    )
    assert str(plan).splitlines() == [
        "+ b: 2 partitions, default replicas, cleanup.policy=compact",
        "~ raw.trade: retention.ms 500 -> 1000",
        "! raw.trade: has 9 partitions, 6 are wanted; Kafka cannot take partitions away",
        "1 to create, 1 settings to change, 0 to extend, 1 refused, 0 unchanged",
    ]
    assert json.loads(plan.as_json()) == {
        "create": [
            {"name": "b", "partitions": 2, "replication_factor": -1, "config": {"cleanup.policy": "compact"}}
        ],
        "alter": [{"topic": "raw.trade", "setting": "retention.ms", "old": "500", "new": "1000"}],
        "extend": [],
        "refused": [
            {
                "topic": "raw.trade",
                "reason": "has 9 partitions, 6 are wanted; Kafka cannot take partitions away",
            }
        ],
        "unchanged": [],
    }


def test_strimzi():
    """Each topic becomes one KafkaTopic with a name that Kubernetes accepts."""
    assert topics.render([WANTED, TopicSpec("Raw_X", 1, -1)], "my-cluster") == (
        "---\n"
        "apiVersion: kafka.strimzi.io/v1\n"
        "kind: KafkaTopic\n"
        "metadata:\n"
        '  name: "raw.trade"\n'
        "  labels:\n"
        '    strimzi.io/cluster: "my-cluster"\n'
        "spec:\n"
        '  topicName: "raw.trade"\n'
        "  partitions: 6\n"
        "  replicas: 1\n"
        "  config:\n"
        '    cleanup.policy: "delete"\n'
        '    retention.ms: "1000"\n'
        "---\n"
        "apiVersion: kafka.strimzi.io/v1\n"
        "kind: KafkaTopic\n"
        "metadata:\n"
        '  name: "raw-x-8964f669"\n'
        "  labels:\n"
        '    strimzi.io/cluster: "my-cluster"\n'
        "spec:\n"
        '  topicName: "Raw_X"\n'
        "  partitions: 1\n"
    )


@pytest.mark.kafka
async def test_a_cluster_is_made_as_wanted(kafka, topic_prefix):
    """Apply creates, changes and extends; a plan made afterwards is clean, and other settings stay."""
    first = TopicSpec(f"{topic_prefix}a", 2, 1, {"retention.ms": "1000", "segment.ms": "100000"})
    longer = TopicSpec(first.name, 4, 1, {"retention.ms": "5000"})
    async with Cluster(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)) as cluster:
        assert await topics.missing([first], cluster) == [first.name]
        await topics.apply(await topics.plan([first], cluster), cluster)
        assert (await topics.plan([first], cluster)).clean
        await topics.apply(await topics.plan([longer], cluster, allow_more_partitions=True), cluster)
        assert (await topics.plan([longer], cluster)).clean
        there = (await cluster.describe([first.name]))[first.name]
        assert there.partitions == 4
        assert there.config["segment.ms"] == "100000"


@pytest.mark.kafka
async def test_a_refusal_of_kafka_is_told(kafka, topic_prefix):
    """What Kafka does not accept is told with its own words; the rest is done."""
    good, bad = (
        TopicSpec(f"{topic_prefix}good", 1, 1),
        TopicSpec(f"{topic_prefix}bad", 1, 1, {"retention.ms": "x"}),
    )
    async with Cluster(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)) as cluster:
        plan = await topics.plan([good, bad], cluster)
        with pytest.raises(TopicMismatch, match=rf"to create {bad.name}: .*retention\.ms"):
            await topics.apply(plan, cluster)
        assert await topics.missing([good, bad], cluster) == [bad.name]


@pytest.mark.kafka
async def test_a_broker_that_can_be_reached_is_asked(own_kafka):
    """While one broker is away, each question goes to another; when all are, that is told in time."""
    kafka = own_kafka(3)
    async with Cluster(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers), timeout=1.0) as cluster:
        kafka.kill(2)
        for _ in range(12):
            assert await topics.missing([TopicSpec("none", 1, 1)], cluster) == ["none"]
        kafka.kill(1)
        kafka.kill(3)
        # Which error it names last depends on whether the client has seen the connections close.
        with pytest.raises(KafkaUnavailable, match=re.escape(kafka.bootstrap_servers)):
            await topics.missing([TopicSpec("none", 1, 1)], cluster)
