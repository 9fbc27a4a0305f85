"""Membership in the group of shards, against a real Kafka."""

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError
from confluent_kafka.admin import AclOperation, ResourceType

from bridge.errors import ConfigError, SinkError, TopicMismatch
from bridge.kafka.membership import Membership
from bridge.kafka.settings import KafkaSettings
from tests.kafka.cluster import AUTHORIZER, admin, create_topic, denied

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


class Process:
    """A member in a process of its own, and what it printed so far."""

    def __init__(self, changed):
        self._changed = changed
        self.said = []
        self._process = self._reading = None

    async def start(self, given):
        """Start it with the arguments of its membership."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.kafka.member",
            json.dumps(given),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read())

    async def _read(self):
        async for line in self._process.stdout:
            self.said.append(json.loads(line))
            self._changed.set()

    def signal(self, number):
        """Send it a signal."""
        os.kill(self._process.pid, number)

    def tell(self, line):
        """Write it a line."""
        self._process.stdin.write(f"{line}\n".encode())

    async def kill(self):
        """End it without a chance to say anything, if it has not ended."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading
        self._process.stdin.close()

    async def until_said(self, *events):
        """Wait until it has printed these events, and no others."""
        await until(self._changed, lambda: len(self.said) >= len(events))
        assert self.events == list(events)

    @property
    def events(self):
        """What it printed, without the values."""
        return [line["event"] for line in self.said]


class Members:
    """Members of one group in this process."""

    def __init__(self, settings, topic, shards):
        self.settings, self.topic, self.shards = settings, topic, shards
        self.ledger = []
        self.owners = []
        self.running = {}
        self.processes = []
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

    async def start(self, *, instance=None, session=LONG, **more):
        """Add a member in a process of its own, which is ended with the test; it is not waited for."""
        given = {
            "servers": self.settings.bootstrap_servers,
            "topic": self.topic,
            "shards": self.shards,
            "group": self.topic,
            "instance": instance,
            "session_seconds": session,
            **more,
        }
        process = Process(self.changed)
        await process.start(given)
        self.processes.append(process)
        return process

    async def end(self):
        """End what is left."""
        for owner in list(self.owners):
            await self.vanish(owner)
        for process in self.processes:
            await process.kill()

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
            stack.push_async_callback(members.end)
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


async def test_many_members_share_evenly_and_few_shards_move(group):
    """Eight members over sixteen shards have two each, never two owners at once, and each keeps what it can."""
    members = await group(16)
    for number in range(8):
        await members.join(f"{number}")
    await members.until_shared_out()
    before = {owner: owner.shards for owner in members.owners}
    await members.leave(members.owners[3])
    await members.until_shared_out()
    for owner in members.owners:
        assert before[owner] < owner.shards or before[owner] == owner.shards
    members.assert_one_owner_at_a_time()


async def test_more_members_than_shards(group):
    """Who gets no shard waits, holds the lease of a member, and takes over when there is something to own."""
    members = await group(1)
    first = await members.join("a")
    await first.until(lambda owner: owner.shards)
    second = await members.join("b")
    await second.until(lambda owner: owner.told)
    await first.until(lambda owner: len(owner.told) == 3)
    assert second.told == [("assigned", frozenset())]
    assert second.membership.holds
    await members.leave(first)
    await second.until(lambda owner: owner.shards == {0})
    assert second.calls == ["assigned", "assigned"]
    members.assert_one_owner_at_a_time()


async def test_an_owner_that_does_not_settle_in_time_has_lost(group):
    """The others get the shards when the time of a rebalance is up; who did not settle is cancelled and told."""
    members = await group(4)
    first = await members.join("a", rebalance_seconds=SHORT)
    await first.until(lambda owner: owner.shards)
    cancelled = asyncio.Event()

    async def never():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    first.settling = never
    second = await members.join("b", rebalance_seconds=SHORT)
    await second.until(lambda owner: owner.shards)
    await first.until(lambda owner: "lost" in owner.calls)
    assert cancelled.is_set()
    assert first.calls[:2] == ["assigned", "lost"]
    assert first.holding[1] is False
    assert "not settled within the 3 s that the others wait" in first.told[1][1]
    await members.until_shared_out()
    members.assert_one_owner_at_a_time()


