"""A shard at work: what its checkpoints claim, when, and how it stands still, goes on and ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bridge.catalogue import TopicNames, catalogue
from bridge.cursor import Found
from bridge.errors import DeliveryFailed
from bridge.schema import schemas
from bridge.telemetry import Lifecycle, Telemetry
from bridge.worker import ShardWorker, Surroundings, shard_of
from tests.binance.scripted import until
from tests.core.test_pipeline import NOW, SECOND, Bench, _mini, _trade
from tests.derived import SettlingPublisher, read

CHECKPOINTS = ("control", "checkpoints")
NOTHING = Found({}, {})


class Connections:
    """A pool that notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def start(self) -> None:
        """Note it."""
        self.asked.append("start")

    async def pause(self, reason: str) -> None:
        """Note it."""
        self.asked.append(f"pause: {reason}")

    async def resume(self) -> None:
        """Note it."""
        self.asked.append("resume")

    async def stop(self, timeout: float) -> None:
        """Note it."""
        assert timeout > 0
        self.asked.append("stop")

    def connections(self) -> list[Any]:
        """Show none."""
        return []


class Shop(Bench):
    """A worker of spot streams, with its publisher in hand."""

    def __init__(self, *channels: str, seconds: float = 3600.0, in_transactions: bool = False) -> None:
        self.out = SettlingPublisher()
        super().__init__("spot", list(channels), publisher=self.out)
        self.now, self.pool, self.telemetry = NOW, Connections(), Telemetry()
        self.around = Surroundings(
            schemas(), TopicNames("prod"), catalogue(), self.telemetry, lambda: self.now, seconds, in_transactions,
            lambda work, name: asyncio.get_running_loop().create_task(work, name=name),
        )  # fmt: skip
        self.worker = ShardWorker(0, 7, self.pipe, self.out, self.around)  # type: ignore[arg-type]
        self.line = self.leg()

    async def open(self, found: Found = NOTHING) -> None:
        """Take the market over."""
        self.worker.prepare("spot", self.pipe.instruments["spot"], self.chosen)
        self.worker.resume("spot", self.chosen, found)
        await self.worker.open("spot", lambda *_: self.pool)
        self.out.kept.clear()
        self.out.acknowledged = 0

    def come(self, *payloads: bytes) -> None:
        """Receive messages."""
        self.pipe.receive(self.line, self.now, payloads)

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the checkpoints queued."""
        return self.records(*CHECKPOINTS)


@pytest.mark.parametrize(
    ("market", "name", "shard"), [("spot", "BTCUSDT", 0), ("spot", "BNBUSDT", 3), ("spot", "!ticker@arr", 1)]
)
def test_a_stream_has_the_same_shard_for_ever(market: Any, name: str, shard: int) -> None:
    """In every process and every version: else an update would move the work, and two owners meet."""
    assert shard_of(market, name, 4) == shard


async def test_a_checkpoint_is_written_once_what_it_claims_is_acknowledged() -> None:
    """It tells where the stream stood when it was asked, not where it is by then."""
    shop = Shop("trade")
    await shop.open()
    shop.out.at_once = False
    shop.come(_trade(5), _trade(6))
    writing = asyncio.create_task(shop.worker.checkpoint())
    await until(lambda: shop.out.waiting)
    shop.come(_trade(7))
    assert shop.checkpoints() == []
    shop.out.acknowledge()
    await writing
    [checkpoint] = shop.checkpoints()
    assert (checkpoint["stream"], checkpoint["lastSequence"]) == ("btcusdt@trade", 6)
    assert (checkpoint["shard"], checkpoint["writerEpoch"], checkpoint["symbol"]) == (0, 7, "BTC/USDT")
    [coverage] = shop.records("coverage")
    assert (coverage["first"], coverage["last"], coverage["writerEpoch"]) == (5, 6, 0)
    assert read(checkpoint["coverage"])[1] == coverage


async def test_a_checkpoint_tells_from_where_to_read_on() -> None:
    """By the offsets at the moment it was asked for, of the stream's own topic and of the gaps."""
    shop = Shop("trade")
    await shop.open()
    shop.come(_trade(5))
    await shop.out.settle()
    shop.come(_trade(6))
    await shop.worker.checkpoint()
    [checkpoint] = shop.checkpoints()
    offsets = {place["topic"]: place["offset"] for place in checkpoint["places"]}
    # The double's offset is that of the newest acknowledged record: of the first trade, and none of the gaps.
    assert offsets == {
        "binance.prod.gaps": 0, "binance.prod.raw.spot.trade": 0, "binance.prod.unified.trade": 0,
    }  # fmt: skip


