"""The outbox and the buffer, without a broker."""

import asyncio
import struct

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.kafka.outbox import BatchFormat, Buffer, Identity, Outbox, Record, next_sequence
from bridge.model import Header

PLACE = TopicPartition("topic", 3)


def outbox(batch_bytes=1000, compression="zstd", limit_bytes=10**9):
    """Return an empty outbox, its buffer, and the lists of calls it makes."""
    buffer, opened, sealed = Buffer(limit_bytes), [], []
    box = Outbox(
        PLACE, BatchFormat(batch_bytes, compression), buffer, on_open=opened.append, on_sealed=sealed.append
    )
    return box, buffer, opened, sealed


def drain(box):
    """Acknowledge everything; return the records in the order they went."""
    records = []
    while (batch := box.head()) is not None:
        assert len(batch.unpack()) == batch.records
        records += batch.unpack()
        box.acknowledge()
    return records


records = st.lists(
    st.builds(
        Record,
        timestamp_ms=st.integers(0, 2**45),
        key=st.binary(max_size=20),
        value=st.binary(max_size=400),
        headers=st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2).map(tuple),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(records, st.sampled_from(["none", "zstd", "snappy", "gzip"]))
def test_records_come_out_as_they_went_in(queued, compression):
    """Whatever is queued goes out in order, unchanged, and leaves no byte on the account."""
    box, buffer, _, _ = outbox(compression=compression)
    for record in queued:
        box.append(record.timestamp_ms, record.key, record.value, tuple(Header(*h) for h in record.headers))
    assert box.queued == len(queued)
    assert drain(box) == queued
    assert (box.queued, buffer.bytes) == (0, 0)
    assert box.sequence == len(queued)


@settings(max_examples=100, deadline=None)
@given(records.filter(lambda found: len(found) > 1), st.data())
def test_halving_finds_any_record(queued, data):
    """However many records of a batch are refused, halving finds each of them, and the others keep their order."""
    refused = data.draw(st.sets(st.sampled_from(range(len(queued)))))
    box, buffer, _, _ = outbox(batch_bytes=10**6)
    for number, record in enumerate(queued):
        box.append(number, record.key, record.value)
    delivered, found = [], set()
    while (batch := box.head()) is not None:
        numbers = [record.timestamp_ms for record in batch.unpack()]
        if not refused & set(numbers):
            delivered += numbers
            box.acknowledge()
        elif batch.records > 1:
            box.halve(too_large=False)
        else:
            found |= {record.timestamp_ms for record in box.drop().unpack()}
    assert found == refused
    assert delivered == [number for number in range(len(queued)) if number not in refused]
    assert box.sequence == len(delivered)
    assert buffer.bytes == 0


@settings(max_examples=100, deadline=None)
@given(records, records, st.booleans())
def test_what_is_discarded_leaves_nothing(dropped, kept, unsure):
    """After a discard nothing is counted, what follows is whole, and an identity is kept only where it is safe."""
    box, buffer, _, _ = outbox()
    box.identity, box.sequence = Identity(7, 0), 5
    for record in dropped:
        box.append(record.timestamp_ms, record.key, record.value)
    box.unsure = unsure
    assert box.discard() == len(dropped)
    assert (box.queued, buffer.bytes, box.first) == (0, 0, None)
    assert (box.identity, box.sequence) == ((None, 0) if unsure else (Identity(7, 0), 5))
    for record in kept:
        box.append(record.timestamp_ms, record.key, record.value)
    assert [r.value for r in drain(box)] == [r.value for r in kept]
    assert (box.done, buffer.bytes) == (len(kept), 0)


def test_a_full_batch_is_sealed_and_told():
    """A batch that takes no more is sealed, and the next one opens; each is told of once."""
    box, _, opened, sealed = outbox(batch_bytes=1000)
    for number in range(5):
        box.append(number, b"key", b"v" * 400)
    assert opened == [box] * 3
    assert sealed == [box] * 2
    assert [batch.records for batch in box.sealed] == [2, 2]


def test_headers_of_a_list_that_changes():
    """A list of headers may be used again with other content."""
    box, _, _, _ = outbox()
    headers = [Header("a", b"1")]
    box.append(0, b"k", b"v", headers)
    headers[0] = Header("a", b"2")
    box.append(0, b"k", b"v", headers)
    box.append(0, b"k", b"v")
    assert [record.headers for record in drain(box)] == [(("a", b"1"),), (("a", b"2"),), ()]


def test_a_stamp_is_what_the_broker_checks():
    """A stamped batch carries producer, epoch and sequence under a valid checksum, as often as it is stamped."""
    box, _, _, _ = outbox()
    box.append(77, b"k", b"v")
    box.append(55, b"k", b"v")
    batch = box.head()
    assert batch.newest_event_ms == 77
    for identity, sequence in ((Identity(4711, 3), 2**31 - 1), (Identity(2**40, 0), 0)):
        batch.stamp(identity, sequence)
        read = DefaultRecordBatch(bytes(batch.data))
        assert read.validate_crc()
        assert struct.unpack_from(">qhi", batch.data, 43) == (*identity, sequence)


@pytest.mark.parametrize(
    ("sequence", "records", "following"),
    [(0, 5, 5), (2**31 - 6, 5, 2**31 - 1), (2**31 - 5, 5, 0), (2**31 - 1, 1, 0), (2**31 - 2, 5, 3)],
)
def test_sequences_wrap_as_javas(sequence, records, following):
    """After 2**31 - 1 comes 0, as in Java's DefaultRecordBatch.incrementSequence."""
    assert next_sequence(sequence, records) == following


def test_a_topic_that_takes_only_small_batches_gets_small_ones():
    """After a batch was too large the following ones are made smaller."""
    box, _, _, _ = outbox(batch_bytes=10_000, compression="none")
    for number in range(20):
        box.append(number, b"k", b"v" * 400)
    box.head()
    box.halve(too_large=True)
    for number in range(20):
        box.append(number, b"k", b"v" * 400)
    assert max(batch.record_bytes for batch in box.sealed) < 5000


def test_a_bad_record_harms_nothing():
    """A record of the wrong type is the caller's error and leaves the outbox as it was."""
    box, buffer, opened, _ = outbox()
    with pytest.raises(TypeError):
        box.append(0, "text", b"v")
    assert (box.head(), buffer.bytes, opened) == (None, 0, [])


async def test_waiting_for_the_level():
    """Who waits for a level is woken when it is reached, not before."""
    buffer = Buffer(1000)
    buffer.bytes = 900
    await buffer.wait_below(0.95)
    waiting = asyncio.create_task(buffer.wait_below(0.5))
    await asyncio.sleep(0)
    buffer.release(300)
    await asyncio.sleep(0)
    assert not waiting.done()
    buffer.release(100)
    await waiting


def test_full_is_told_once_each_time():
    """The limit is told when it is reached, and again only after the level was below it."""
    told = []
    buffer = Buffer(1000, lambda: told.append(buffer.bytes))
    for level in (999, 1000, 1500, 1200):
        buffer.bytes = level
        buffer.check()
    buffer.release(300)
    buffer.bytes = 1001
    buffer.check()
    assert told == [1000, 1001]


def test_full_is_told_while_batches_are_open():
    """Bytes that wait in open batches count too: with many partitions none of them may ever be sealed."""
    told = []
    buffer = Buffer(1000, lambda: told.append(buffer.bytes))
    boxes = [
        Outbox(PLACE, BatchFormat(10**6, "none"), buffer, on_open=lambda _: None, on_sealed=lambda _: None)
        for _ in range(10)
    ]
    for box in boxes:
        box.append(1, b"key", b"x" * 300)
    assert not any(box.sealed for box in boxes)
    assert len(told) == 1
    assert 1000 <= told[0] < 1400
