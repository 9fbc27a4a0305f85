"""Compare the topics we want with those a cluster has, and make the difference good.

``plan`` looks, ``apply`` acts, and neither ever deletes a topic, takes partitions away, or shortens what is
kept: such a difference is *refused*, with its reason, and left to people. ``render`` writes the same topics
as Strimzi ``KafkaTopic`` resources.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from aiokafka.errors import NodeNotReadyError, for_code
from aiokafka.protocol.admin import CreatePartitionsRequest, CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from bridge.errors import KafkaUnavailable, TopicMismatch
from bridge.kafka import client as kafka_client
from bridge.kafka.alter_configs import IncrementalAlterConfigsRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiokafka.protocol.api import Request

    from bridge.kafka.settings import KafkaSettings

_TOPIC_RESOURCE = 2
_SET = 0
_PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.25
_KEPT_LONGER_IS_SAFE = frozenset({"retention.ms", "retention.bytes", "delete.retention.ms"})
_UNORDERED_LISTS = frozenset({"cleanup.policy"})


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be.

    Attributes:
        name: its name.
        partitions: how many; keys are spread over them, so the number is for ever.
        replication_factor: copies of each partition; -1 for the cluster's default.
        config: topic settings that differ from, or must not follow, the broker's defaults.
    """

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """A topic as the cluster has it; ``config`` holds every setting with the value in force."""

    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """A setting of a topic that has to be changed; ``old`` is None where the cluster names none."""

    topic: str
    setting: str
    old: str | None
    new: str


@dataclass(frozen=True, slots=True)
class Extension:
    """A topic that gets more partitions."""

    topic: str
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A difference that is left as it is, and why."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``apply`` would do.

    Attributes:
        create: topics that are missing.
        alter: settings to change.
        extend: topics that get more partitions.
        refused: differences that ``apply`` leaves alone.
        unchanged: topics that are as they should be.
    """

    create: tuple[TopicSpec, ...] = ()
    alter: tuple[ConfigChange, ...] = ()
    extend: tuple[Extension, ...] = ()
    refused: tuple[Refusal, ...] = ()
    unchanged: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do; differences may still be refused."""
        return not (self.create or self.alter or self.extend)

    @property
    def clean(self) -> bool:
        """Whether the cluster is exactly as wanted."""
        return self.empty and not self.refused

    def as_json(self) -> str:
        """Return the plan as one JSON object, keys as the attributes here."""
        return json.dumps(_plain(self), default=_plain, indent=2)

    def __str__(self) -> str:
        """Return the plan for people: a line per difference and a last one that counts."""
        lines = [f"+ {t.name}: {_shape(t)}{_listed(t.config)}" for t in self.create]
        lines += [f"~ {c.topic}: {c.setting} {c.old or 'unset'} -> {c.new}" for c in self.alter]
        lines += [f"~ {e.topic}: {e.old} -> {e.new} partitions" for e in self.extend]
        lines += [f"! {r.topic}: {r.reason}" for r in self.refused]
        counts = {
            "to create": len(self.create),
            "settings to change": len(self.alter),
            "to extend": len(self.extend),
            "refused": len(self.refused),
            "unchanged": len(self.unchanged),
        }
        lines.append(", ".join(f"{count} {what}" for what, count in counts.items()))
        return "\n".join(lines)