async def test_what_others_publish_moves_the_place_of_a_stream_that_stands_still() -> None:
    """Else its next owner would read all that they published since, for nothing."""
    shop = Shop("trade", "mini-ticker")
    await shop.open()
    shop.come(_trade(5))
    await shop.worker.checkpoint()
    shop.out.kept.clear()
    await shop.worker.checkpoint()
    assert shop.checkpoints() == []
    shop.out.beyond = 50_000
    await shop.worker.checkpoint()
    assert "btcusdt@trade" in {one["stream"] for one in shop.checkpoints()}
    assert all(place["offset"] >= 49_999 for one in shop.checkpoints() for place in one["places"])


async def test_every_stream_has_a_checkpoint_before_its_first_message() -> None:
    """So that whoever takes over next finds every message behind one; only then connections open."""
    shop = Shop("trade", "mini-ticker")
    shop.worker.prepare("spot", shop.pipe.instruments["spot"], shop.chosen)
    shop.worker.resume("spot", shop.chosen, NOTHING)
    shop.out.at_once = False
    opening = asyncio.create_task(shop.worker.open("spot", lambda *_: shop.pool))
    await until(lambda: len(shop.checkpoints()) == 2)
    assert shop.pool.asked == []
    shop.out.acknowledge()
    await opening
    assert shop.pool.asked == ["start"]
    assert all(one["lastSequence"] is None for one in shop.checkpoints())
    await shop.worker.open("spot", lambda *_: shop.pool)
    assert shop.pool.asked == ["start"], "once"


async def test_a_gap_is_told_filled_once_its_events_are_acknowledged() -> None:
    """And the checkpoint that claims so comes behind both."""
    shop = Shop("trade")
    await shop.open()
    shop.come(_trade(5), _trade(8))
    shop.pipe.tick(NOW + SECOND)
    await shop.out.settle()
    shop.out.at_once = False
    row = {
        "id": 6,
        "price": "1",
        "qty": "1",
        "quoteQty": "1",
        "time": 1_795_305_600_006,
        "isBuyerMaker": True,
    }
    rows = [row, row | {"id": 7}]
    url = "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=6&limit=2"
    shop.pipe.answer("spot", url, NOW + 2 * SECOND, json.dumps(rows).encode())
    writing = asyncio.create_task(shop.worker.checkpoint())
    await until(lambda: shop.out.waiting)
    assert [gap["status"] for gap in shop.records("gaps")] == ["open"]
    shop.out.acknowledge()
    await until(lambda: len(shop.records("gaps")) == 2)
    assert shop.checkpoints() == []
    shop.out.acknowledge()
    await writing
    assert [gap["status"] for gap in shop.records("gaps")] == ["open", "filled"]
    assert shop.records("coverage")[-1]["published"] == 4


