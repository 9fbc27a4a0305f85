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
from typing import TYPE_CHECKING, Protocol, TypeVar

from bridge import __version__
from bridge.core.schema import encode
from bridge.cursor import claim_key
from bridge.errors import DeliveryFailed, SinkError
from bridge.telemetry import Lifecycle
from bridge.worker import shard_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from bridge.catalogue import ChosenStream
    from bridge.core.instruments import Instruments
    from bridge.cursor import Control, CursorReader
    from bridge.kafka.publisher import KafkaPublisher
    from bridge.model import Market
    from bridge.worker import Pool, ShardWorker, Surroundings

log = logging.getLogger("bridge")

T = TypeVar("T")

_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0)


class Maker(Protocol):
    """What the wiring makes for shards."""

    async def publisher_of(self, shard: int) -> KafkaPublisher:
        """Return the publisher of a shard, started."""

    async def dismiss(self, shard: int) -> int:
        """Publish nothing more by a shard's own publisher, if it has one; return how many records are dropped."""

    def worker(self, shard: int, epoch: int, publisher: KafkaPublisher) -> ShardWorker:
        """Return a worker without streams."""

    def pool(self, worker: ShardWorker, market: Market, streams: Sequence[ChosenStream]) -> Pool:
        """Return the connections of a shard's streams on a market, not opened yet."""

    async def instruments(self, market: Market, *, anew: bool) -> Instruments:
        """Return the instruments of a market, however long the exchange takes; ``anew`` asks in any case."""

    def choose(self, market: Market, table: Instruments) -> list[ChosenStream]:
        """Return the streams of a market that are subscribed to, of all shards."""

    async def listen(self, worker: ShardWorker, market: Market) -> None:
        """Let a shard listen to its accounts of a market, if it has any.

        Raises:
            SinkError: Kafka does not tell where they stand.
        """