def compare(
    specs: Iterable[TopicSpec],
    found: Mapping[str, FoundTopic],
    *,
    allow_more_partitions: bool = False,
    allow_keeping_less: bool = False,
) -> Plan:
    """Return what makes ``found`` into ``specs``. Pure.

    Args:
        specs: the topics as they should be.
        found: the topics of the cluster, by name; others than ``specs`` are nobody's business.
        allow_more_partitions: add partitions, though keys then move to other partitions than their past.
        allow_keeping_less: shorten retention or change the clean-up policy, though records are deleted then.
    """
    create: list[TopicSpec] = []
    alter: list[ConfigChange] = []
    extend: list[Extension] = []
    refused: list[Refusal] = []
    unchanged: list[str] = []
    for spec in specs:
        topic = found.get(spec.name)
        if topic is None:
            create.append(spec)
            continue
        before = len(alter) + len(extend) + len(refused)
        if spec.partitions > topic.partitions and allow_more_partitions:
            extend.append(Extension(spec.name, topic.partitions, spec.partitions))
        else:
            refused += _shape_refused(spec, topic)
        for change in _config_changes(spec, topic):
            if allow_keeping_less or not _keeps_less(change):
                alter.append(change)
            else:
                reason = f"{change.setting} {change.old} -> {change.new} would delete records"
                refused.append(Refusal(spec.name, f"{reason}; change it by hand or allow it"))
        if len(alter) + len(extend) + len(refused) == before:
            unchanged.append(spec.name)
    return Plan(tuple(create), tuple(alter), tuple(extend), tuple(refused), tuple(unchanged))


def _shape_refused(spec: TopicSpec, topic: FoundTopic) -> Iterable[Refusal]:
    shape = f"has {topic.partitions} partitions, {spec.partitions} are wanted"
    if spec.partitions < topic.partitions:
        yield Refusal(spec.name, f"{shape}; Kafka cannot take partitions away")
    elif spec.partitions > topic.partitions:
        yield Refusal(spec.name, f"{shape}; adding some moves keys away from their past, so allow it first")
    if spec.replication_factor not in (-1, topic.replication_factor):
        copies = f"has {topic.replication_factor} replicas, {spec.replication_factor} are wanted"
        yield Refusal(spec.name, f"{copies}; move them with kafka-reassign-partitions")


def _config_changes(spec: TopicSpec, topic: FoundTopic) -> Iterable[ConfigChange]:
    for setting, new in sorted(spec.config.items()):
        old = topic.config.get(setting)
        if old is None or _canonical(setting, old) != _canonical(setting, new):
            yield ConfigChange(spec.name, setting, old, new)


def _canonical(setting: str, value: str) -> str:
    if setting in _UNORDERED_LISTS:
        return ",".join(sorted(part.strip() for part in value.split(",")))
    return value.strip().lower()


def _keeps_less(change: ConfigChange) -> bool:
    """Whether Kafka would delete records for it. -1 is for ever."""
    if change.setting == "cleanup.policy":
        return change.old is not None
    if change.setting not in _KEPT_LONGER_IS_SAFE or change.old is None or int(change.new) < 0:
        return False
    return int(change.old) < 0 or int(change.new) < int(change.old)


