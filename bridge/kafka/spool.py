"""Record batches in files, for when Kafka is away: what is there, and how far each partition has got.

The directory holds three kinds of files:

* ``<number>.segment``: batches of all partitions in the order they were written, each with a checksum. A segment is
  deleted once all of its batches are done.
* ``heads``: for each partition what comes next (:class:`Stamp`), in a slot of its own that is written in place.
* ``lock``: held by the one process that uses the directory.

Batches are numbered within their partition; those before the number of the partition's stamp are done. What a crash
left half written at the end of a segment is cut off.

:class:`Spool` belongs to one event loop's thread, but for :meth:`Spool.write`, :meth:`Spool.sync`, and :func:`read`,
which do the slow work and may run in another thread, one at a time. It sends nothing and decides nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections import deque
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from aiokafka.structs import TopicPartition

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

log = logging.getLogger("bridge")

SEGMENT_BYTES = 32 * 1024 * 1024

_MAGIC = b"bkspool1"
_ENTRY = Struct(">IIQIIHi")
"""Checksum of all that follows, bytes of the batch, number, records, record_bytes, bytes of the topic, partition."""
_CRC = Struct(">I")
# The producer's fields of a record batch and the checksum over them change whenever it is sent, even while it is
# being written here, so our checksum leaves them out; they are written anew before each sending.
_FIXED = (slice(0, 17), slice(21, 43), slice(57, None))

_SLOT_BYTES = 512
_NAME = Struct(">IHi")
"""Checksum, bytes of the topic, partition; the topic follows."""
_STAMP = Struct(">IQQIIqhiQ")
"""Checksum, generation, number, skip, records, producer id, epoch, sequence, milliseconds since the epoch."""
_STAMPS_AT = (384, 448)  # two copies, written in turn: a torn one leaves the other


class SpoolDamaged(Exception):  # noqa: N818 - it says what is the case
    """A batch in the spool is not what was written."""


class Stamp(NamedTuple):
    """What comes next in a partition, and under which identity it may have been sent already.

    Attributes:
        number: all batches before this one are done.
        skip: how many records of this one are done too.
        records: how many records after those are sent together; 0 means all.
        producer_id: who sent it, or will; -1 while it was not sent.
        epoch: the producer's epoch.
        sequence: the sequence of its first record.
    """

    number: int = 0
    skip: int = 0
    records: int = 0
    producer_id: int = -1
    epoch: int = -1
    sequence: int = 0


_NOTHING = Stamp()


class Write(NamedTuple):
    """A batch to be written."""

    place: TopicPartition
    number: int
    records: int
    record_bytes: int
    data: bytearray


class Kept(NamedTuple):
    """A batch found in the spool at the start; ``size`` is in bytes."""

    number: int
    records: int
    record_bytes: int
    size: int


class Location(NamedTuple):
    """Where a batch lies: the number of its segment, and the offset of its entry."""

    segment: int
    offset: int


@dataclass(slots=True)
class _Segment:
    path: Path
    size: int = 0
    undone: int = 0  # batches


@dataclass(slots=True)
class _Partition:
    """What is known of one partition; ``entries`` are its batches that are not done, each packed in one integer."""

    slot: int
    stamp: Stamp = _NOTHING
    generation: int = 0
    noted_ms: int = 0
    next_number: int = 0
    entries: deque[int] = field(default_factory=deque)


def _packed(number: int, location: Location) -> int:
    # One integer takes 44 bytes where a tuple of three takes 150, and there may be hundreds of thousands.
    return number << 64 | location.segment << 32 | location.offset


class Spool:
    """The files of one directory. Opening reads them, so it takes a second per gigabyte or so.

    Args:
        directory: made if it is not there.
        max_bytes: most bytes of segments; :attr:`room` tells what is left, and the caller keeps to it.
        segment_bytes: size at which a segment is closed.

    Raises:
        ConfigError: another process has the directory, it cannot be written, or another version wrote it.
    """

    def __init__(self, directory: Path, max_bytes: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory, self.max_bytes = directory, max_bytes
        self._segment_bytes = max(min(segment_bytes, max_bytes // 8), 1)
        self._segments: dict[int, _Segment] = {}
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._pending: dict[TopicPartition, list[Kept]] = {}
        self._current = -1  # descriptor of the newest segment, -1 while none is open
        self._newest = 0  # of the newest segment
        self._heads = self._lock = -1
        self._heads_changed = self._open = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(directory)
            self._heads = os.open(directory / "heads", os.O_RDWR | os.O_CREAT, 0o600)
            self._read_heads()
            self._read_segments()
            self._open = True
        except OSError as error:
            self.close()
            raise ConfigError(
                f"spool.directory: {directory} cannot be used: {error.strerror or error}; "
                "the process must be able to create and write files in it"
            ) from None
        except BaseException:
            self.close()
            raise

    # What is there.

    @property
    def used_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in list(self._segments.values()))

    @property
    def room(self) -> int:
        """Bytes that may still be written."""
        return self.max_bytes - self.used_bytes

    def pending(self) -> dict[TopicPartition, list[Kept]]:
        """Return what an earlier process left, in order; empty once :meth:`take_pending` was called."""
        return self._pending

    def take_pending(self) -> dict[TopicPartition, list[Kept]]:
        """Return what an earlier process left, in order; the caller sees to it from now on."""
        pending, self._pending = self._pending, {}
        return pending

    def stamp(self, place: TopicPartition) -> Stamp:
        """Return what was noted last of a partition."""
        partition = self._partitions.get(place)
        return partition.stamp if partition is not None else Stamp()

    def noted_at(self, place: TopicPartition) -> float:
        """Return when that was, in seconds since the epoch; 0 for never."""
        partition = self._partitions.get(place)
        return partition.noted_ms / 1000 if partition is not None else 0.0

    def locate(self, place: TopicPartition) -> Location:
        """Return where the first batch of a partition lies that is not done."""
        packed = self._partitions[place].entries[0]
        return Location(packed >> 32 & 0xFFFFFFFF, packed & 0xFFFFFFFF)

    # Noting.

    def take_number(self, place: TopicPartition) -> int:
        """Return the number of the next batch of a partition.

        Raises:
            OSError: a new partition's slot cannot be written.
        """
        partition = self._partition(place)
        number = partition.next_number
        partition.next_number += 1
        return number

    def note(self, place: TopicPartition, stamp: Stamp) -> None:
        """Note what comes next in a partition, before it is sent; what lies before that is done.

        It is with the operating system when this returns, so it outlives the process; :meth:`sync` lets it outlive
        the machine.

        Raises:
            OSError: it cannot be written. It holds for this process all the same.
        """
        partition = self._partition(place)
        if stamp == partition.stamp:
            return
        partition.stamp = stamp
        partition.next_number = max(partition.next_number, stamp.number)
        entries = partition.entries
        while entries and entries[0] >> 64 < stamp.number:
            self._segments[entries.popleft() >> 32 & 0xFFFFFFFF].undone -= 1
        partition.generation += 1
        partition.noted_ms = time.time_ns() // 1_000_000
        body = _STAMP.pack(0, partition.generation, *stamp, partition.noted_ms)[_CRC.size :]
        at = partition.slot * _SLOT_BYTES + _STAMPS_AT[partition.generation & 1]
        self._heads_changed = True
        os.pwrite(self._heads, _CRC.pack(crc32(body)) + body, at)

    def drop(self, places: Iterable[TopicPartition]) -> None:
        """Take all batches of these partitions for done.

        Raises:
            OSError: it cannot be written.
        """
        for place in places:
            partition = self._partitions[place]
            if partition.stamp.number < partition.next_number:
                self.note(place, Stamp(partition.next_number))

    def places(self) -> list[TopicPartition]:
        """Return every partition ever noted that is not among the pending ones."""
        return [place for place in self._partitions if place not in self._pending]

    def _partition(self, place: TopicPartition) -> _Partition:
        partition = self._partitions.get(place)
        if partition is None:
            slot = max((known.slot for known in self._partitions.values()), default=-1) + 1
            topic = place.topic.encode()
            body = _NAME.pack(0, len(topic), place.partition)[_CRC.size :] + topic
            os.posix_fallocate(self._heads, slot * _SLOT_BYTES, _SLOT_BYTES)
            os.pwrite(self._heads, _CRC.pack(crc32(body)) + body, slot * _SLOT_BYTES)
            self._heads_changed = True
            partition = self._partitions[place] = _Partition(slot)
        return partition

    # Writing.

    def retire(self) -> list[Path]:
        """Forget the segments whose batches are all done; return their files, for :meth:`write` to delete.

        Call it before :meth:`write`, and never while that is under way.
        """
        idle = not any(segment.undone for segment in self._segments.values())
        if idle:
            self._close_current()
        current = self._newest if self._current >= 0 else -1
        dead = [n for n, segment in self._segments.items() if not segment.undone and n != current]
        return [self._segments.pop(number).path for number in dead]

    @property
    def unsynced(self) -> bool:
        """Whether something was noted since the last :meth:`sync`."""
        return self._heads_changed

    def write(self, writes: Sequence[Write], dead: Iterable[Path] = ()) -> list[Location]:
        """Append batches, delete ``dead`` files; return where each batch lies, for :meth:`commit`. Blocks.

        Raises:
            OSError: not all could be written, and none counts as written.
        """
        for path in dead:
            path.unlink(missing_ok=True)
        locations: list[Location] = []
        while len(locations) < len(writes):
            segment = self._open_segment()
            entries: list[bytes | bytearray] = []
            end = segment.size
            for write in writes[len(locations) :]:
                if end >= self._segment_bytes and entries:
                    break
                locations.append(Location(self._newest, end))
                header = _header(write)
                entries += [header, write.data]
                end += len(header) + len(write.data)
            _write_at(self._current, entries, segment.size)
            segment.size = end
        return locations

    def commit(self, writes: Sequence[Write], locations: Sequence[Location]) -> None:
        """Count batches that :meth:`write` has written, unless they are done already."""
        for write, location in zip(writes, locations, strict=True):
            partition = self._partitions[write.place]
            if write.number >= partition.stamp.number:
                partition.entries.append(_packed(write.number, location))
                self._segments[location.segment].undone += 1

    def sync(self) -> None:
        """Make all that was written and noted outlive the machine. Blocks.

        Raises:
            OSError: the disk says it could not.
        """
        if self._current >= 0:
            os.fdatasync(self._current)
        if self._heads_changed:
            self._heads_changed = False
            os.fsync(self._heads)

    def close(self) -> None:
        """Close every file and let go of the directory; delete the segments if all is done."""
        if self._open and not self._pending:
            for path in self.retire():
                path.unlink(missing_ok=True)
        self._close_current()
        for descriptor in (self._heads, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._heads = self._lock = -1
        self._open = False

    def _open_segment(self) -> _Segment:
        """Return the segment to append to; a new one where there is none, or it is full."""
        if self._current >= 0 and self._segments[self._newest].size >= self._segment_bytes:
            os.fdatasync(self._current)
            self._close_current()
        if self._current < 0:
            number = self._newest + 1
            path = self.directory / f"{number:012d}.segment"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                _write_at(descriptor, [_MAGIC], 0)
                _sync_directory(self.directory)
            except OSError:
                os.close(descriptor)
                raise
            self._current, self._newest = descriptor, number
            self._segments[number] = _Segment(path, len(_MAGIC))
        return self._segments[self._newest]

    def _close_current(self) -> None:
        current, self._current = self._current, -1
        if current >= 0:
            os.close(current)

    # Reading what an earlier process left.

    def _read_heads(self) -> None:
        size = os.fstat(self._heads).st_size
        for slot in range(size // _SLOT_BYTES):
            content = os.pread(self._heads, _SLOT_BYTES, slot * _SLOT_BYTES)
            crc, length, number = _NAME.unpack_from(content)
            if crc != crc32(content[_CRC.size : _NAME.size + length]):
                # Never noted, or lost with the machine: its place stays taken.
                self._partitions[TopicPartition("", -1 - slot)] = _Partition(slot)
                continue
            place = TopicPartition(content[_NAME.size : _NAME.size + length].decode(), number)
            partition = self._partitions[place] = _Partition(slot)
            for at in _STAMPS_AT:
                body = content[at + _CRC.size : at + _STAMP.size]
                crc, generation, *values, noted_ms = _STAMP.unpack_from(content, at)
                if crc == crc32(body) and generation > partition.generation:
                    partition.stamp, partition.generation = Stamp(*values), generation
                    partition.noted_ms = noted_ms
            partition.next_number = partition.stamp.number

    def _read_segments(self) -> None:
        for path in sorted(self.directory.glob("*.segment")):
            self._newest = number = int(path.stem)
            segment = self._segments[number] = _Segment(path)
            content = path.read_bytes()
            if not content.startswith(_MAGIC) and len(content) >= len(_MAGIC):
                raise ConfigError(
                    f"spool.directory: {path} was not written by this version; start the version that wrote it "
                    "until it has published it, or move the directory away"
                )
            segment.size = self._read_entries(number, content)
            if segment.size < len(content):
                lost = len(content) - segment.size
                log.warning("spool: cut off %d bytes at the end of %s, half written in a crash", lost, path)
                os.truncate(path, segment.size)

    def _read_entries(self, number: int, content: bytes) -> int:
        """Take stock of a segment; return where its last whole entry ends."""
        at = min(len(_MAGIC), len(content))
        view = memoryview(content)
        while (found := _entry(view, at)) is not None:
            place, kept, end = found
            partition = self._partition(place)
            # One that is there twice was written again after the disk had refused it.
            if kept.number >= partition.next_number:
                partition.entries.append(_packed(kept.number, Location(number, at)))
                partition.next_number = kept.number + 1
                self._segments[number].undone += 1
                self._pending.setdefault(place, []).append(kept)
            at = end
        return at


def read(directory: Path, location: Location) -> bytearray:
    """Return the batch that lies there. Blocks.

    Raises:
        SpoolDamaged: it is not what was written.
        OSError: it cannot be read.
    """
    descriptor = os.open(directory / f"{location.segment:012d}.segment", os.O_RDONLY)
    try:
        header = os.pread(descriptor, _ENTRY.size, location.offset)
        if len(header) == _ENTRY.size:
            _, size, _, _, _, topic, _ = _ENTRY.unpack(header)
            entry = os.pread(descriptor, _ENTRY.size + topic + size, location.offset)
            if _entry(memoryview(entry), 0) is not None:
                return bytearray(memoryview(entry)[_ENTRY.size + topic :])
    finally:
        os.close(descriptor)
    raise SpoolDamaged(f"segment {location.segment} is damaged at byte {location.offset}")


def _header(write: Write) -> bytes:
    topic: bytes = write.place.topic.encode()
    body = _ENTRY.pack(
        0, len(write.data), write.number, write.records, write.record_bytes, len(topic), write.place.partition
    )
    body = body[_CRC.size :] + topic
    return _CRC.pack(_checksum(body, memoryview(write.data))) + body


def _checksum(head: bytes | memoryview, data: memoryview) -> int:
    crc = crc32(head)
    for part in _FIXED:
        crc = crc32(data[part], crc)
    return crc


def _entry(content: memoryview, at: int) -> tuple[TopicPartition, Kept, int] | None:
    """Read the entry that begins there; return its partition, what it is, and where it ends; None if it is torn."""
    if at + _ENTRY.size > len(content):
        return None
    crc, size, number, records, record_bytes, length, partition = _ENTRY.unpack_from(content, at)
    data_at = at + _ENTRY.size + length
    end = data_at + size
    if not size or end > len(content):
        return None
    if crc != _checksum(content[at + _CRC.size : data_at], content[data_at:end]):
        return None
    topic = str(content[at + _ENTRY.size : data_at], "utf-8")
    return TopicPartition(topic, partition), Kept(number, records, record_bytes, size), end


def _write_at(descriptor: int, parts: Sequence[bytes | bytearray], offset: int) -> None:
    """Write all of ``parts`` there; where that fails, cut the file off at ``offset`` again."""
    views = [memoryview(part) for part in parts]
    end, done = offset, 0
    try:
        while done < len(views):
            written = os.pwritev(descriptor, views[done : done + 512], end)
            end += written
            while done < len(views) and written >= len(views[done]):
                written -= len(views[done])
                done += 1
            if written:
                views[done] = views[done][written:]
    except OSError:
        os.ftruncate(descriptor, offset)
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(directory: Path) -> int:
    """Return the descriptor of the directory's lock.

    Raises:
        ConfigError: another process has it.
    """
    path = directory / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise ConfigError(
            f"spool.directory: {directory} is used by another process (pid {owner}); give each process its own"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
