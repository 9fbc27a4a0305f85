"""Membership in the group of shards, against a real Kafka."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from bridge.kafka.membership import Membership
from bridge.kafka.settings import KafkaSettings
from tests.kafka.cluster import create_topic

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
PATIENCE = 60
LONG = 600.0  # a session that no test waits for: what comes before its deadline did not wait either
SHORT = 3.0  # one that a test waits for


class Owner:
    """Notes what it is told, and in ``ledger`` from when to when each shard was its own."""

    def __init__(self, name, ledger, changed):
        self.name, self.ledger, self._changed = name, ledger, changed
        self.told = []
        self.shards = frozenset()
        self.membership = None
        self.holding = []  # whether sending was allowed at each call
        self.settling = None

    def _note(self, *what):
        self.told.append(what)
        self.holding.append(self.membership.holds)
        self._changed.set()

    async def assigned(self, shards):
        for shard in shards - self.shards:
            self.ledger.append((shard, self.name, "begin"))
        for shard in self.shards - shards:
            self.ledger.append((shard, self.name, "end"))
        self.shards = shards
        self._note("assigned", shards)

    async def revoking(self, shards):
        assert shards == self.shards
        if self.settling is not None:
            await self.settling()
        # From here on others may own them.
        self._end()
        self._note("revoking", shards)

    async def lost(self, reason):
        self._end()
        self._note("lost", reason)

    def _end(self):
        self.ledger += [(shard, self.name, "end") for shard in self.shards]
        self.shards = frozenset()

    async def until(self, condition):
        """Wait until ``condition(owner)`` holds, looked at after everything it is told."""
        await until(self._changed, lambda: condition(self))

    @property
    def calls(self):
        """What it was told, without the values."""
        return [what for what, _ in self.told]


async def until(changed, condition):
    """Wait until ``condition()`` holds, looked at after every setting of ``changed``."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            changed.clear()
            await changed.wait()


class Members:
    """Members of one group in this process."""

    def __init__(self, settings, topic, shards):
        self.settings, self.topic, self.shards = settings, topic, shards
        self.ledger = []
        self.owners = []
        self.running = {}
        self.changed = asyncio.Event()

    async def join(self, name, *, instance=None, session=LONG, **more):
        """Add a member; it is not waited for."""
        owner = Owner(name, self.ledger, self.changed)
        owner.membership = Membership(
            self.settings,
            topic=self.topic,
            shards=self.shards,
            group=self.topic,
            instance=instance,
            session_seconds=session,
            owner=owner,
            **more,
        )
        self.owners.append(owner)
        self.running[owner] = asyncio.create_task(owner.membership.run())
        return owner

    async def leave(self, owner):
        """Let a member end cleanly."""
        self.owners.remove(owner)
        owner._end()
        await owner.membership.leave()
        await self.running.pop(owner)

    async def vanish(self, owner):
        """Let a member end without a word to Kafka."""
        self.owners.remove(owner)
        owner._end()
        running = self.running.pop(owner)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    async def until_shared_out(self):
        """Wait until every shard has an owner and each member its share."""
        await until(self.changed, self._shared_out)

    def _shared_out(self):
        owned = [shard for owner in self.owners for shard in owner.shards]
        sizes = {len(owner.shards) for owner in self.owners}
        return sorted(owned) == list(range(self.shards)) and max(sizes) - min(sizes) <= 1

    def assert_one_owner_at_a_time(self):
        """The ledger has no shard that begins with one member before it ended with another."""
        owners = {}
        for shard, name, what in self.ledger:
            if what == "begin":
                assert owners.setdefault(shard, name) == name, (shard, owners[shard], name)
            else:
                assert owners.pop(shard) == name


@pytest.fixture
def settings(kafka):
    """Give the settings that reach the shared broker."""
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)


@pytest.fixture
async def group(settings, unique):
    """Make groups of members over a topic of so many shards; all end with the test."""
    async with AsyncExitStack() as stack:

        async def make(shards=4, settings=settings, replication=1):
            await create_topic(settings.bootstrap_servers, unique, shards, replication)
            members = Members(settings, unique, shards)

            async def end():
                for owner in list(members.owners):
                    await members.vanish(owner)

            stack.push_async_callback(end)
            return members

        yield make


async def test_a_member_alone_owns_every_shard(group):
    """A member alone is assigned all shards and holds the lease."""
    members = await group(4)
    owner = await members.join("a")
    await owner.until(lambda owner: owner.shards == {0, 1, 2, 3})
    assert owner.membership.holds
    assert owner.membership.owned == {0, 1, 2, 3}
    assert owner.calls == ["assigned"]


async def test_a_second_member_takes_over_half(group):
    """A second member gets its share only after the first has settled, and the first keeps the rest."""
    members = await group(4)
    first = await members.join("a")
    await first.until(lambda owner: owner.shards)
    second = await members.join("b")
    await members.until_shared_out()
    assert first.calls == ["assigned", "revoking", "assigned"]
    assert first.holding == [True, True, True]
    assert len(first.shards) == len(second.shards) == 2
    members.assert_one_owner_at_a_time()


async def test_leaving_gives_over_at_once(group):
    """What a member that leaves had is another's at once, not after its session."""
    members = await group(4)
    first, second = await members.join("a"), await members.join("b")
    await members.until_shared_out()
    await members.leave(first)
    assert not first.membership.holds
    await second.until(lambda owner: owner.shards == {0, 1, 2, 3})
    members.assert_one_owner_at_a_time()
