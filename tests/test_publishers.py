"""The publishers of a process: one for all, or with transactions one for each shard."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from bridge.errors import DeliveryFailed
from bridge.kafka.publisher import Hooks
from bridge.kafka.settings import KafkaSettings
from bridge.publishers import Publishers, Transactions
from tests.kafka.cluster import create_topic, read_all

pytestmark = pytest.mark.kafka


def publishers(bootstrap: str, prefix: str | None, outcomes: list[str] | None = None) -> Publishers:
    """Return publishers for up to three shards; with transactions where a prefix is given."""
    told = [] if outcomes is None else outcomes
    transactions = None
    if prefix is not None:
        transactions = Transactions(
            prefix=prefix,
            interval_ms=20,
            timeout_ms=30_000,
            on_transaction=lambda outcome, seconds: told.append(outcome if seconds > 0 else "no time"),
        )
    settings = KafkaSettings(bootstrap_servers=bootstrap, buffer_bytes=4_000_000)
    return Publishers(settings, Hooks(), may_send=lambda: True, shards=3, transactions=transactions)


async def take(of: Publishers, shard: int, ended: list[str] | None = None, before_commit=lambda: None):
    """Return the publisher of a shard."""
    told = [] if ended is None else ended
    return await of.of(shard, before_commit=before_commit, on_ended=told.append)


async def test_without_transactions_one_publishes_for_all(kafka, unique):
    """Every shard publishes by the process's own publisher, which a dismissed shard leaves to the others."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    all_ = publishers(kafka.bootstrap_servers, None)
    await all_.start()
    await all_.refresh([unique])
    first, second = await take(all_, 0), await take(all_, 1)
    assert first is second is all_.own
    assert await all_.dismiss(0) == 0
    second.lane(unique, b"key").append(1, b"key", b"value")
    assert await all_.stop(60) == []
    assert [record.value for record in await read_all(kafka.bootstrap_servers, unique)] == [b"value"]


async def test_a_shard_has_transactions_of_its_own(kafka, unique):
    """What one shard adds before its commit goes with its own records; a dismissed one publishes nothing more."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    outcomes: list[str] = []
    all_ = publishers(kafka.bootstrap_servers, unique, outcomes)
    await all_.start()
    await all_.refresh([unique])

    def checkpoint() -> None:
        kept.lane(unique, b"key").append(1, b"key", b"checkpoint")

    kept, dismissed = await take(all_, 0, before_commit=checkpoint), await take(all_, 1)
    assert await take(all_, 0) is kept
    assert all_.limit_bytes == 4_000_000
    assert kept.limit_bytes == 1_000_000
    kept.lane(unique, b"key").append(1, b"key", b"kept")
    await kept.settle()
    dismissed.may_send = lambda: False
    dismissed.lane(unique, b"key").append(1, b"key", b"dropped")
    assert all_.buffered_bytes > 0
    assert await all_.dismiss(1) == 1
    assert await all_.dismiss(1) == 0
    assert all_.buffered_bytes == 0
    assert await all_.stop(60) == []
    stored = [record.value for record in await read_all(kafka.bootstrap_servers, unique)]
    assert stored == [b"kept", b"checkpoint"]
    assert Counter(outcomes) == {"committed": 1}


async def test_the_shard_is_told_that_another_process_took_it(kafka, unique):
    """Whose transactional id was taken is told once, and gets a new publisher when the shard is its own again."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    ours, theirs = publishers(kafka.bootstrap_servers, unique), publishers(kafka.bootstrap_servers, unique)
    for one in (ours, theirs):
        await one.start()
        await one.refresh([unique])
    ended: list[str] = []
    fenced = await take(ours, 2, ended)
    await take(theirs, 2)
    fenced.lane(unique, b"key").append(1, b"key", b"too late")
    with pytest.raises(DeliveryFailed, match="another process took transactional id"):
        await fenced.settle()
    [reason] = ended
    assert f"{unique}-2" in reason
    await ours.dismiss(2)
    again = await take(ours, 2, ended)
    again.lane(unique, b"key").append(1, b"key", b"again")
    async with asyncio.timeout(60):
        await again.settle()
    assert len(ended) == 1
    assert await ours.stop(60) == []
    await theirs.stop(60)
    assert [record.value for record in await read_all(kafka.bootstrap_servers, unique)] == [b"again"]


def test_a_trouble_is_over_with_the_last_publisher_that_has_it():
    """Each tells its own; what one is told of twice, and what a publisher takes with it, stays nobody's."""
    told: list[tuple[str, str]] = []
    hooks = Hooks(on_trouble=lambda kind, topic, _: told.append((kind, topic)))
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    all_ = Publishers(settings, hooks, may_send=lambda: True, shards=2)
    all_._tell(0, "unavailable", "", "a transaction takes long")
    all_._tell(1, "unavailable", "", "a transaction takes long")
    all_._tell(1, "no-leader", "trades", "partition 0")
    all_._tell(0, "recovered", "", "over")
    assert [kind for kind, _ in told] == ["unavailable", "unavailable", "no-leader"]
    all_._tell(1, "recovered", "", "its publisher is gone")
    assert told[3:] == [("recovered", ""), ("recovered", "trades")]
    all_._tell(None, "recovered", "", "nothing was")
    assert len(told) == 5
