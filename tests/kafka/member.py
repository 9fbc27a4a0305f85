"""A member of the group in a process of its own: prints what its owner is told, a line of JSON each."""

from __future__ import annotations

import asyncio
import json
import sys

from bridge.errors import BridgeError
from bridge.kafka.membership import Membership
from bridge.kafka.settings import KafkaSettings


def say(event, **values):
    """Print one event."""
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


class Talker:
    """Owns shards and says so."""

    async def assigned(self, shards):
        """Say it."""
        say("assigned", shards=sorted(shards))

    async def revoking(self, shards):
        """Say it."""
        say("revoking", shards=sorted(shards))

    async def lost(self, reason):
        """Say it, and whether sending would be allowed."""
        say("lost", reason=reason, holds=membership.holds)


async def main():
    """Take part until killed, or until a line comes by standard input: then leave."""
    running = asyncio.create_task(membership.run())
    line = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    await asyncio.wait({running, line}, return_when=asyncio.FIRST_COMPLETED)
    if line.done():
        await membership.leave()
        await running
        say("left")
        return
    try:
        await running
    except BridgeError as error:
        say("error", kind=type(error).__name__, text=str(error))


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    membership = Membership(KafkaSettings(bootstrap_servers=given.pop("servers")), owner=Talker(), **given)
    asyncio.run(main())
