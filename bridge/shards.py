"""Which shards this process works on: it takes over what it is assigned, and lets go of what it is not.

Called by the group membership (:class:`~bridge.kafka.membership.ShardOwner`). A shard's new owner claims it first, in
``control.checkpoints``: the claim's place there is the shard's epoch. Then it reads what earlier owners published,
and goes on behind it.

A membership that is lost does not end the work at once: Kafka may have been away for all. Nothing is sent without a
lease; what waits goes out when the membership is back and nobody has claimed a shard meanwhile, and is discarded
otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from bridge import __version__
from bridge.core.schema import encode
from bridge.cursor import CursorReader, claim_key, read_control
from bridge.errors import KafkaUnavailable, SinkError
from bridge.telemetry import Lifecycle
from bridge.worker import shard_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from bridge.catalogue import ChosenStream
    from bridge.core.instruments import Instruments
    from bridge.cursor import Control
    from bridge.kafka.publisher import KafkaPublisher
    from bridge.kafka.settings import KafkaSettings
    from bridge.model import Market
    from bridge.worker import Pool, ShardWorker, Surroundings

log = logging.getLogger("bridge")

_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0)


class Maker(Protocol):
    """What the wiring makes for shards."""

    async def publisher_of(self, shard: int) -> KafkaPublisher:
        """Return the publisher of a shard, started."""

    async def dismiss(self, publisher: KafkaPublisher, timeout: float) -> None:
        """Take back the publisher of a shard that is another's now; nothing of it is to be published."""

    def worker(self, shard: int, epoch: int, publisher: KafkaPublisher) -> ShardWorker:
        """Return a worker without streams."""

    def pool(self, worker: ShardWorker, market: Market, streams: Sequence[ChosenStream]) -> Pool:
        """Return the connections of a shard's streams on a market, not opened yet."""

    async def instruments(self, market: Market, *, anew: bool) -> Instruments:
        """Return the instruments of a market, however long the exchange takes; ``anew`` asks in any case."""

    def choose(self, market: Market, table: Instruments) -> list[ChosenStream]:
        """Return the streams of a market that are subscribed to, of all shards."""