class Shards:
    """The shards of this process.

    Args:
        cursor: reads claims, and where streams go on.
        publisher: the process's own publisher, which writes the claims.
        maker: makes what shards need.
        around: what workers have in common.
        bridge: name that the processes sharing the work have in common.
        instance: name of this process.
        process: random number of this process.
        markets: the markets to read.
        count: how many shards there are.

    Attributes:
        workers: by number of shard.
        around: see above.
        suspended: why nothing may be sent at the moment; None while the membership holds.
        assigned_once: whether the group has given this process its share.
    """

    def __init__(
        self,
        *,
        cursor: CursorReader,
        publisher: KafkaPublisher,
        maker: Maker,
        around: Surroundings,
        bridge: str,
        instance: str,
        process: int,
        markets: Sequence[Market],
        count: int,
    ) -> None:
        self._cursor, self._publisher, self._maker, self.around = cursor, publisher, maker, around
        self._bridge, self._instance, self._process = bridge, instance, process
        self._markets, self._count = markets, count
        self._topic = around.names.of("control", "checkpoints")
        self._taking: asyncio.Task[None] | None = None
        self._endings: set[asyncio.Task[None]] = set()
        self._assigned: frozenset[int] = frozenset()
        self._stopping = False
        self.workers: dict[int, ShardWorker] = {}
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
        self._assigned = shards
        if self.suspended is None:
            await self._let_go(shards)
        self._begin_taking()

    async def revoking(self, shards: frozenset[int]) -> None:  # noqa: ARG002 - all of them
        """Stand still, with everything that was taken in acknowledged and its checkpoints written."""
        self._assigned = frozenset()
        await self._end_taking()
        if self.suspended is not None:
            return  # nothing was sent since, and whose the shards are is looked up before anything is
        await asyncio.gather(*(worker.quiesce() for worker in self.workers.values()))
        await self._publisher.settle()

    async def lost(self, reason: str) -> None:
        """Send nothing more; whether the work goes on shows when the membership is back."""
        self.suspended = reason
        self._assigned = frozenset()
        await self._end_taking()
        for worker in self.workers.values():
            worker.go_on()

    # What publishers with transactions call

    def before_commit(self, shard: int) -> None:
        """Let a shard add to the transaction that is closed now."""
        worker = self.workers.get(shard)
        if worker is not None:
            worker.before_commit()

    def publisher_ended(self, shard: int, reason: str) -> None:
        """Begin anew with a shard whose publisher publishes nothing more, where the topics say that it stands."""
        if not self._stopping:
            log.warning("shards: %d begins anew: %s", shard, reason)
            self.around.spawn(self._begin_anew(shard, reason), f"shard {shard} begins anew")

    async def _begin_anew(self, shard: int, reason: str) -> None:
        await self._end_taking()
        worker = self.workers.get(shard)
        if worker is not None:
            await self._end(worker, reason)
        else:
            await self._maker.dismiss(shard)
        await self._end_taking()  # whatever began meanwhile
        if self._assigned:
            self._begin_taking()

    # Taking over and letting go

    def _begin_taking(self) -> None:
        """Begin with what is assigned; after a loss, by a look at who has claimed it meanwhile."""
        if not self._stopping:
            take = self._take_over if self.suspended is None else self._go_on_or_give_up
            self._taking = self.around.spawn(take(self._assigned), "taking over shards")

    async def _end_taking(self) -> None:
        """Stop a take-over where it is; what is not carried then is begun again by the next."""
        taking, self._taking = self._taking, None
        while taking is not None and not taking.done():
            taking.cancel()
            # Again where a library took it for a time-out of its own.
            await asyncio.wait([taking], timeout=1.0)

    async def _let_go(self, kept: frozenset[int]) -> None:
        gone = [worker for shard, worker in self.workers.items() if shard not in kept]
        for worker in self.workers.values():
            if worker.shard in kept:
                worker.go_on()
        await asyncio.gather(*(self._end(worker, "assigned to another process") for worker in gone))

    async def _end(self, worker: ShardWorker, reason: str) -> None:
        """End a shard's work. Where the caller is cut off it goes on: half an end would tell nobody."""
        self.workers.pop(worker.shard, None)
        ending = self.around.spawn(self._ending(worker, reason), f"the end of shard {worker.shard}")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        await asyncio.shield(ending)

    async def _ending(self, worker: ShardWorker, reason: str) -> None:
        await self._maker.dismiss(worker.shard)  # before anything else waits: the next owner may be ourselves
        await worker.abandon()
        self.around.telemetry.emit(Lifecycle(event="shard.revoked", shard=worker.shard, reason=reason))

    async def _go_on_or_give_up(self, shards: frozenset[int]) -> None:
        """Go on where nobody else has claimed a shard while we were no member; else discard what waits."""
        reason = self.suspended
        claims = (await self._control()).claims if self.workers else {}
        taken = [
            worker
            for shard, worker in self.workers.items()
            if shard not in shards or shard not in claims or worker.epoch != claims[shard].epoch
        ]
        if taken and self.around.in_transactions:
            await asyncio.gather(*(self._end(one, f"{reason}; it has another owner") for one in taken))
        elif taken:
            # A checkpoint under way must not claim what is discarded.
            await asyncio.gather(*(worker.halt() for worker in self.workers.values()))
            # Partitions hold records of several shards in one batch: none can be taken out by itself.
            dropped = sum(records for _, records in self._publisher.discard())
            listed = ", ".join(str(worker.shard) for worker in taken)
            text = f"{reason}; shard {listed} has another owner; {dropped} records are discarded unsent"
            log.warning("shards: %s", text)
            await asyncio.gather(*(self._end(worker, text) for worker in list(self.workers.values())))
        self.suspended = None
        await self._take_over(shards)

    async def _take_over(self, shards: frozenset[int]) -> None:
        """Claim the shards that are new, and go on with every market that is not carried yet."""
        await self._until_done(lambda: self._claim(sorted(shards - self.workers.keys())))
        workers = list(self.workers.values())
        if all(market in worker.complete for worker in workers for market in self._markets):
            return
        control = await self._control()
        carrying = [asyncio.ensure_future(self._carry(market, control, workers)) for market in self._markets]
        try:
            await asyncio.gather(*carrying)
        finally:
            for one in carrying:
                one.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)

    async def _claim(self, shards: Sequence[int]) -> None:
        """Claim shards; from then on they have workers, without streams still."""
        if not shards:
            return
        publishers = {shard: await self._maker.publisher_of(shard) for shard in shards}
        for shard in shards:
            self._write_claim(shard)
        await self._publisher.settle()
        claims = (await self._control()).claims
        for shard, publisher in publishers.items():
            claim = claims[shard]
            if claim.process != self._process:
                raise SinkError(f"shard {shard} was claimed by {claim.instance} a moment ago")
            self.workers[shard] = self._maker.worker(shard, claim.epoch, publisher)
            text = f"epoch {claim.epoch}"
            self.around.telemetry.emit(Lifecycle(event="shard.assigned", shard=shard, reason=text))

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
        new = [worker for worker in workers if market not in worker.streams]
        if new:
            table = await self._maker.instruments(market, anew=any(worker.shard == 0 for worker in new))
            own = self._shared_out(market, self._maker.choose(market, table))
            prepared = [worker.prepare(market, table, own[worker.shard]) for worker in new]
            places = {place for of_one in prepared for place in of_one}
            streams = [one.stream for worker in new for one in own[worker.shard]]
            found = await self._until_done(lambda: self._cursor.find(control, streams, places))
            for worker in new:
                worker.resume(market, own[worker.shard], found)
        await asyncio.gather(*(self._open(worker, market) for worker in workers))

    async def _open(self, worker: ShardWorker, market: Market) -> None:
        try:
            await worker.open(market, self._maker.pool)
        except DeliveryFailed as error:
            self.publisher_ended(worker.shard, str(error))
            return
        if market not in worker.complete:
            await self._until_done(lambda: self._maker.listen(worker, market))
            worker.complete.add(market)

    def _shared_out(self, market: Market, chosen: Iterable[ChosenStream]) -> Mapping[int, list[ChosenStream]]:
        """Return the streams of each shard."""
        shared: dict[int, list[ChosenStream]] = {shard: [] for shard in range(self._count)}
        for one in chosen:
            shared[shard_of(market, one.stream.symbol or one.stream.name, self._count)].append(one)
        return shared

    # Kafka, however long it takes

    async def _control(self) -> Control:
        return await self._until_done(self._cursor.control)

    async def _until_done(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something with Kafka again and again until it is done; cancelled where the shards are lost."""
        attempt = 0
        while True:
            try:
                return await work()
            except SinkError as error:
                log.warning("shards: not taken over yet: %s", error)
            await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
            attempt += 1

    # The end

    async def stop(self, seconds: float) -> None:
        """End all work in order: nothing more comes in, and everything that came is derived and queued."""
        self._stopping = True
        await self._end_taking()
        await asyncio.gather(*(worker.drain(seconds) for worker in self.workers.values()), *self._endings)

    async def abandon(self) -> None:
        """End all work at once: what came and is not published yet is dropped."""
        self._stopping = True
        await self._end_taking()
        await asyncio.gather(*(worker.abandon() for worker in self.workers.values()), *self._endings)
