"""Claims, checkpoints and what lies behind them, read from a real Kafka that an owner has left."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from bridge.catalogue import TopicNames, catalogue
from bridge.core.derive import Writer
from bridge.core.schema import encode
from bridge.core.sequence import Missing
from bridge.cursor import Control, CursorReader, Found, claim_key
from bridge.errors import TopicMismatch
from bridge.kafka.publisher import create_publisher
from bridge.kafka.settings import KafkaSettings
from bridge.pipeline import Pipeline
from bridge.schema import schemas
from bridge.telemetry import Telemetry
from bridge.worker import ShardWorker, Surroundings
from tests.core.test_pipeline import NOW, SECOND, TESTS, _kline, _mini, _trade
from tests.kafka.cluster import create_topic
from tests.test_worker import Connections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from aiokafka.structs import TopicPartition

    from bridge.kafka.publisher import KafkaPublisher
    from bridge.local.broker import Broker
    from bridge.model import Market

pytestmark = pytest.mark.kafka


def _never(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    """Run nothing beside: what would be done now and then is done by hand here."""
    work.close()
    return asyncio.get_running_loop().create_task(asyncio.sleep(0), name=name)


class Owner:
    """A worker on a real Kafka, by hand."""

    def __init__(
        self, names: TopicNames, publisher: KafkaPublisher, market: Market, channels: list[str]
    ) -> None:
        self.market, self.now, self.epoch = market, NOW, 5
        around = Surroundings(
            schemas(), names, catalogue(), Telemetry(), lambda: self.now, 3600.0, in_transactions=True,
            spawn=_never,
        )  # fmt: skip
        self.publisher = publisher
        self.pipe = Pipeline(
            catalogue=catalogue(), schemas=schemas(), names=names, publisher=publisher, telemetry=Telemetry(),
            writer=Writer("live", self.epoch), hold_ms=250, state_interval_ms=1 << 40,
        )  # fmt: skip
        body = (TESTS / "cases/exchange-info" / f"{market}.json").read_bytes()
        self.pipe.exchange_info(market, NOW, body, 0)
        self.table = self.pipe.instruments[market]
        self.chosen = catalogue().choose(market, channels, ["BTCUSDT"], None, self.table)
        self.worker = ShardWorker(0, self.epoch, self.pipe, publisher, around)
        self.places: set[TopicPartition] = set()
        self.leg: Any = None

    async def open(self) -> None:
        """Take the market over."""
        from bridge.model import Leg, StreamState

        self.places = self.worker.prepare(self.market, self.table, self.chosen)
        self.worker.resume(self.market, self.chosen, Found({}, {}))
        await self.worker.open(self.market, lambda *_: Connections())
        states = {one.stream.name.encode(): StreamState(one.stream) for one in self.chosen}
        self.leg = Leg(1, self.market, states)

    async def come(self, *payloads: bytes) -> None:
        """Receive messages, a second apart, and have what they make acknowledged."""
        for payload in payloads:
            self.now += SECOND
            self.pipe.receive(self.leg, self.now, [payload])
        self.now += SECOND
        self.pipe.tick(self.now)
        await self.publisher.settle()


class Left:
    """What an owner left: its topics, with a cursor to read them."""

    def __init__(self, kafka: Broker, namespace: str) -> None:
        self.names = TopicNames("prod", namespace)
        self.settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
        self.cursor = CursorReader(self.settings, catalogue(), self.names, "bridge")
        self.publisher = create_publisher(self.settings)

    async def start(self, bootstrap_servers: str) -> None:
        """Create the topics and connect."""
        names = [self.names.of(family) for family in ("gaps", "coverage", "dead-letter")]
        names += [self.names.unified(structure) for structure in ("trade", "ohlcv", "ticker", "market")]
        names += [self.names.state(structure) for structure in ("ticker", "market")]
        names += [self.names.raw("spot", channel) for channel in ("trade", "kline", "mini-ticker")]
        names += [self.names.raw("usdm", "trade"), self.names.of("control", "checkpoints")]
        for name in names:
            await create_topic(bootstrap_servers, name, 1 if "control" in name else 3)
        await self.publisher.start()
        await self.publisher.refresh(names)

    async def claim(self, bridge: str, shard: int, process: int) -> None:
        """Write a claim."""
        record = {"shard": shard, "instance": "x", "process": process, "version": "1", "at": NOW}
        lane = self.publisher.lane(self.names.of("control", "checkpoints"), claim_key(bridge, shard))
        lane.append(NOW // 1000, claim_key(bridge, shard), encode(schemas()["shard-claim"], record))
        await self.publisher.settle()

    async def find(self, owner: Owner, control: Control | None = None) -> Found:
        """Return where the owner's streams go on."""
        control = await self.cursor.control() if control is None else control
        return await self.cursor.find(control, [one.stream for one in owner.chosen], owner.places)


