"""Which shards a process works on: claims, kept and lost shards, markets that do not answer, other owners."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bridge.catalogue import TopicNames, catalogue
from bridge.core.derive import Writer
from bridge.core.instruments import Instruments, parse_exchange_info
from bridge.cursor import Claim, Control, Found
from bridge.errors import ConfigError, DeliveryFailed, KafkaUnavailable
from bridge.pipeline import Pipeline
from bridge.schema import schemas
from bridge.shards import Shards
from bridge.telemetry import Lifecycle, Telemetry
from bridge.worker import ShardWorker, Surroundings
from tests.binance.scripted import until
from tests.core.test_pipeline import NOW, TESTS
from tests.derived import SettlingPublisher
from tests.test_worker import Connections

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from aiokafka.structs import TopicPartition

    from bridge.catalogue import ChosenStream
    from bridge.model import Market, Stream

CONTROL = "binance.prod.control.checkpoints"
OURS, THEIRS = 11, 22


class Cursor:
    """What ``control.checkpoints`` holds: claims that were acknowledged, and those of others."""

    def __init__(self, publisher: SettlingPublisher) -> None:
        self.publisher = publisher
        self.others: list[tuple[int, int]] = []  # (shard, behind how many of our claims)
        self.asked: list[list[str]] = []
        self.failures = 0

    async def control(self) -> Control:
        """Read it."""
        claims: dict[int, Claim] = {}
        own = [kept for kept in self.publisher.kept[: self.publisher.acknowledged] if kept.topic == CONTROL]
        number = 0
        for kept in own:
            if kept.key.startswith(b"shard:"):
                number += 1
                record = kept.record
                claims[record["shard"]] = Claim(10 * number, record["instance"], record["process"])
        for shard, behind in self.others:
            if behind <= number and claims[shard].epoch < 10 * behind + 5:
                claims[shard] = Claim(10 * behind + 5, "theirs", THEIRS)
        return Control(claims, {})

    async def find(
        self, control: Control, streams: Iterable[Stream], places: Iterable[TopicPartition]
    ) -> Found:
        """Find nothing, or fail."""
        assert control.claims
        assert all(place.topic.startswith("binance.prod.") for place in places)
        if self.failures:
            self.failures -= 1
            raise KafkaUnavailable("nobody there")
        self.asked.append(sorted(stream.name for stream in streams))
        return Found({}, {})


class Process:
    """A process: what it has of shards, and all that it says."""

    def __init__(self, *markets: Market, count: int = 2, in_transactions: bool = False) -> None:
        self.publisher = SettlingPublisher()
        self.dismissed: list[int] = []
        self.listened: list[tuple[int, Market]] = []
        self.history = asyncio.Event()
        self.history.set()
        self.telemetry = Telemetry()
        self.told: list[Lifecycle] = []
        self.telemetry.listeners["test"] = self.told.append
        self.tasks: list[asyncio.Task[None]] = []
        self.pools: dict[tuple[int, Market], Connections] = {}
        self.silent: dict[Market, asyncio.Event] = {}
        self.wrong: str | None = None
        self.cursor = Cursor(self.publisher)
        around = Surroundings(
            schemas(), TopicNames("prod"), catalogue(), self.telemetry, lambda: NOW, 3600.0, in_transactions,
            self.spawn,
        )  # fmt: skip
        self.shards = Shards(
            cursor=self.cursor, publisher=self.publisher, maker=self, around=around, bridge="bridge",  # type: ignore[arg-type]
            instance="ours", process=OURS, markets=markets, count=count,
        )  # fmt: skip

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run something beside."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.append(task)
        return task

    # bridge.shards.Maker

    async def publisher_of(self, shard: int) -> SettlingPublisher:
        """Return the publisher."""
        assert shard >= 0
        return self.publisher

    async def dismiss(self, shard: int) -> int:
        """Note it."""
        self.dismissed.append(shard)
        return 0

    def worker(self, shard: int, epoch: int, publisher: SettlingPublisher) -> ShardWorker:
        """Return a worker without streams."""
        pipeline = Pipeline(
            catalogue=catalogue(), schemas=schemas(), names=TopicNames("prod"), publisher=publisher,
            telemetry=self.telemetry, writer=Writer("live", epoch), hold_ms=250, state_interval_ms=1000,
        )  # fmt: skip
        return ShardWorker(shard, epoch, pipeline, publisher, self.shards.around)  # type: ignore[arg-type]

    def pool(self, worker: ShardWorker, market: Market, streams: list[ChosenStream]) -> Connections:
        """Return connections that are not opened yet."""
        assert {one.stream.market for one in streams} <= {market}
        pool = self.pools[worker.shard, market] = Connections()
        return pool

    async def instruments(self, market: Market, *, anew: bool) -> Instruments:
        """Answer once the exchange does."""
        assert anew in {True, False}
        if market in self.silent:
            await self.silent[market].wait()
        text = (TESTS / "cases/exchange-info" / f"{market}.json").read_bytes()
        return parse_exchange_info(market, text)[1]

    def choose(self, market: Market, table: Instruments) -> list[ChosenStream]:
        """Return the trades of all instruments."""
        if self.wrong is not None:
            raise ConfigError(self.wrong)
        return catalogue().choose(market, ["agg-trade"], "*", None, table)

    async def listen(self, worker: ShardWorker, market: Market) -> None:
        """Note it, once Kafka tells where the accounts stand."""
        assert market in worker.pools
        await self.history.wait()
        self.listened.append((worker.shard, market))

    # What the test looks at

    @property
    def epochs(self) -> dict[int, int]:
        """The shards at work, with their epochs."""
        return {shard: worker.epoch for shard, worker in self.shards.workers.items()}

    def events(self, event: str) -> list[tuple[int | None, str | None]]:
        """Shard and reason of the events of a kind."""
        return [(one.shard, one.reason) for one in self.told if one.event == event]

    async def take(self, *shards: int) -> None:
        """Be assigned shards, and wait until they are carried."""
        await self.shards.assigned(frozenset(shards))
        await self.settled()

    async def settled(self) -> None:
        """Wait until the newest take-over is done."""
        taking = [task for task in self.tasks if task.get_name() == "taking over shards"]
        async with asyncio.timeout(60):
            await taking[-1]


async def test_a_shard_is_claimed_before_anything_is_done_with_it() -> None:
    """The claim's place is the epoch; then its streams are found and its connections opened."""
    process = Process("spot")
    await process.take(0, 1)
    assert process.epochs == {0: 10, 1: 20}
    assert process.events("shard.assigned") == [(0, "epoch 10"), (1, "epoch 20")]
    assert {place: pool.asked for place, pool in process.pools.items()} == {
        (0, "spot"): ["start"], (1, "spot"): ["start"],
    }  # fmt: skip
    claims = [kept.record for kept in process.publisher.kept if kept.key.startswith(b"shard:bridge:")]
    assert [(claim["shard"], claim["instance"], claim["process"]) for claim in claims] == [
        (0, "ours", OURS), (1, "ours", OURS),
    ]  # fmt: skip


