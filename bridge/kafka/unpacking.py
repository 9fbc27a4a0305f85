"""Lets aiokafka's consumer give records of our own making.

Its ``ConsumerRecord`` has eleven fields and is made by three functions in turn; what is read of it is then copied
into a record of ours. Which records are given, those of transactions among them, remains aiokafka's to say: only
the last step is another. That step has no public place to be changed at, so this leans on the fetcher of the one
version that pyproject.toml names.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from aiokafka.consumer.fetcher import FetchResult, PartitionRecords

from bridge.kafka.zstd import decompress_by_zstandard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiokafka import AIOKafkaConsumer, TopicPartition

    Unpack = Callable[[TopicPartition, Any], object]
    """Makes a record of what aiokafka read of a batch: ``offset``, ``timestamp``, ``key``, ``value``, ``headers``."""


def unpack_with(consumer: AIOKafkaConsumer, unpack: Unpack) -> None:
    """Let a consumer that was started, and has no partitions yet, give what ``unpack`` makes of each record."""
    decompress_by_zstandard()
    consumer._fetcher._records = _Results(unpack)  # noqa: SLF001 - see above


class _Results(OrderedDict[Any, Any]):
    """What was fetched and not yet given, or the error that came instead, by partition."""

    def __init__(self, unpack: Unpack) -> None:
        super().__init__()
        self._unpack = unpack

    def __setitem__(self, place: TopicPartition, result: Any) -> None:
        if isinstance(result, FetchResult):
            result._partition_records = _Records(result._partition_records, self._unpack)  # noqa: SLF001
        super().__setitem__(place, result)


class _Records(PartitionRecords):  # type: ignore[misc]  # aiokafka has no types for it
    """aiokafka's walk through the batches of one partition, with another last step."""

    def __init__(self, records: PartitionRecords, unpack: Unpack) -> None:
        self._consumer_record = unpack
        super().__init__(
            records._tp,  # noqa: SLF001 - its base class, too
            records._records,  # noqa: SLF001
            records._aborted_transactions,  # noqa: SLF001
            records.next_fetch_offset,
            None,
            None,
            records._check_crcs,  # noqa: SLF001
            records._isolation_level,  # noqa: SLF001
        )

    def __iter__(self) -> Iterator[Any]:
        walk: Iterator[Any] = self._records_iterator
        return walk