@pytest.fixture
async def left(kafka: Broker, unique: str) -> AsyncIterator[Left]:
    """Empty topics."""
    left = Left(kafka, unique)
    await left.start(kafka.bootstrap_servers)
    try:
        yield left
    finally:
        await left.publisher.stop(10)


async def test_the_newest_claim_of_each_shard_holds(left: Left) -> None:
    """Its epoch is its place; those of bridges with another name are none of ours."""
    for bridge, shard, process in (("bridge", 0, 1), ("bridge", 1, 1), ("other", 0, 9), ("bridge", 0, 2)):
        await left.claim(bridge, shard, process)
    claims = (await left.cursor.control()).claims
    assert {shard: (claim.epoch, claim.process) for shard, claim in claims.items()} == {0: (4, 2), 1: (2, 1)}


async def test_a_topic_that_is_missing_is_named(kafka: Broker, unique: str) -> None:
    """By the cursor's own error."""
    cursor = Left(kafka, unique).cursor
    with pytest.raises(TopicMismatch, match=r"control\.checkpoints"):
        await cursor.control()


async def test_what_was_published_behind_a_checkpoint_is_found(left: Left) -> None:
    """Tail, ledger and open gaps are those of the owner at its end, though its checkpoint is older."""
    owner = Owner(left.names, left.publisher, "spot", ["trade", "kline_1m", "mini-ticker"])
    await owner.open()
    opened = 1_795_305_600_000
    await owner.come(_trade(1), _trade(2), _kline(opened, opened + 1, closed=False), _mini(1))
    await owner.worker.checkpoint()
    await owner.come(_trade(3), _trade(6), _kline(opened, opened + 60_000, closed=True), _mini(2))
    await owner.come(_kline(opened + 60_000, opened + 60_001, closed=False))
    found = await left.find(owner)
    trade = found.resumptions["spot", "btcusdt@trade"]
    assert trade.tail is not None
    assert (trade.tail.last, trade.ledger.first, trade.ledger.last, trade.missing) == (6, 1, 6, ())
    assert [(gap.first, gap.last) for gap in trade.open] == [(4, 5)]
    candle = found.resumptions["spot", "btcusdt@kline_1m"]
    assert candle.tail is not None
    assert (candle.tail.last, candle.tail.closed, candle.ledger.last) == (
        opened + 60_000,
        False,
        opened + 59_999,
    )
    ticker = found.resumptions["spot", "btcusdt@miniTicker"]
    assert (ticker.tail, ticker.carried_until) == (None, NOW + 4 * SECOND)
    assert found.ends.keys() == owner.places


async def test_a_crash_between_two_partitions_shows(left: Left) -> None:
    """The gap record was lost with its owner: what the topic lacks is found without it."""
    owner = Owner(left.names, left.publisher, "spot", ["trade"])
    await owner.open()
    await owner.come(_trade(1))
    await owner.worker.checkpoint()
    owner.pipe.missing = lambda *_: None  # type: ignore[method-assign]
    await owner.come(_trade(5))
    trade = (await left.find(owner)).resumptions["spot", "btcusdt@trade"]
    assert trade.missing == (Missing(2, 4),)


async def test_a_message_that_makes_no_record_is_no_hole(left: Left) -> None:
    """It takes an id of its stream: raw has it."""
    owner = Owner(left.names, left.publisher, "usdm", ["trade"])
    await owner.open()
    await owner.come(_futures_trade(1), _futures_trade(2))
    await owner.worker.checkpoint()
    await owner.come(_futures_trade(3), _futures_trade(4, kind="NA"), _futures_trade(5))
    await owner.come(_futures_trade(6, kind="NA"))
    trade = (await left.find(owner)).resumptions["usdm", "btcusdt@trade"]
    assert trade.tail is not None
    assert (trade.tail.last, trade.missing, trade.open) == (6, (), ())


async def test_a_stream_that_nobody_carried_before_begins_anew(left: Left) -> None:
    """Without a checkpoint there is nothing to go on with."""
    owner = Owner(left.names, left.publisher, "spot", ["trade"])
    owner.places = owner.worker.prepare("spot", owner.table, owner.chosen)
    assert (await left.find(owner, Control({}, {}))).resumptions == {}


def _futures_trade(id_: int, kind: str = "MARKET") -> bytes:
    data = {
        "e": "trade", "E": NOW // 1000 + id_, "T": NOW // 1000 + id_, "s": "BTCUSDT", "t": id_, "p": "1.5", "q": "2",
        "X": kind, "m": True,
    }  # fmt: skip
    return json.dumps({"stream": "btcusdt@trade", "data": data}, separators=(",", ":")).encode()