async def test_a_stop_waits_for_no_answer() -> None:
    """What was held is derived; an answer that comes then is not taken in, for a replay could not tell when it did."""
    shop = Shop("trade")
    await shop.open()
    shop.come(_trade(5))
    shop.come(_trade(7))
    await shop.worker.drain(60)
    row = {"id": 6, "price": "1", "qty": "1", "quoteQty": "1", "time": NOW // 1000, "isBuyerMaker": True}
    endpoint = "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=6&limit=1"
    shop.pipe.answer("spot", endpoint, shop.now, json.dumps([row]).encode())
    assert [r["sequence"] for r in shop.records("unified", "trade")] == [5, 7]
    assert [r["status"] for r in shop.records("gaps")] == ["open"]
    assert shop.records("raw", "spot", "api") == []


async def test_a_stop_loses_no_gap_record_and_no_checkpoint() -> None:
    """Also where it comes while a checkpoint waits for Kafka."""
    shop = Shop("trade", seconds=0.02)
    await shop.open()
    shop.out.at_once = False
    shop.come(_trade(5), _trade(6))
    await asyncio.sleep(
        0.1
    )  # its keeper waits for the acknowledgement by now, or will never: both are to end well
    shop.out.at_once = True
    await shop.worker.drain(60)
    assert shop.pool.asked == ["start", "stop"]
    assert shop.checkpoints()[-1]["lastSequence"] == 6
    assert shop.records("coverage")[-1]["last"] == 6


async def test_what_comes_while_it_settles_waits() -> None:
    """Standing still, with all acknowledged and told; then it goes on with what came meanwhile."""
    shop = Shop("trade")
    await shop.open()
    shop.come(_trade(5))
    await shop.worker.quiesce()
    shop.come(_trade(6))
    assert [one["lastSequence"] for one in shop.checkpoints()] == [5]
    assert [one["sequence"] for one in shop.records("unified", "trade")] == [5]
    shop.worker.go_on()
    assert [one["sequence"] for one in shop.records("unified", "trade")] == [5, 6]


async def test_what_was_given_away_derives_nothing_more() -> None:
    """Its connections are closed, and what they still bring is dropped."""
    shop = Shop("trade")
    await shop.open()
    await shop.worker.abandon()
    shop.come(_trade(5))
    assert shop.pool.asked == ["start", "stop"]
    assert shop.records("unified", "trade") == []
    assert shop.telemetry.listeners == {}


async def test_it_hears_which_connection_carries_what() -> None:
    """The end of the only connection of a stream without ids is a gap when the next one carries it."""
    shop = Shop("mini-ticker")
    await shop.open()
    shop.come(_mini(1))
    told = Lifecycle(event="connection.closed", connection_id=shop.line.connection_id, code=1006)
    shop.telemetry.emit(told)
    shop.now += 5 * SECOND
    shop.pipe.receive(shop.leg(), shop.now, [_mini(2)])
    [gap] = shop.records("gaps")
    assert gap["cause"] == "disconnected"


async def test_in_a_transaction_checkpoints_go_with_the_data() -> None:
    """They tell just what is queued so far, and are due now and then."""
    shop = Shop("trade", seconds=10, in_transactions=True)
    await shop.open()
    shop.come(_trade(5))
    shop.worker.before_commit()
    assert [one["lastSequence"] for one in shop.checkpoints()] == [5]
    shop.come(_trade(6))
    shop.worker.before_commit()
    assert len(shop.checkpoints()) == 1
    shop.now += 11 * SECOND
    shop.worker.before_commit()
    assert [one["lastSequence"] for one in shop.checkpoints()] == [5, 6]


async def test_a_checkpoint_of_what_was_discarded_is_never_written() -> None:
    """Nor by a later one that would claim it: the worker is ended then."""
    shop = Shop("trade")
    await shop.open()
    shop.out.at_once = False
    shop.come(_trade(5))
    writing = asyncio.create_task(shop.worker.checkpoint())
    await until(lambda: shop.out.waiting)
    shop.out.discard()
    with pytest.raises(DeliveryFailed):
        await writing
    assert shop.checkpoints() == []
    await shop.worker.abandon()


async def test_a_checkpoint_under_way_is_never_written_once_it_halts() -> None:
    """What it claims may be discarded next."""
    shop = Shop("trade", seconds=0.01)
    await shop.open()
    shop.out.at_once = False
    shop.come(_trade(5))
    await until(lambda: shop.out.waiting)
    await shop.worker.halt()
    shop.out.acknowledge()
    shop.out.at_once = True
    await shop.out.settle()
    assert shop.checkpoints() == []
    assert shop.telemetry.listeners == {}
