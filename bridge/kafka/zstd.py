"""zstd by zstandard, whose contexts are used again and again.

aiokafka takes cramjam's, which makes a new one for each batch: some 13 µs to compress and 12 µs to decompress, however
little there is in it; and outside of full load a batch is a record or ten.
"""

from __future__ import annotations

import threading

import zstandard
from aiokafka.record import default_records

try:
    from aiokafka.record._crecords import default_records as compiled_records
except ImportError:  # an aiokafka that was built without its extensions
    compiled_records = default_records

_LEVEL = 3
"""Kafka's own default (KIP-390), which aiokafka takes too."""


class _Contexts(threading.local):
    """What compresses and decompresses; neither may be used by two threads at a time."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def compress(data: bytes | bytearray | memoryview) -> bytes:
    """Return ``data`` in one frame that says its size."""
    return _contexts.compress(data)


def decompress(data: bytes | bytearray | memoryview) -> bytes:
    """Return what is in the frames of ``data``: those of other clients come without a size, and may be several.

    Raises:
        zstandard.ZstdError: it is no zstd, or cut short.
    """
    decompressor = _contexts.decompressor
    if zstandard.frame_content_size(data) > 0:
        try:
            return decompressor.decompress(data, allow_extra_data=False)
        except zstandard.ZstdError:  # more than one frame, or none: the other way tells
            pass
    found, rest = [], bytes(data)
    while rest:
        walk = decompressor.decompressobj()
        found.append(walk.decompress(rest))
        if not walk.eof:
            raise zstandard.ZstdError("the data ends within a frame")
        rest = walk.unused_data
    return b"".join(found)


def decompress_by_zstandard() -> None:
    """Let aiokafka's consumers decompress so, those of the whole process.

    The codec has no public place to be changed at: this leans on the one version that pyproject.toml names.
    """
    default_records.zstd_decode = compiled_records.zstd_decode = decompress
