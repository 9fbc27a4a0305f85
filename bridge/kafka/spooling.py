"""What of the outboxes is in files: writes batches that wait too long, brings them back when their turn comes.

Twice in each sync window every batch whose oldest record waits for half a window, open ones included, is written to
the spool and synced, and its bytes leave the memory. So what is not acknowledged a window after it was appended is in
a file, and the outbox keeps only a stub of it. When much is queued nothing waits for its age.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from bridge.kafka.outbox import BatchFormat, Buffer, Identity, Outbox, SealedBatch
from bridge.kafka.spool import Location, Spool, SpoolDamaged, Stamp, Write, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from aiokafka.structs import TopicPartition

    from bridge.kafka.publisher import TroubleKind
    from bridge.kafka.settings import SpoolSettings

log = logging.getLogger("bridge")

_TURN_BYTES = 64 * 1024 * 1024
_LOAD_BYTES = 32 * 1024 * 1024
_PRESSED = 0.25
_ROOMY = 0.1
_ENTRY_OVERHEAD_BYTES = 300
_IDLE_SECONDS = 0.05
_READ_AGAIN_SECONDS = 1.0
_FORGOTTEN_SECONDS = 86_400.0
"""Kafka's default of ``producer.id.expiration.ms``."""


class Port(NamedTuple):
    """What the publisher lets us do.

    Attributes:
        tell: report a trouble, once until it is over.
        over: report that the trouble with the spool is over, if there was one.
        pump: look for what can be sent.
        lost: records left the queue other than by an acknowledgement.
    """

    tell: Callable[[TroubleKind, str, str], None]
    over: Callable[[], None]
    pump: Callable[[], None]
    lost: Callable[[], None]