async def test_each_stream_is_in_the_shard_of_its_symbol() -> None:
    """All of them in one, and none in two."""
    process = Process("spot")
    await process.take(0, 1)
    first, second = (worker.streams["spot"] for worker in process.shards.workers.values())
    assert first
    assert second
    assert not first & second
    [asked] = process.cursor.asked
    assert sorted(first | second) == asked
    for name in first:
        worker = process.shards.carrier("spot", name)
        assert worker is process.shards.workers[0]
        assert process.shards.of("spot", name.partition("@")[0].upper()) is worker
    assert process.shards.carrier("usdm", "nothing") is None


async def test_a_market_that_does_not_answer_holds_up_no_other() -> None:
    """Nor does a rebalance end what the others do; when it answers, it is carried under the same epoch."""
    process = Process("spot", "coinm")
    process.silent["coinm"] = asyncio.Event()
    await process.shards.assigned(frozenset({0, 1}))
    await until(lambda: {(0, "spot"), (1, "spot")} <= process.pools.keys())
    before = dict(process.shards.workers)
    await process.shards.revoking(frozenset({0, 1}))
    await process.shards.assigned(frozenset({0, 1}))
    process.silent["coinm"].set()
    await process.settled()
    assert process.shards.workers == before
    assert {place: pool.asked for place, pool in process.pools.items()} == {
        (shard, market): ["start"] for shard in (0, 1) for market in ("spot", "coinm")
    }
    assert len(process.events("shard.assigned")) == 2


async def test_what_is_kept_goes_on_and_what_is_gone_ends() -> None:
    """Through a rebalance: the one that stays keeps epoch and connections, the other's are closed, and it says so."""
    process = Process("spot")
    await process.take(0, 1)
    await process.shards.revoking(frozenset({0, 1}))
    await process.take(1)
    assert process.epochs == {1: 20}
    assert process.pools[0, "spot"].asked == ["start", "stop"]
    assert process.pools[1, "spot"].asked == ["start"]
    assert process.events("shard.revoked") == [(0, "assigned to another process")]


async def test_a_shard_that_comes_back_has_a_higher_epoch() -> None:
    """For somebody else may have had it."""
    process = Process("spot")
    await process.take(0, 1)
    await process.take(1)
    await process.take(0, 1)
    assert process.epochs == {0: 30, 1: 20}


