"""A process for tests to freeze and kill: commits one transaction and stops short of committing the next.

    python -m tests.kafka.transaction_holder SERVERS TOPIC ID TRANSACTION_TIMEOUT_MS

It writes lines to its standard output: ``committed``; ``open`` when all of the second transaction is acknowledged
but not committed; after a line on its standard input it commits, and writes what came of it: ``committed``,
``fenced: …`` or ``lost: …``.
"""

from __future__ import annotations

import asyncio
import sys

from bridge.kafka.settings import KafkaSettings
from bridge.kafka.transactional_producer import TransactionalProducer
from bridge.kafka.transactional_publisher import TransactionalPublisher, TransactionHooks

RECORDS = 100


def say(line: str) -> None:
    """Write one line."""
    print(line, flush=True)


def hold() -> None:
    """Stop before a commit until a line is read."""
    commit = TransactionalProducer._commit

    def held(producer: TransactionalProducer) -> None:
        say("open")
        sys.stdin.readline()
        commit(producer)

    TransactionalProducer._commit = held


async def main(servers: str, topic: str, transactional_id: str, timeout_ms: str) -> None:
    """Commit once, and once more when told to."""
    ended = asyncio.Event()

    def end(line: str) -> None:
        say(line)
        ended.set()

    hooks = TransactionHooks(
        on_fenced=lambda reason: end(f"fenced: {reason}"), on_lost=lambda reason: end(f"lost: {reason}")
    )
    settings = KafkaSettings(bootstrap_servers=servers, request_timeout_ms=int(timeout_ms) // 2)
    publisher = TransactionalPublisher(
        settings, hooks, transactional_id=transactional_id, transaction_timeout_ms=int(timeout_ms)
    )
    await publisher.start(timeout=60)
    await publisher.refresh([topic])
    lane = publisher.lane(topic, b"key")
    for batch in range(2):
        for number in range(RECORDS):
            lane.append(number, b"key", b"%d" % (batch * RECORDS + number))
        if await publisher.flush(600) == 0:
            end("committed")
        if batch == 0:
            hold()
    await ended.wait()
    await publisher.stop(5)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