async def test_an_owner_that_fails_to_settle_has_lost(group):
    """An error of ``revoking`` ends nothing: the shards are lost and the member joins again."""
    members = await group(4)
    first = await members.join("a")
    await first.until(lambda owner: owner.shards)

    async def fail():
        first.settling = None
        raise RuntimeError("no broker took the checkpoint")

    first.settling = fail
    await members.join("b")
    await members.until_shared_out()
    assert first.calls == ["assigned", "lost", "assigned"]
    members.assert_one_owner_at_a_time()


async def test_an_error_of_the_owner_ends_the_membership(group):
    """What ``assigned`` raises comes out of ``run``, and nothing may be sent."""
    members = await group(4)
    owner = await members.join("a")
    members.owners.remove(owner)

    async def fail(shards):
        raise RuntimeError("no checkpoints")

    owner.assigned = fail
    with pytest.raises(RuntimeError, match="no checkpoints"):
        await members.running.pop(owner)
    assert not owner.membership.holds
    assert not owner.membership.owned


async def test_a_static_member_that_returns_gets_its_shards_back(group):
    """A static member back within the session has the shards it had, and the other hears nothing of it."""
    members = await group(4)
    stays, goes = await members.join("a", instance="a"), await members.join("b", instance="b")
    await members.until_shared_out()
    had, told = goes.shards, list(stays.told)
    for end in (members.leave, members.vanish):
        await end(goes)
        goes = await members.join("b", instance="b")
        await goes.until(lambda owner: owner.shards)
        assert goes.shards == had
        assert goes.calls == ["assigned"]
    assert stays.told == told
    # And the other way round: one of the two is the group's leader, and its return is nothing special.
    had = stays.shards
    await members.vanish(stays)
    stays = await members.join("a", instance="a")
    await stays.until(lambda owner: owner.shards)
    assert stays.shards == had
    assert goes.calls == stays.calls == ["assigned"]
    members.assert_one_owner_at_a_time()


async def test_a_second_process_of_the_same_instance_ends_the_first(group):
    """Of two processes with one ``instance`` the older ends, and says what to mend; the newer owns the shards."""
    members = await group(4)
    older = await members.join("a", instance="bridge-0")
    await older.until(lambda owner: owner.shards)
    members.owners.remove(older)
    newer = await members.join("b", instance="bridge-0")
    with pytest.raises(
        ConfigError, match="another process runs as instance bridge-0; each process needs its own"
    ):
        await asyncio.wait_for(members.running.pop(older), PATIENCE)
    assert older.calls == ["assigned", "lost"]
    assert older.holding == [True, False]
    await newer.until(lambda owner: owner.shards == {0, 1, 2, 3})
    assert newer.calls == ["assigned"]


async def test_a_killed_process_is_taken_over_after_its_session(group):
    """What a member that was killed had goes to another when its session is over."""
    members = await group(4)
    process = await members.start(session=SHORT)
    await process.until_said("assigned")
    owner = await members.join("a", session=SHORT)
    await process.until_said("assigned", "revoking", "assigned")
    await owner.until(lambda owner: len(owner.shards) == 2)
    await process.kill()
    await owner.until(lambda owner: owner.shards == {0, 1, 2, 3})
    assert owner.calls == ["assigned", "revoking", "assigned"]


async def test_a_process_that_stood_still_has_lost_its_shards(group):
    """A process that wakes up after its session is told that it lost its shards before anything else.

    It is no member then, and joins again.
    """
    members = await group(4)
    process = await members.start(session=SHORT)
    await process.until_said("assigned")
    process.signal(signal.SIGSTOP)
    owner = await members.join("a", session=SHORT)
    await owner.until(lambda owner: owner.shards == {0, 1, 2, 3})
    process.signal(signal.SIGCONT)
    await process.until_said("assigned", "lost", "assigned")
    assert "this process stood still, or Kafka was out of reach" in process.said[1]["reason"]
    assert process.said[1]["holds"] is False
    await owner.until(lambda owner: owner.shards == {0, 1, 2, 3} - set(process.said[2]["shards"]))