async def test_a_loss_that_nobody_used_costs_nothing() -> None:
    """Kafka was away for all: when the membership is back and nobody has claimed the shards, the work just goes on."""
    process = Process("spot")
    await process.take(0, 1)
    workers = dict(process.shards.workers)
    await process.shards.lost("out of reach")
    assert process.shards.suspended == "out of reach"
    await process.take(0, 1)
    assert process.shards.suspended is None
    assert process.shards.workers == workers
    assert process.publisher.discards == 0
    assert process.events("shard.revoked") == []


async def test_after_a_loss_that_another_used_nothing_more_is_published() -> None:
    """What waits is discarded, all work ends and says so, and what is assigned is claimed anew."""
    process = Process("spot")
    await process.take(0, 1)
    process.publisher.at_once = False
    process.publisher.lane("binance.prod.unified.trade", b"k").append(1, b"k", b"late")
    await process.shards.lost("stood still")
    process.cursor.others.append((1, 2))
    process.publisher.at_once = True
    await process.take(0)
    assert b"late" not in [kept.value for kept in process.publisher.kept]
    assert process.epochs == {0: 30}
    revoked = process.events("shard.revoked")
    assert sorted(shard for shard, _ in revoked if shard is not None) == [0, 1]
    assert all(
        "stood still; shard 1 has another owner; 1 records are discarded" in str(r) for _, r in revoked
    )


async def test_what_is_discarded_is_claimed_by_no_checkpoint() -> None:
    """A checkpoint that waits for Kafka at that moment is not written."""
    process = Process("spot", count=1)
    await process.take(0)
    process.publisher.at_once = False
    worker = process.shards.workers[0]
    process.publisher.lane("binance.prod.unified.trade", b"k").append(1, b"k", b"late")
    writing = asyncio.create_task(worker.checkpoint(everything=True))
    await until(lambda: process.publisher.waiting)
    await process.shards.lost("stood still")
    process.cursor.others.append((0, 1))
    process.publisher.at_once = True
    await process.take(0)
    with pytest.raises(DeliveryFailed):
        await writing
    written = [kept.record for kept in process.publisher.kept if kept.topic == CONTROL]
    assert {one["writerEpoch"] for one in written if "writerEpoch" in one} == {10, 20}
    assert [one["writerEpoch"] for one in written if "writerEpoch" in one].count(10) == len(
        worker.streams["spot"]
    ), "those of its beginning"


async def test_nothing_is_sent_while_it_is_not_known_whose_the_shards_are() -> None:
    """The membership is back, but the claims could not be read yet: still suspended, also in a rebalance."""
    process = Process("spot")
    await process.take(0)
    await process.shards.lost("stood still")
    reading = asyncio.Event()
    control = process.cursor.control

    async def slow() -> Control:
        await reading.wait()
        return await control()

    process.cursor.control = slow  # type: ignore[method-assign]
    await process.shards.assigned(frozenset({0}))
    await asyncio.sleep(0)
    assert process.shards.suspended == "stood still"
    process.publisher.at_once = False
    process.publisher.lane("binance.prod.gaps", b"k").append(1, b"k", b"waits")
    async with asyncio.timeout(60):
        await process.shards.revoking(frozenset({0}))  # it can't settle, and need not
    await process.shards.assigned(frozenset({0}))
    reading.set()
    process.publisher.at_once = True
    await process.settled()
    assert process.shards.suspended is None
    assert process.epochs == {0: 10}


async def test_of_two_claims_the_later_holds() -> None:
    """Where another process has claimed a shard a moment later, ours is made again until it is the newest."""
    process = Process("spot", count=1)
    process.cursor.others.append((0, 1))
    await process.take(0)
    assert process.epochs == {0: 20}


async def test_kafka_that_does_not_answer_is_asked_again() -> None:
    """The take-over waits for it; the claim stays."""
    process = Process("spot", count=1)
    process.cursor.failures = 2
    await process.take(0)
    assert process.epochs == {0: 10}
    assert process.pools[0, "spot"].asked == ["start"]


async def test_a_subscription_that_can_not_be_ends_the_bridge() -> None:
    """With its own error, through the task that takes over."""
    process = Process("spot")
    process.wrong = "subscriptions[0]: no such symbol"
    await process.shards.assigned(frozenset({0}))
    with pytest.raises(ConfigError, match="no such symbol"):
        await process.settled()


async def test_a_stop_ends_everything_in_order() -> None:
    """Also a take-over that has not come far; nothing is taken over any more."""
    process = Process("spot", "coinm")
    process.silent["coinm"] = asyncio.Event()
    await process.shards.assigned(frozenset({0, 1}))
    await until(lambda: {(0, "spot"), (1, "spot")} <= process.pools.keys())
    await process.shards.stop(30.0)
    assert all(pool.asked == ["start", "stop"] for pool in process.pools.values())
    await process.shards.assigned(frozenset({0, 1, 2}))
    assert process.epochs.keys() == {0, 1}
    assert process.telemetry.listeners.keys() == {"test"}


