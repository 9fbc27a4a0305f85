"""Kafka's default partitioning of keys: murmur2, bit for bit what Java's and librdkafka's ``murmur2`` do.

Source: ``org.apache.kafka.common.utils.Utils.murmur2`` and ``BuiltInPartitioner.partitionForKey``.
"""

from __future__ import annotations

from struct import iter_unpack

_SEED = 0x9747B28C
_MIX = 0x5BD1E995
_32_BITS = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Return the 32-bit murmur2 hash of ``data``, unsigned."""
    whole = len(data) & ~3
    h = _SEED ^ len(data)
    for (word,) in iter_unpack("<I", data[:whole]):
        k = word * _MIX & _32_BITS
        k = (k ^ (k >> 24)) * _MIX & _32_BITS
        h = (h * _MIX & _32_BITS) ^ k
    if whole != len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * _MIX & _32_BITS
    h = (h ^ (h >> 13)) * _MIX & _32_BITS
    return h ^ (h >> 15)


def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition of ``key`` in a topic of ``partitions`` partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
