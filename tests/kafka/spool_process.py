"""A process with a spool that appends numbers until it is killed, for ``test_spooling.py``.

``python -m tests.kafka.spool_process SERVERS TOPIC DIRECTORY BASE``. It prints a line for what the test waits for:
``started``, ``recovered N``, ``delivered N``, ``appended N``, and ``safe N`` when all before N is acknowledged or in
a file. A line ``flush`` on standard input lets it deliver everything and end.
"""

import asyncio
import sys
from pathlib import Path
from time import time

from bridge.errors import KafkaUnavailable
from bridge.kafka.aiokafka_publisher import AiokafkaPublisher
from bridge.kafka.publisher import Hooks
from bridge.kafka.settings import KafkaSettings, SpoolSettings

KEYS = [f"KEY{number}".encode() for number in range(12)]


def say(text: str) -> None:
    """Print a line now."""
    print(text, flush=True)


async def run(servers: str, topic: str, directory: Path, base: int) -> None:
    """Append until ``flush`` comes on standard input."""
    total = 0

    def on_delivered(_topic: str, records: int, *_: object) -> None:
        nonlocal total
        total += records
        say(f"delivered {total}")

    publisher = AiokafkaPublisher(
        KafkaSettings(bootstrap_servers=servers, request_timeout_ms=2000, batch_bytes=2000),
        Hooks(on_delivered=on_delivered),
        spool=SpoolSettings(directory=directory, sync_ms=200),
    )
    while True:
        try:
            await publisher.start(timeout=5)
            await publisher.refresh([topic])
            break
        except KafkaUnavailable:
            await publisher.stop(1)
            await asyncio.sleep(0.2)
    say("started")
    left = sum(records for _, records in publisher.recoverable())
    await publisher.recover(lambda _: True)
    say(f"recovered {left}")
    ending = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    number = base
    began_ms = int(time() * 1000)
    while not ending.done():
        for _ in range(5):
            for key in KEYS:
                publisher.lane(topic, key).append(began_ms, key, b"%d" % number)
            number += 1
        say(f"appended {number}")
        await asyncio.sleep(0.02)
        outboxes = publisher._outboxes.values()
        if all(outbox.queued == outbox.stored for outbox in outboxes):
            say(f"safe {number}")
    await publisher.settle()
    await publisher.stop(10)
    say(f"safe {number}")


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