class Cluster:
    """A connection to ask about topics and to change them. Use it as an asynchronous context manager.

    Raises:
        KafkaUnavailable: on entering, where no broker serves us; later, where none answers.
    """

    def __init__(self, settings: KafkaSettings, *, timeout: float = 10.0) -> None:
        self._settings, self._timeout = settings, timeout
        self._client: kafka_client.Client | None = None

    async def __aenter__(self) -> Self:
        name = "bridge-topics"
        self._client = await kafka_client.connect(self._settings, name=name, timeout=self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await kafka_client.close(self._client, timeout=1)
            self._client = None

    async def ask(self, request: Request[Any]) -> Any:
        """Send a question to any broker and return its answer.

        Where no answer comes the next broker is asked, all of them again and again until the time is over.
        """
        return await self._send(request, kafka_client.LOST)

    async def change(self, request: Request[Any]) -> Any:
        """Send a change to any broker, which passes it on to the controller, and return the answer.

        Only a broker that can't have got it is followed by the next: nothing is asked for twice.
        """
        return await self._send(request, (NodeNotReadyError,))

    async def _send(self, request: Request[Any], harmless: tuple[type[Exception], ...]) -> Any:
        """Send to one broker after the other while what it raises is ``harmless``."""
        assert self._client is not None, "use it by `async with`"
        deadline = monotonic() + self._timeout
        lost = "it knows of no broker"
        while True:
            nodes = [broker.nodeId for broker in self._client.cluster.brokers()]
            random.shuffle(nodes)
            for node in nodes:
                try:
                    return await self._client.send(node, request)
                except kafka_client.LOST as error:
                    lost = repr(error)
                    if not isinstance(error, harmless) or monotonic() > deadline:
                        raise KafkaUnavailable(f"{self._settings.bootstrap_servers}: {lost}") from None
            if monotonic() > deadline:
                raise KafkaUnavailable(f"{self._settings.bootstrap_servers}: {lost}")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def shapes(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return partitions and replicas of those of ``names`` that exist and this user may see."""
        answer = await self.ask(MetadataRequest(sorted(names), allow_auto_topic_creation=False))
        return {
            name: (len(partitions), min((len(replicas) for _, _, _, replicas, *_ in partitions), default=0))
            for code, name, _, partitions in answer.topics
            if code == 0
        }

    async def describe(self, names: Iterable[str]) -> dict[str, FoundTopic]:
        """Return those of ``names`` that exist, with all their settings."""
        shapes = await self.shapes(names)
        configs: dict[str, dict[str, str]] = {}
        if shapes:
            resources = [(_TOPIC_RESOURCE, name, None) for name in shapes]
            answer = await self.ask(DescribeConfigsRequest(resources))
            for code, message, _, name, entries in answer.resources:
                if code:
                    raise TopicMismatch(f"topic {name}: its settings cannot be read: {_error(code, message)}")
                configs[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
        return {name: FoundTopic(*shape, configs.get(name, {})) for name, shape in shapes.items()}


async def plan(
    specs: Sequence[TopicSpec],
    cluster: Cluster,
    *,
    allow_more_partitions: bool = False,
    allow_keeping_less: bool = False,
) -> Plan:
    """Return what :func:`apply` would have to do. The arguments are those of :func:`compare`.

    Raises:
        KafkaUnavailable: no broker answers.
        TopicMismatch: this user may not read a topic's settings.
    """
    return compare(
        specs,
        await cluster.describe(spec.name for spec in specs),
        allow_more_partitions=allow_more_partitions,
        allow_keeping_less=allow_keeping_less,
    )


async def missing(specs: Iterable[TopicSpec], cluster: Cluster) -> list[str]:
    """Return the names of ``specs`` that the cluster does not have, or hides from this user."""
    names = [spec.name for spec in specs]
    return sorted(set(names) - (await cluster.shapes(names)).keys())


async def apply(plan: Plan, cluster: Cluster) -> None:
    """Do what ``plan`` says, all of it that can be done; what is there already is fine.

    Returns once every broker asked knows the new topics.

    Raises:
        TopicMismatch: names each change that Kafka refused, and why.
        KafkaUnavailable: no broker answers.
    """
    failures: list[str] = []
    if plan.create:
        failures += await _create(plan.create, cluster)
    if plan.alter:
        failures += await _alter(plan.alter, cluster)
    if plan.extend:
        failures += await _extend(plan.extend, cluster)
    if failures:
        raise TopicMismatch("Kafka refused: " + "; ".join(failures))


async def _create(specs: Sequence[TopicSpec], cluster: Cluster) -> list[str]:
    request = CreateTopicsRequest(
        [(s.name, s.partitions, s.replication_factor, [], list(s.config.items())) for s in specs],
        timeout=int(_PATIENCE_SECONDS * 1000),
        validate_only=False,
    )
    answer = await cluster.change(request)
    already_exists = 36
    failures = [
        f"to create {name}: {_error(code, message)}"
        for name, code, message in answer.topic_errors
        if code not in (0, already_exists)
    ]
    if not failures:
        await _until_known(specs, cluster)
    return failures


async def _until_known(specs: Sequence[TopicSpec], cluster: Cluster) -> None:
    """Wait until the brokers have heard of new topics from the controller; usually they have at once."""
    deadline = monotonic() + _PATIENCE_SECONDS
    for pause in itertools.repeat(0.05):
        if not await missing(specs, cluster) or monotonic() > deadline:
            return
        await asyncio.sleep(pause)


async def _alter(changes: Sequence[ConfigChange], cluster: Cluster) -> list[str]:
    by_topic: dict[str, list[tuple[str, int, str]]] = {}
    for change in changes:
        by_topic.setdefault(change.topic, []).append((change.setting, _SET, change.new))
    answer = await cluster.change(
        IncrementalAlterConfigsRequest([(_TOPIC_RESOURCE, name, sets) for name, sets in by_topic.items()])
    )
    return [
        f"to change settings of {name}: {_error(code, message)}"
        for code, message, _, name in answer.responses
        if code
    ]


async def _extend(extensions: Sequence[Extension], cluster: Cluster) -> list[str]:
    answer = await cluster.change(
        CreatePartitionsRequest(
            [
                (extension.topic, (extension.new, None)) for extension in extensions
            ],  # None: Kafka chooses the brokers
            timeout=int(_PATIENCE_SECONDS * 1000),
            validate_only=False,
        )
    )
    return [
        f"to extend {name}: {_error(code, message)}" for name, code, message in answer.topic_errors if code
    ]


def render(specs: Iterable[TopicSpec], cluster_label: str, *, api_version: str = "v1") -> str:
    """Return Strimzi ``KafkaTopic`` resources, one YAML document each.

    Args:
        specs: the topics.
        cluster_label: name of the ``Kafka`` resource that runs them.
        api_version: ``v1``, or ``v1beta2`` for Strimzi before 0.49.
    """
    return "".join(_document(spec, cluster_label, api_version) for spec in specs)


def _document(spec: TopicSpec, cluster_label: str, api_version: str) -> str:
    lines = [
        "---",
        f"apiVersion: kafka.strimzi.io/{api_version}",
        "kind: KafkaTopic",
        "metadata:",
        f"  name: {json.dumps(_resource_name(spec.name))}",
        "  labels:",
        f"    strimzi.io/cluster: {json.dumps(cluster_label)}",
        "spec:",
        f"  topicName: {json.dumps(spec.name)}",
        f"  partitions: {spec.partitions}",
    ]
    if spec.replication_factor != -1:
        lines.append(f"  replicas: {spec.replication_factor}")
    if spec.config:
        lines.append("  config:")
        lines += [f"    {setting}: {json.dumps(value)}" for setting, value in sorted(spec.config.items())]
    return "\n".join(lines) + "\n"


def _resource_name(topic: str) -> str:
    """Return a Kubernetes name for ``topic``: itself where it may be one, else a like one with a hash."""
    likeness = re.sub(r"[^a-z0-9.-]+", "-", topic.lower()).strip(".-")
    if likeness == topic and len(topic) <= 253:
        return topic
    return f"{likeness[:240]}-{sha256(topic.encode()).hexdigest()[:8]}".lstrip("-")


def _shape(spec: TopicSpec) -> str:
    copies = "default replicas" if spec.replication_factor == -1 else f"{spec.replication_factor} replicas"
    return f"{spec.partitions} partitions, {copies}"


def _listed(config: Mapping[str, str]) -> str:
    return "".join(f", {setting}={value}" for setting, value in sorted(config.items()))


def _plain(value: Any) -> dict[str, Any]:
    """Turn one of our records, or any mapping, into what JSON has."""
    if isinstance(value, Mapping):
        return dict(value)
    return {name: getattr(value, name) for name in value.__slots__}


def _error(code: int, message: str | None) -> str:
    return f"{for_code(code).__name__} (error {code})" + (f": {message}" if message else "")
