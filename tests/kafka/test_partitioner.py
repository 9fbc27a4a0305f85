import pytest
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from bridge.kafka.partitioner import murmur2, partition_for

# From Apache Kafka's own UtilsTest.testMurmur2, as signed 32-bit numbers.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", JAVA)
def test_java(key):
    """The hash is the one that Kafka's own test expects."""
    assert murmur2(key) == JAVA[key] & 0xFFFFFFFF


@given(st.binary(max_size=64), st.integers(1, 300))
def test_aiokafka(key, partitions):
    """Any bytes land where aiokafka's partitioner puts them."""
    assert murmur2(key) == reference(key)
    assert partition_for(key, partitions) == (reference(key) & 0x7FFFFFFF) % partitions