async def test_the_lease_runs_out_while_nothing_runs(group):
    """``holds`` compares clocks: after standing still it is false before the event loop has come round once."""
    members = await group(4)
    owner = await members.join("a", session=SHORT)
    await owner.until(lambda owner: owner.shards)
    assert owner.membership.holds
    time.sleep(SHORT)  # noqa: ASYNC251 - standing still is what this is about
    assert not owner.membership.holds
    assert owner.calls == ["assigned"]
    await owner.until(lambda owner: len(owner.told) == 3)
    assert owner.calls == ["assigned", "lost", "assigned"]


async def test_a_static_process_that_was_killed_is_back_at_once(group):
    """A static member that was killed and started again within its session has its shards; nobody is told off."""
    members = await group(4)
    process = await members.start(instance="bridge-0")
    await process.until_said("assigned")
    owner = await members.join("a", instance="bridge-1")
    await process.until_said("assigned", "revoking", "assigned")
    await owner.until(lambda owner: len(owner.shards) == 2)
    had, told = process.said[-1]["shards"], list(owner.told)
    for _ in range(3):
        await process.kill()
        process = await members.start(instance="bridge-0")
        await process.until_said("assigned")
        assert process.said[0]["shards"] == had
    assert owner.told == told


async def test_a_replaced_process_that_wakes_up_ends(group):
    """A static member that stood still while another process took its name loses its shards and ends."""
    members = await group(4)
    process = await members.start(instance="bridge-0")
    await process.until_said("assigned")
    process.signal(signal.SIGSTOP)
    owner = await members.join("a", instance="bridge-0")
    await owner.until(lambda owner: owner.shards == {0, 1, 2, 3})
    process.signal(signal.SIGCONT)
    await process.until_said("assigned", "lost", "error")
    assert process.said[1]["holds"] is False
    assert process.said[2]["kind"] == "ConfigError"
    assert "another process runs as instance bridge-0" in process.said[2]["text"]
    assert owner.calls == ["assigned"]


async def test_a_process_that_leaves(group):
    """A process that ends cleanly gives over at once what it had."""
    members = await group(4)
    process = await members.start()
    await process.until_said("assigned")
    owner = await members.join("a")
    await process.until_said("assigned", "revoking", "assigned")
    process.tell("leave")
    await owner.until(lambda owner: owner.shards == {0, 1, 2, 3})
    await process.until_said("assigned", "revoking", "assigned", "left")


async def test_a_session_that_the_brokers_refuse(own_kafka, unique):
    """A session shorter than the brokers allow is a configuration error that names their setting."""
    cluster = await asyncio.to_thread(own_kafka, properties={"group.min.session.timeout.ms": "6000"})
    await create_topic(cluster.bootstrap_servers, unique, 1)
    members = Members(KafkaSettings(bootstrap_servers=cluster.bootstrap_servers), unique, 1)
    owner = await members.join("a", session=SHORT)
    with pytest.raises(ConfigError, match=r"refuse a session of 3 s.*group\.min\.session\.timeout\.ms"):
        await asyncio.wait_for(members.running[owner], PATIENCE)
    assert not owner.told


async def test_the_topic_must_be_as_configured(settings, unique):
    """A missing topic, and one with another number of partitions, are errors that say so."""
    members = Members(settings, unique, 4)
    owner = await members.join("a")
    with pytest.raises(TopicMismatch, match="is missing, or hidden from this user"):
        await asyncio.wait_for(members.running[owner], PATIENCE)
    await create_topic(settings.bootstrap_servers, unique, 3)
    owner = await members.join("a")
    with pytest.raises(TopicMismatch, match="has 3 partitions, but shards is 4"):
        await asyncio.wait_for(members.running[owner], PATIENCE)


def test_an_instance_name_that_kafka_does_not_take():
    """An ``instance`` that can't be a member's name is refused before anything is sent."""
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    with pytest.raises(ConfigError, match="instance is 'a b'"):
        Membership(settings, topic="t", shards=1, group="g", instance="a b", session_seconds=10, owner=None)