class Spooling:
    """The spool of one publisher.

    Args:
        settings: where and how much.
        outboxes: those of the publisher.
        buffer: what they count their bytes in memory with.
        batch_format: how a batch is built anew when a part of it is already published.
        port: the publisher's side.
    """

    def __init__(
        self,
        settings: SpoolSettings,
        outboxes: Mapping[TopicPartition, Outbox],
        buffer: Buffer,
        batch_format: BatchFormat,
        port: Port,
    ) -> None:
        self._settings, self._outboxes, self._buffer = settings, outboxes, buffer
        self._format, self._port = batch_format, port
        self._age = settings.sync_ms / 2000
        self._spool: Spool | None = None
        self._task: asyncio.Task[None] | None = None
        self._loader: asyncio.Task[None] | None = None
        self._wanted: dict[Outbox, None] = {}
        self._urgent = asyncio.Event()
        self._ending = False
        self._full = False  # until there is ample room again
        self._refused = False  # the last write failed, so the next one tries a single batch

    # Life.

    @property
    def used_bytes(self) -> int:
        """Bytes of the files."""
        return self._spool.used_bytes if self._spool is not None else 0

    async def open(self) -> None:
        """Read what is there and begin to write.

        Raises:
            ConfigError: another process has the directory, it cannot be written, or another version wrote it.
        """
        self._spool = await asyncio.to_thread(Spool, self._settings.directory, self._settings.max_bytes)
        self._ending = False
        self._buffer.watch(int(_PRESSED * self._buffer.limit_bytes), self._urgent.set)
        self._task = asyncio.create_task(self._run(self._spool), name="kafka spool")
        self._task.add_done_callback(self._ended)

    async def close(self, timeout: float) -> None:
        """Write all that is queued and close the files, in ``timeout`` seconds if the disk lets us."""
        spool, task = self._spool, self._task
        if spool is None or task is None:
            return
        self._ending = True
        self._urgent.set()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait({task})
                while await self._turn(spool, age=0.0):
                    pass
        except TimeoutError:
            # A thread may still be writing, so the files stay open until the process ends.
            log.warning("spool: %s takes too long; not all could be written", self._settings.directory)
            task.cancel()
            return
        if self._loader is not None:
            self._loader.cancel()
            await asyncio.wait({self._loader})
        self._spool = self._task = None
        spool.close()
        kept = sum(outbox.stored for outbox in self._outboxes.values())
        if kept:
            log.warning("spool: %d records wait in %s for the next start", kept, self._settings.directory)

    # What an earlier process left.

    def recoverable(self) -> list[tuple[str, int]]:
        """Return topic and number of records that wait in the files since before the start."""
        totals: dict[str, int] = {}
        for place, batches in self._spool.pending().items() if self._spool is not None else ():
            skip = self._spool.stamp(place).skip if self._spool is not None else 0
            totals[place.topic] = totals.get(place.topic, 0) + sum(batch.records for batch in batches) - skip
        return sorted(totals.items())

    def places(self) -> list[TopicPartition]:
        """Return the partitions of which there are any."""
        return list(self._spool.pending()) if self._spool is not None else []

    async def recover(
        self, keep: Callable[[str], bool], outbox_of: Callable[[TopicPartition], Outbox]
    ) -> list[tuple[str, int]]:
        """Queue what an earlier process left in the topics to keep; drop the rest and return its topics and numbers."""
        spool = self._spool
        if spool is None:
            return []
        dropped = [(topic, records) for topic, records in self.recoverable() if not keep(topic)]
        unwanted = []
        for place, batches in spool.take_pending().items():
            if not keep(place.topic):
                unwanted.append(place)
                continue
            queued_at = monotonic()
            stubs = [SealedBatch(None, b.records, b.record_bytes, queued_at, b.size) for b in batches]
            for stub, batch in zip(stubs, batches, strict=True):
                stub.number, stub.stored = batch.number, True
            await self._restore(spool, outbox_of(place), stubs)
        spool.drop(unwanted)
        self._port.pump()
        return dropped

    async def _restore(self, spool: Spool, outbox: Outbox, batches: list[SealedBatch]) -> None:
        """Queue the batches, the first of them under the stamp that it may have been sent with."""
        stamp = spool.stamp(outbox.place)
        first = batches[0]
        if stamp.number == first.number and stamp.producer_id >= 0:
            outbox.identity = Identity(stamp.producer_id, stamp.epoch)
            outbox.sequence, outbox.unsure = stamp.sequence, True
            if time.time() - spool.noted_at(outbox.place) > _FORGOTTEN_SECONDS:
                log.warning(
                    "spool: %s, partition %d was written to more than a day ago; if the brokers have forgotten "
                    "its producer, its first %d records may be stored twice",
                    *outbox.place,
                    first.records,
                )
        if stamp.number == first.number and (stamp.skip or stamp.records):
            first.put(await asyncio.to_thread(read, spool.directory, spool.locate(outbox.place)))
            batches[:1] = _parts(self._format, first, stamp)
        outbox.restore(batches)

    # What goes by way of the publisher.

    def sending(self, outbox: Outbox, batch: SealedBatch) -> None:
        """Note under which stamp a batch goes, before it goes."""
        if batch.number >= 0 and outbox.identity is not None:
            records = batch.records if batch.part else 0
            self._note(outbox, Stamp(batch.number, batch.skip, records, *outbox.identity, outbox.sequence))

    def done(self, outbox: Outbox, batch: SealedBatch) -> None:
        """Note that a batch was acknowledged, or dropped for good."""
        if batch.number < 0:
            return
        who = outbox.identity or Identity(-1, -1)
        if batch.rest:
            self._note(outbox, Stamp(batch.number, batch.skip + batch.records, 0, *who, outbox.sequence))
        else:
            self._note(outbox, Stamp(batch.number + 1, 0, 0, *who, outbox.sequence))

    def discarded(self) -> None:
        """Take all that was queued for done."""
        if self._spool is not None:
            try:
                self._spool.drop(self._spool.places())
            except OSError as error:
                self._refuse(error)

    def want(self, outbox: Outbox) -> None:
        """Bring the bytes of the first batch back; the publisher's pump is called once they are here."""
        self._wanted[outbox] = None
        if self._loader is None and self._spool is not None:
            self._loader = asyncio.create_task(self._load(self._spool), name="kafka spool load")

    def _note(self, outbox: Outbox, stamp: Stamp) -> None:
        if self._spool is not None:
            try:
                self._spool.note(outbox.place, stamp)
            except OSError as error:
                self._refuse(error)

    def _refuse(self, error: OSError) -> None:
        self._refused = True
        text = f"{self._settings.directory} cannot be written: {error.strerror or error}"
        self._port.tell("spool", "spool", f"{text}; records wait in memory, as long as buffer_bytes lasts")

    # Writing.

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("spool: writing ended", exc_info=error)
            self._port.tell("spool", "spool", f"writing ended: {error!r}; records wait in memory")

    async def _run(self, spool: Spool) -> None:
        while not self._ending:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._age):
                    await self._urgent.wait()
            self._urgent.clear()
            pressed = self._buffer.bytes >= self._buffer.look_bytes
            if not await self._turn(spool, age=0.0 if pressed else self._age):
                await asyncio.sleep(min(_IDLE_SECONDS, self._age))

    async def _turn(self, spool: Spool, *, age: float) -> bool:
        """Write what is queued for ``age`` seconds or more; return whether anything was written."""
        if spool.pending():
            return False  # it comes first, and whether it may be published is not decided
        self._leave_held_ones()
        try:
            chosen = self._choose(spool, age)
            writes = self._number(spool, chosen)
            dead = spool.retire()
            if not (writes or dead or spool.unsynced):
                return False
            locations = await asyncio.to_thread(_write, spool, writes, dead)
        except OSError as error:
            self._refuse(error)
            return False
        spool.commit(writes, locations)
        for outbox, batch in chosen:
            batch.stored = True
            if batch.waiting and not (outbox.in_flight and outbox.first is batch):
                outbox.unload(batch)
        self._refused = self._refused and not writes
        self._full = self._full and spool.room < _ROOMY * spool.max_bytes
        if not (self._refused or self._full):
            self._port.over()
        return bool(writes)

    def _leave_held_ones(self) -> None:
        """Let go of the bytes of batches that could not be sent, until they are tried again."""
        now = monotonic()
        for outbox in self._outboxes.values():
            first = outbox.first
            if first is None or not (first.loaded and first.stored) or first.part or outbox.in_flight:
                continue
            if outbox.held_until > now:
                outbox.unload(first)

    def _choose(self, spool: Spool, age: float) -> list[tuple[Outbox, SealedBatch]]:
        """Seal and return what is due to be written, in the order of each partition, as far as there is room."""
        now, room, left = monotonic(), spool.room, _TURN_BYTES
        chosen: list[tuple[Outbox, SealedBatch]] = []
        for outbox in list(self._outboxes.values()):
            if now - outbox.open_since >= age:
                outbox.seal()
            for batch in outbox.not_stored():
                size = batch.size + _ENTRY_OVERHEAD_BYTES
                if now - batch.queued_at < age or left < 0:
                    break
                if size > room:
                    self._full = True
                    text = f"spool.max_bytes, {spool.max_bytes}, is reached"
                    self._port.tell(
                        "spool", "spool", f"{text}; records wait in memory, as long as buffer_bytes lasts"
                    )
                    return chosen
                room, left = room - size, left - size
                chosen.append((outbox, batch))
                if self._refused:
                    return chosen
        return chosen

    def _number(self, spool: Spool, chosen: Sequence[tuple[Outbox, SealedBatch]]) -> list[Write]:
        """Give each batch its number; where one is its partition's first, note whether it may be sent already."""
        writes = []
        for outbox, batch in chosen:
            place = outbox.place
            if batch.number < 0:
                batch.number = spool.take_number(place)
                if spool.stamp(place).number == batch.number:
                    sent = outbox.identity is not None and (outbox.unsure or outbox.in_flight)
                    stamp = Stamp(batch.number)
                    if sent and outbox.identity is not None:
                        stamp = Stamp(batch.number, 0, 0, *outbox.identity, outbox.sequence)
                    spool.note(place, stamp)
            writes.append(Write(place, batch.number, batch.records, batch.record_bytes, batch.data))
        return writes

    # Reading.

    async def _load(self, spool: Spool) -> None:
        try:
            while self._wanted:
                wanted = self._next_wanted(spool)
                found = await asyncio.to_thread(_read, spool.directory, [location for *_, location in wanted])
                for (outbox, batch, _), data in zip(wanted, found, strict=True):
                    if outbox.first is batch and not batch.loaded:
                        self._take(outbox, batch, data)
                self._port.pump()
        finally:
            self._loader = None

    def _next_wanted(self, spool: Spool) -> list[tuple[Outbox, SealedBatch, Location]]:
        """Return whose bytes to read now; the others ask again."""
        chosen, total = [], 0
        for outbox in self._wanted:
            batch = outbox.first
            if batch is None or batch.loaded or total > _LOAD_BYTES:
                continue
            total += batch.size
            chosen.append((outbox, batch, spool.locate(outbox.place)))
        self._wanted.clear()
        return chosen

    def _take(self, outbox: Outbox, batch: SealedBatch, data: bytearray | OSError | SpoolDamaged) -> None:
        partition = f"partition {outbox.place.partition}"
        if isinstance(data, bytearray):
            outbox.load(batch, data)
        elif isinstance(data, OSError):
            outbox.held_until = monotonic() + _READ_AGAIN_SECONDS
            text = f"{partition}: the spool cannot be read: {data.strerror or data}; it is tried again"
            self._port.tell("spool", outbox.place.topic, text)
        else:
            text = f"{partition}: {batch.records} records are lost: {data}"
            log.error("spool: %s, %s", outbox.place.topic, text)
            self._port.tell("spool", outbox.place.topic, text)
            self.done(outbox, outbox.drop())
            self._port.lost()


def _parts(batch_format: BatchFormat, whole: SealedBatch, stamp: Stamp) -> list[SealedBatch]:
    """Return what of a batch is not done, cut as it was when the stamp was noted."""
    records = whole.unpack()
    end = stamp.skip + stamp.records if stamp.records else whole.records
    parts = []
    for begin, stop in ((stamp.skip, end), (end, whole.records)):
        if begin < stop:
            part = batch_format.seal(records[begin:stop], whole.queued_at)
            part.number, part.stored = whole.number, True
            part.skip, part.rest = begin, whole.records - stop
            parts.append(part)
    return parts


def _write(spool: Spool, writes: Sequence[Write], dead: Sequence[Path]) -> list[Location]:
    locations = spool.write(writes, dead)
    spool.sync()
    return locations


def _read(directory: Path, locations: Sequence[Location]) -> list[bytearray | OSError | SpoolDamaged]:
    found: list[bytearray | OSError | SpoolDamaged] = []
    for location in locations:
        try:
            found.append(read(directory, location))
        except (OSError, SpoolDamaged) as error:
            found.append(error)
    return found