class Shards:
    """The shards of this process.

    Args:
        settings: where Kafka is.
        publisher: the process's own publisher, which writes the claims.
        maker: makes what shards need.
        around: what workers have in common.
        bridge: name that the processes sharing the work have in common.
        instance: name of this process.
        process: random number of this process.
        markets: the markets to read.
        count: how many shards there are.
        read_committed: readers of Kafka leave out what was never committed.
        spawn: runs something beside; a failure ends the bridge.

    Attributes:
        workers: by number of shard.
        around: see above.
        suspended: why nothing may be sent at the moment; None while the membership holds.
        assigned_once: whether the group has given this process its share.
    """

    def __init__(
        self,
        *,
        settings: KafkaSettings,
        publisher: KafkaPublisher,
        maker: Maker,
        around: Surroundings,
        bridge: str,
        instance: str,
        process: int,
        markets: Sequence[Market],
        count: int,
        read_committed: bool,
        spawn: Callable[[Coroutine[None, None, None], str], asyncio.Task[None]],
    ) -> None:
        self._settings, self._publisher, self._maker, self.around = settings, publisher, maker, around
        self._bridge, self._instance, self._process = bridge, instance, process
        self._markets, self._read_committed, self._spawn = markets, read_committed, spawn
        self._topic = around.names.of("control", "checkpoints")
        self._cursor = CursorReader(settings, around.catalogue, around.names, read_committed=read_committed)
        self._taking: asyncio.Task[None] | None = None
        self._stopping = False
        self.workers: dict[int, ShardWorker] = {}
        self._count = count
        self.suspended: str | None = None
        self.assigned_once = False

    def of(self, market: Market, name: str) -> ShardWorker | None:
        """Return the worker of a stream by its exchange symbol, or its own name where it has none."""
        return self.workers.get(shard_of(market, name, self._count))

    def carrier(self, market: Market, stream: str) -> ShardWorker | None:
        """Return the worker that has a stream of that name."""
        for worker in self.workers.values():
            if stream in worker.streams.get(market, ()):
                return worker
        return None

    # What the membership calls

    async def assigned(self, shards: frozenset[int]) -> None:
        """Go on with the shards that are kept, end those that are gone, and take over new ones."""
        await self._end_taking()
        self.assigned_once = True
        if self.suspended is None:
            await self._let_go(shards)
            self._take(shards)
        elif self.workers:
            self._taking = self._spawn(self._go_on_or_give_up(shards), "membership")
        else:
            self.suspended = None
            self._take(shards)

    async def revoking(self, shards: frozenset[int]) -> None:  # noqa: ARG002 - all of them
        """Stand still, with everything that was taken in acknowledged and its checkpoints written."""
        await self._end_taking()
        await asyncio.gather(*(worker.quiesce() for worker in self.workers.values()))
        await self._publisher.settle()

    async def lost(self, reason: str) -> None:
        """Send nothing more; whether the work goes on shows when the membership is back."""
        await self._end_taking()
        self.suspended = reason
        for worker in self.workers.values():
            worker.go_on()

    # Taking over and letting go

    def _take(self, shards: frozenset[int]) -> None:
        new = shards - self.workers.keys()
        if new and not self._stopping:
            self._taking = self._spawn(self._take_over(sorted(new)), f"take over {len(new)} shards")

    async def _end_taking(self) -> None:
        """Cancel a take-over; shards that are not at work by then are none of ours."""
        taking, self._taking = self._taking, None
        if taking is not None and not taking.done():
            taking.cancel()
            await asyncio.wait([taking])
        for worker in [one for one in self.workers.values() if not one.carrying]:
            await self._end(worker, "not taken over in time")

    async def _let_go(self, kept: frozenset[int]) -> None:
        gone = [worker for shard, worker in self.workers.items() if shard not in kept]
        for worker in self.workers.values():
            if worker.shard in kept:
                worker.go_on()
        await asyncio.gather(*(self._end(worker, "assigned to another process") for worker in gone))

    async def _end(self, worker: ShardWorker, reason: str) -> None:
        self.workers.pop(worker.shard, None)
        await worker.abandon()
        await self._maker.dismiss(worker.publisher, 2.0)
        self.around.telemetry.emit(Lifecycle(event="shard.revoked", shard=worker.shard, reason=reason))

    async def _go_on_or_give_up(self, shards: frozenset[int]) -> None:
        """Go on where nobody else has claimed a shard while we were no member; else discard what waits."""
        reason = self.suspended
        claims = (await self._control()).claims
        taken = [
            worker
            for worker in self.workers.values()
            if worker.shard not in shards or worker.epoch != claims[worker.shard].epoch
        ]
        if taken:
            # Partitions hold records of several shards in one batch: none can be taken out by itself.
            dropped = sum(records for _, records in self._publisher.discard())
            listed = ", ".join(str(worker.shard) for worker in taken)
            text = f"{reason}; shard {listed} has another owner; {dropped} records are discarded unsent"
            log.warning("shards: %s", text)
            await asyncio.gather(*(self._end(worker, text) for worker in list(self.workers.values())))
        self.suspended = None
        if not self._stopping:
            await self._take_over(sorted(shards - self.workers.keys()))

    async def _control(self) -> Control:
        attempt = 0
        while True:
            try:
                return await read_control(
                    self._settings, self._topic, self._bridge, read_committed=self._read_committed
                )
            except KafkaUnavailable as error:
                log.warning("%s; trying again", error)
            await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
            attempt += 1

    async def _take_over(self, shards: Sequence[int]) -> None:
        """Claim shards and go on where their owners stopped; again and again while Kafka does not let us."""
        attempt = 0
        while shards:
            try:
                await self._claim(shards)
            except SinkError as error:
                log.warning("shards: not taken over yet: %s", error)
                for shard in shards:
                    if shard in self.workers:
                        await self._end(self.workers[shard], str(error))
            else:
                return
            if self._taking is not asyncio.current_task():
                return  # cancelled, and a library took it for a time-out of its own
            await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
            attempt += 1

    async def _claim(self, shards: Sequence[int]) -> None:
        publishers = {shard: await self._maker.publisher_of(shard) for shard in shards}
        for shard in shards:
            self._write_claim(shard)
        await self._publisher.settle()
        control = await self._control()
        for shard, publisher in publishers.items():
            claim = control.claims[shard]
            if claim.process != self._process:
                raise SinkError(f"shard {shard} was claimed by {claim.instance} a moment ago")
            worker = self.workers[shard] = self._maker.worker(shard, claim.epoch, publisher)
            text = f"epoch {claim.epoch}"
            self.around.telemetry.emit(Lifecycle(event="shard.assigned", shard=shard, reason=text))
        workers = [self.workers[shard] for shard in shards]
        carrying = [asyncio.ensure_future(self._carry(market, control, workers)) for market in self._markets]
        try:
            await asyncio.gather(*carrying)
        finally:
            for one in carrying:
                one.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)
        for worker in workers:
            worker.carrying = True

    def _write_claim(self, shard: int) -> None:
        now = self.around.now()
        record = {
            "shard": shard, "instance": self._instance, "process": self._process, "version": __version__, "at": now,
        }  # fmt: skip
        key = claim_key(self._bridge, shard)
        lane = self._publisher.lane(self._topic, key)
        lane.append(now // 1000, key, encode(self.around.schemas["shard-claim"], record))

    async def _carry(self, market: Market, control: Control, workers: Sequence[ShardWorker]) -> None:
        """Carry the streams of a market. Each by itself: one that can't be reached holds up no other."""
        first = any(worker.shard == 0 for worker in workers)
        table = await self._maker.instruments(market, anew=first)
        chosen = self._maker.choose(market, table)
        for worker in workers:
            own = [
                one
                for one in chosen
                if shard_of(market, one.stream.symbol or one.stream.name, self._count) == worker.shard
            ]
            places = worker.prepare(market, table, own)
            found = await self._cursor.find(control, own, places)
            await worker.carry(market, own, found, self._maker.pool(worker, market, own))

    # The end

    async def stop(self, seconds: float) -> None:
        """End all work in order: nothing more comes in, and everything that came is derived and queued."""
        self._stopping = True
        await self._end_taking()
        await asyncio.gather(*(worker.drain(seconds) for worker in self.workers.values()))