async def test_a_broker_that_restarts_costs_nothing(own_kafka, unique):
    """A membership outlives the restart of the coordinator within its session."""
    cluster = await asyncio.to_thread(own_kafka)
    await create_topic(cluster.bootstrap_servers, unique, 4)
    members = Members(KafkaSettings(bootstrap_servers=cluster.bootstrap_servers), unique, 4)
    owner = await members.join("a", rebalance_seconds=LONG)
    await owner.until(lambda owner: owner.shards)
    await asyncio.to_thread(cluster.kill, 1)
    await asyncio.to_thread(cluster.restart, 1)
    await members.join("b", rebalance_seconds=LONG)
    await members.until_shared_out()
    assert owner.calls == ["assigned", "revoking", "assigned"]
    members.assert_one_owner_at_a_time()
    await members.end()


async def test_brokers_out_of_reach_for_longer_than_the_session(own_kafka, unique):
    """The lease runs out and the shards are lost; once the brokers are back they are shared out again."""
    cluster = await asyncio.to_thread(own_kafka)
    await create_topic(cluster.bootstrap_servers, unique, 4)
    members = Members(KafkaSettings(bootstrap_servers=cluster.bootstrap_servers), unique, 4)
    first, second = await members.join("a", session=SHORT), await members.join("b", session=SHORT)
    await members.until_shared_out()
    cluster.suspend(1)
    for owner in (first, second):
        await owner.until(lambda owner: owner.calls[-1] == "lost")
        assert owner.holding[-1] is False
        assert "Kafka was out of reach" in owner.told[-1][1]
    cluster.resume(1)
    await members.until_shared_out()
    members.assert_one_owner_at_a_time()
    await members.end()


async def test_permission_denied_and_withdrawn(own_kafka, unique):
    """A user who may not join is told so; one whose permission is withdrawn loses its shards until it is back."""
    cluster = await asyncio.to_thread(own_kafka, properties=AUTHORIZER)
    await create_topic(cluster.bootstrap_servers, unique, 4)
    members = Members(KafkaSettings(bootstrap_servers=cluster.bootstrap_servers), unique, 4)
    with denied(cluster.bootstrap_servers, ResourceType.GROUP, unique, AclOperation.READ):
        owner = await members.join("a")
        with pytest.raises(SinkError, match=f"may not join the consumer group {unique}; allow it Read"):
            await asyncio.wait_for(members.running[owner], PATIENCE)
    members = Members(members.settings, unique, 4)
    owner = await members.join("a", session=SHORT)
    await owner.until(lambda owner: owner.shards)
    with denied(cluster.bootstrap_servers, ResourceType.GROUP, unique, AclOperation.READ):
        await owner.until(lambda owner: owner.calls == ["assigned", "lost"])
    await owner.until(lambda owner: owner.calls == ["assigned", "lost", "assigned"])
    await members.end()


@pytest.mark.faults
async def test_a_coordinator_that_moves_costs_nothing(own_kafka, unique):
    """A membership outlives its coordinator's clean stop, its crash and its standing still, and works after it."""
    cluster = await asyncio.to_thread(own_kafka, 3)
    await create_topic(cluster.bootstrap_servers, unique, 4, replication=3)
    members = Members(KafkaSettings(bootstrap_servers=cluster.bootstrap_servers), unique, 4)
    await members.join("a")
    await members.join("b")
    await members.until_shared_out()
    before = {owner: list(owner.told) for owner in members.owners}
    for fault in (cluster.stop_node, cluster.kill, cluster.suspend):
        coordinator = await until_moved(cluster, unique, from_node=None)
        await asyncio.to_thread(fault, coordinator)
        await until_moved(cluster, unique, from_node=coordinator)
        for owner in members.owners:
            await until_proven(owner.membership)
        await asyncio.to_thread(cluster.restart, coordinator)
    assert {owner: owner.told for owner in members.owners} == before
    await members.join("c")
    await members.until_shared_out()
    members.assert_one_owner_at_a_time()
    await members.end()


async def until_moved(cluster, group, *, from_node):
    """Return the coordinator of ``group`` once it is another than ``from_node``."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(KafkaError, TimeoutError):  # it may ask the very node
                async with admin(cluster.bootstrap_servers, request_timeout_ms=3000) as client:
                    found = await client.find_coordinator(group)
                if found != from_node:
                    return found
            await asyncio.sleep(0.5)


async def until_proven(membership):
    """Wait until a heartbeat from now on has been answered."""
    left = membership.lease_left
    async with asyncio.timeout(PATIENCE):
        while membership.lease_left <= left:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.1)