async def test_a_shard_whose_publisher_ended_begins_anew() -> None:
    """It was fenced, or does not know how a commit ended: its publisher goes, the shard is claimed again, alone."""
    process = Process("spot", in_transactions=True)
    await process.take(0, 1)
    kept = process.shards.workers[1]
    process.shards.publisher_ended(0, "fenced: another took it")
    await until(lambda: process.epochs.get(0) == 30)
    await process.settled()
    assert process.shards.workers[1] is kept
    assert process.dismissed == [0]
    assert process.events("shard.revoked") == [(0, "fenced: another took it")]
    assert process.pools[1, "spot"].asked == ["start"]


async def test_nothing_begins_anew_while_the_membership_is_lost() -> None:
    """What is fenced then ends, and is taken over again when the group says whose it is."""
    process = Process("spot", in_transactions=True)
    await process.take(0, 1)
    await process.shards.lost("stood still")
    process.shards.publisher_ended(0, "fenced: another took it")
    await until(lambda: 0 not in process.epochs)
    await process.take(0, 1)
    assert process.epochs == {0: 30, 1: 20}


async def test_in_transactions_only_what_another_took_is_given_up() -> None:
    """Each shard has a publisher of its own: what waits in the others is theirs."""
    process = Process("spot", in_transactions=True)
    await process.take(0, 1)
    await process.shards.lost("stood still")
    process.cursor.others.append((1, 2))
    await process.take(0)
    assert process.epochs == {0: 10}
    assert process.dismissed == [1]
    assert process.publisher.discards == 0


async def test_a_publisher_that_ends_while_its_shard_is_taken_over() -> None:
    """The shard's first checkpoint can't be stored: it begins anew."""
    process = Process("spot", count=1, in_transactions=True)
    settle, ended = process.publisher.settle, []

    async def fails_once() -> None:
        if process.shards.workers and not ended:
            ended.append(True)
            raise DeliveryFailed("nothing more is published: fenced")
        await settle()

    process.publisher.settle = fails_once  # type: ignore[method-assign]
    await process.shards.assigned(frozenset({0}))
    await until(lambda: process.epochs == {0: 20} and process.shards.workers[0].pools)
    assert process.events("shard.revoked") == [(0, "nothing more is published: fenced")]


async def test_a_rebalance_does_not_make_accounts_forgotten() -> None:
    """It comes while their history is read: they are listened to afterwards, once, though the streams are carried."""
    process = Process("spot")
    process.history.clear()
    await process.shards.assigned(frozenset({0, 1}))
    await until(lambda: {(0, "spot"), (1, "spot")} <= process.pools.keys())
    await process.shards.revoking(frozenset({0, 1}))
    assert process.listened == []
    process.history.set()
    await process.take(0, 1)
    assert sorted(process.listened) == [(0, "spot"), (1, "spot")]
    await process.take(0, 1)
    assert len(process.listened) == 2


async def test_an_end_is_told_though_the_next_rebalance_comes_in_its_midst() -> None:
    """A connection that takes long to close does not make the revocation forgotten."""
    process = Process("spot")
    await process.take(0, 1)
    closing = asyncio.Event()
    pool = process.pools[0, "spot"]
    stop = pool.stop

    async def slow(timeout: float) -> None:
        await closing.wait()
        await stop(timeout)

    pool.stop = slow  # type: ignore[method-assign]
    await process.shards.lost("stood still")
    process.cursor.others.append((0, 2))
    await process.shards.assigned(frozenset({0, 1}))
    await until(lambda: 0 not in process.shards.workers)
    await process.shards.revoking(frozenset({0, 1}))
    taking = asyncio.create_task(process.take(0, 1))
    closing.set()
    await taking
    await until(lambda: sorted(shard or 0 for shard, _ in process.events("shard.revoked")) == [0, 1])
    assert pool.asked[-1] == "stop"


async def test_a_publisher_that_ends_in_the_midst_of_going_on_leaves_nothing_suspended() -> None:
    """Who woke up is fenced while it looks at the claims: the look is made again, and sending is allowed after it."""
    process = Process("spot", in_transactions=True)
    await process.take(0, 1)
    await process.shards.lost("stood still")
    reading, control = asyncio.Event(), process.cursor.control

    async def slow() -> Control:
        await reading.wait()
        return await control()

    process.cursor.control = slow  # type: ignore[method-assign]
    await process.shards.assigned(frozenset({0, 1}))
    process.shards.publisher_ended(0, "fenced: another took it")
    await until(lambda: process.events("shard.revoked"))
    reading.set()
    await until(lambda: process.epochs == {0: 30, 1: 20})
    await process.settled()
    assert process.shards.suspended is None
