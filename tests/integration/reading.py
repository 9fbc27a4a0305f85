"""Reads topics back without any of the bridge's code: librdkafka, fastavro and ``avro/*.avsc``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from fastavro.schema import fingerprint, to_parsing_canonical_form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_AVRO = Path(__file__).parents[2] / "avro"
_MARKER = b"\xc3\x01"
_PATIENCE_SECONDS = 180.0


class Stored(NamedTuple):
    """A record as a consumer finds it."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    timestamp: int
    headers: tuple[tuple[str, bytes], ...]

    @property
    def record(self) -> dict[str, Any]:
        """The value decoded; times are microseconds since the epoch."""
        return decode(self.value)[1]


def decode(value: bytes) -> tuple[str, dict[str, Any]]:
    """Return the file name of the schema (``trade``) and the record; nothing may be left over."""
    name, parsed = _SCHEMAS[value[:10]]
    rest = io.BytesIO(value[10:])
    record = fastavro.schemaless_reader(rest, parsed)
    assert not rest.read(1), "bytes left over"
    assert isinstance(record, dict)
    return name, record


def _schemas() -> Mapping[bytes, tuple[str, Any]]:
    """Every schema by its single-object header: marker and CRC-64-AVRO of the canonical form, little endian."""
    found = {}
    for path in sorted(_AVRO.glob("*.avsc")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        crc = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
        found[_MARKER + crc] = path.stem, fastavro.parse_schema(_times_as_numbers(schema))
    return found


def _times_as_numbers(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_times_as_numbers(one) for one in schema]
    if isinstance(schema, dict):
        if schema.get("logicalType") == "timestamp-micros":
            return "long"
        return {key: _times_as_numbers(one) for key, one in schema.items()}
    return schema


_SCHEMAS = _schemas()


def consumer(bootstrap_servers: str) -> Consumer:
    """Return a consumer that belongs to no group worth the name and commits nothing."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,  # the last offset may be the mark of a transaction, which never comes
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
            "log_level": 3,
        }
    )


def topics_of(bootstrap_servers: str, environment: str, namespace: str = "binance") -> dict[str, int]:
    """Return the environment's topics with their partition counts."""
    reader = consumer(bootstrap_servers)
    try:
        found = reader.list_topics(timeout=_PATIENCE_SECONDS).topics
        return {
            name: len(topic.partitions)
            for name, topic in found.items()
            if name.startswith(f"{namespace}.{environment}.")
        }
    finally:
        reader.close()


def ends(bootstrap_servers: str, environment: str, namespace: str = "binance") -> dict[tuple[str, int], int]:
    """Return the end offset of every partition of the environment's topics."""
    reader = consumer(bootstrap_servers)
    try:
        return {
            (topic, partition): reader.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=_PATIENCE_SECONDS
            )[1]
            for topic, count in topics_of(bootstrap_servers, environment, namespace).items()
            for partition in range(count)
        }
    finally:
        reader.close()


def read(
    bootstrap_servers: str,
    environment: str,
    *,
    since: Mapping[tuple[str, int], int] | None = None,
    only: Callable[[str], bool] = lambda _topic: True,
    namespace: str = "binance",
) -> dict[str, list[Stored]]:
    """Return every record of the environment's topics up to their present ends, in offset order by partition.

    Args:
        bootstrap_servers: where Kafka is.
        environment: whose topics.
        since: offsets to begin at, as :func:`ends` gave them; from the beginning without.
        only: which topics.
        namespace: first part of the topics' names.
    """
    since = since or {}
    upto = {
        place: end for place, end in ends(bootstrap_servers, environment, namespace).items() if only(place[0])
    }
    found: dict[str, list[Stored]] = {topic: [] for topic, _ in upto}
    left = {place for place, end in upto.items() if end > since.get(place, 0)}
    reader = consumer(bootstrap_servers)
    try:
        reader.assign([TopicPartition(t, p, since.get((t, p), OFFSET_BEGINNING)) for t, p in left])
        while left:
            messages = reader.consume(5000, timeout=2.0) or reader.consume(1, timeout=_PATIENCE_SECONDS)
            assert messages, f"nothing more comes from {sorted(left)}"
            for message in messages:
                place = message.topic(), message.partition()
                if message.error() is not None:
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    if message.offset() >= upto[place]:
                        left.discard(place)
                    continue
                if message.offset() < upto[place]:
                    found[message.topic()].append(_stored(message))
                if message.offset() + 1 >= upto[place]:
                    left.discard(place)
    finally:
        reader.close()
    for records in found.values():
        records.sort(key=lambda r: (r.partition, r.offset))
    return found


def _stored(message: Any) -> Stored:
    return Stored(
        message.topic(),
        message.partition(),
        message.offset(),
        message.key().decode(),
        message.value(),
        message.timestamp()[1],
        tuple(message.headers() or ()),
    )


def records(stored: Iterable[Stored]) -> list[dict[str, Any]]:
    """Return the decoded records."""
    return [one.record for one in stored]
