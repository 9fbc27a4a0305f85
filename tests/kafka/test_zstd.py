"""Batches are compressed and read by zstandard, whoever wrote them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import cramjam
import pytest
import zstandard
from aiokafka.record import default_records
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from bridge.kafka.outbox import BatchFormat, Record
from bridge.kafka.zstd import compiled_records, compress, decompress, decompress_by_zstandard

contents = st.binary(max_size=300) | st.binary(min_size=1, max_size=9).map(lambda piece: piece * 5000)


def as_java(data: bytes) -> bytes:
    """Return a frame as a stream writes it, whose size nobody knew: so do Kafka's own clients."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


@given(contents)
def test_what_is_compressed_is_read_by_others(data: bytes) -> None:
    """By the library that aiokafka uses."""
    assert bytes(cramjam.zstd.decompress(compress(data))) == data


@given(
    st.lists(contents, min_size=1, max_size=3), st.sampled_from([compress, as_java, cramjam.zstd.compress])
)
def test_what_others_compressed_is_read(pieces: list[bytes], by: object) -> None:
    """In one frame or several, that say their size or do not."""
    assert callable(by)
    frames = b"".join(bytes(by(piece)) for piece in pieces)
    assert decompress(frames) == b"".join(pieces)


@pytest.mark.parametrize("whole", [compress(b"abc" * 1000), as_java(b"abc" * 1000)])
def test_what_is_cut_short_is_refused(whole: bytes) -> None:
    """Rather than read as far as it goes."""
    for end in range(1, len(whole)):
        with pytest.raises(zstandard.ZstdError):
            decompress(whole[:end])
    with pytest.raises(zstandard.ZstdError):
        decompress(whole + b"more")


def test_threads_do_not_share_what_compresses() -> None:
    """Each has its own: the library's contexts may be used by one at a time."""
    together = threading.Barrier(4)

    def work(number: int) -> bool:
        together.wait()
        data = [bytes((number, n % 256)) * 999 for n in range(300)]
        return all(decompress(compress(one)) == one for one in data)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_aiokafka_reads_batches_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place where its one version looks its codec up is the one that is changed."""
    for records in (compiled_records, default_records):
        monkeypatch.setattr(records, "zstd_decode", None)
    batch = BatchFormat(10_000, "zstd").seal([Record(1, b"key", b"value " * 50, ())], 0.0)
    assert len(batch.data) < 300
    assert DefaultRecordBatch(bytes(batch.data)).compression_type == 4
    with pytest.raises(TypeError):
        batch.unpack()
    decompress_by_zstandard()
    assert batch.unpack() == [Record(1, b"key", b"value " * 50, ())]


def test_what_does_not_get_smaller_stays_as_it_is() -> None:
    """A batch of one short record is sent without compression, as aiokafka does."""
    batch = BatchFormat(10_000, "zstd").seal([Record(1, b"k", b"v", ())], 0.0)
    read = DefaultRecordBatch(bytes(batch.data))
    assert read.compression_type == 0
    assert read.validate_crc()
    assert batch.unpack() == [Record(1, b"k", b"v", ())]
