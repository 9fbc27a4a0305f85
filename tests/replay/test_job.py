"""A replay of raw topics on a real Kafka, as several owners wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bridge.catalogue import TopicNames
from bridge.core.schema import encode
from bridge.kafka.publisher import create_publisher
from bridge.kafka.settings import KafkaSettings
from bridge.replay.job import ReplayRequest, replay
from bridge.schema import schemas
from tests.core.test_pipeline import NOW, SECOND, TESTS, _trade
from tests.integration.reading import read, records
from tests.kafka.cluster import create_topic

if TYPE_CHECKING:
    from tests.kafka_fixture import OwnKafka

pytestmark = pytest.mark.kafka


class Left:
    """Raw topics of the spot market, of one partition each, written by hand."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.names = TopicNames("prod")
        self.settings = KafkaSettings(bootstrap_servers=bootstrap_servers)
        self.publisher = create_publisher(self.settings)
        self.number = 0

    async def start(self) -> None:
        """Create the topics, and let the first owner have asked for the instruments."""
        topics = [self.names.raw("spot", channel) for channel in ("trade", "api")]
        for topic in topics:
            await create_topic(self.settings.bootstrap_servers, topic, 1)
        await self.publisher.start()
        await self.publisher.refresh(topics)
        self._write(
            "api",
            "/api/v3/exchangeInfo",
            None,
            1,
            NOW,
            (TESTS / "cases/exchange-info/spot.json").read_bytes(),
        )

    def trade(self, epoch: int, id_: int, seconds: int) -> None:
        """Write what an owner received of BTCUSDT so many seconds after the beginning."""
        self._write("trade", "btcusdt@trade", "BTCUSDT", epoch, NOW + seconds * SECOND, _trade(id_))

    def _write(
        self, channel: str, stream: str, symbol: str | None, epoch: int, received_at: int, payload: bytes
    ) -> None:
        self.number += 1
        record = {
            "environment": "prod", "market": "spot", "channel": channel, "stream": stream, "symbol": symbol,
            "connectionId": 0 if symbol is None else epoch, "writerEpoch": epoch,
            "kind": "rest" if symbol is None else "stream", "connectionSequence": self.number,
            "receivedAt": received_at, "eventTime": None, "payload": payload,
        }  # fmt: skip
        key = (symbol or stream).encode()
        lane = self.publisher.lane(self.names.raw("spot", channel), key)
        lane.append(received_at // 1000, key, encode(schemas()["raw"], record))


async def test_what_a_partition_holds_behind_a_later_owner_is_late(own_kafka: OwnKafka) -> None:
    """It is dropped, though it was received before the new one's records; the same run again has nothing to do."""
    left = Left(own_kafka().bootstrap_servers)
    await left.start()
    for epoch, id_, seconds in ((1, 1, 1), (1, 2, 2), (2, 5, 8), (1, 3, 3), (2, 6, 9)):
        left.trade(epoch, id_, seconds)
    assert not await left.publisher.stop(60)

    request = ReplayRequest(environment="prod", into="again", markets=("spot",), structures=("trade",))
    done = await replay(left.settings, request, partitions=1, replication_factor=1)
    assert (done.read, done.total, done.records) == (6, 6, 4)
    found = read(left.settings.bootstrap_servers, "prod", namespace="again")
    trades = [(r["writerEpoch"], r["sequence"]) for r in records(found["again.prod.unified.trade"])]
    assert trades == [(1, 1), (1, 2), (2, 5), (2, 6)]
    [gap] = records(found["again.prod.gaps"])
    assert (gap["firstSequence"], gap["lastSequence"], gap["cause"]) == (3, 4, "restart")

    again = await replay(left.settings, request, partitions=1, replication_factor=1)
    assert (again.read, again.resumed, again.records) == (6, 6, 0)
