"""A process's membership in the consumer group that shares out the shards, and its lease on those it owns.

A member proves by a heartbeat several times in each session that it still is one. What an answered heartbeat
proves holds until a session after the heartbeat was *sent*, less a margin: earlier no coordinator gives the shards
to another. That is the lease (:attr:`Membership.holds`). A process that stood still finds it run out by a look at
the clock, before it can send anything.

A rebalance goes in this order, for every member:

1. a heartbeat is answered "rebalance": ``owner.revoking(shards)``, while heartbeats and lease go on;
2. the lease ends; the member joins again;
3. a first heartbeat in the new generation begins the new lease: ``owner.assigned(shards)``.

Where the order can't be kept (the lease ran out, the coordinator went on without us, the owner did not settle in
time), ``owner.lost(reason)`` comes instead of what was left of it, and always before the next ``assigned``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from bridge.errors import BridgeError, ConfigError, KafkaUnavailable, TopicMismatch
from bridge.kafka import client as kafka_client
from bridge.kafka.group import Denied, Group, NotMember, RebalanceBegan, Unanswered
from bridge.kafka.share_out import Claim, share_out

if TYPE_CHECKING:
    from bridge.kafka.settings import KafkaSettings

log = logging.getLogger("bridge")

_NEVER = float("-inf")
_CONNECT_SECONDS = 10.0
_LEAVE_SECONDS = 5.0
_LOOKS = 10  # at a topic that is not as it should be: a broker that has just started may not know yet
_LOOK_SECONDS = 0.3
_ATTEMPTS_BEFORE_CONNECTING_ANEW = 5  # then by the bootstrap servers: the cluster may have moved
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0  # seconds between attempts to join
_NO_SHARDS: frozenset[int] = frozenset()
_INSTANCE = re.compile(r"[A-Za-z0-9._-]{1,249}")


class ShardOwner(Protocol):
    """Who works on the shards. All of it is called on the event loop, one call at a time."""

    async def assigned(self, shards: frozenset[int]) -> None:
        """Take over ``shards``: all that are owned from now on, those kept included.

        Should start the work and return; a rebalance waits for it. An error ends the membership.
        """

    async def revoking(self, shards: frozenset[int]) -> None:
        """Hold the work and settle what was published: when this returns, others may own ``shards``.

        Sending is allowed until then, and no more until ``assigned``, which tells which shards were kept: nobody
        else owned those in between. Time is bounded; when it is up, this is cancelled and ``lost`` called. An
        error counts as not settled: ``lost`` is called.
        """

    async def lost(self, reason: str) -> None:
        """Abandon all shards at once; others may own them already. Sending is not allowed any more."""


class Membership:
    """Takes part in the group and tells the owner what it owns.

    Args:
        settings: where Kafka is.
        topic: its partitions are the shards; nothing is ever in it.
        shards: how many partitions it must have.
        group: name of the consumer group.
        instance: makes the member a static one of this name: it gets its shards back without a rebalance when it
            returns within the session. None for a dynamic member.
        session_seconds: how long a member may be silent before its shards are given to others.
        rebalance_seconds: how long the others wait for the owner to settle in a rebalance.
        owner: who works on the shards.
        name: client id, as broker logs and quotas show it.

    Raises:
        ConfigError: ``instance`` is no name.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        topic: str,
        shards: int,
        group: str,
        instance: str | None,
        session_seconds: float,
        owner: ShardOwner,
        rebalance_seconds: float = 30.0,
        name: str = "bridge-shards",
    ) -> None:
        if instance is not None and not _INSTANCE.fullmatch(instance):
            raise ConfigError(f"instance is {instance!r}; use letters, digits, . _ and -, at most 249")
        self._settings, self._topic, self._shards = settings, topic, shards
        self._group_name, self._instance, self._name = group, instance, name
        self._session, self._rebalance, self._owner = session_seconds, rebalance_seconds, owner
        self._margin = min(session_seconds, rebalance_seconds) / 10
        self._beat_seconds = min(1.0, session_seconds / 10)
        self._answer_seconds = min(5.0, session_seconds / 3)
        self._member_id = ""
        self._lease = _NEVER
        self._proven = _NEVER  # when the newest heartbeat was sent that found the group at peace
        self._owned = _NO_SHARDS
        self._held = _NO_SHARDS  # settled in a rebalance that is not over; kept if nobody else gets them
        self._held_since = _NEVER
        self._claim = Claim()
        self._was_member = False
        self._failures = 0
        self._troubled = False
        self._running: asyncio.Task[None] | None = None

    @property
    def holds(self) -> bool:
        """Whether the lease holds now, so that sending is allowed."""
        return _now() < self._lease

    @property
    def lease_left(self) -> float:
        """For how many seconds from now the lease holds; 0 where it does not."""
        return max(0.0, self._lease - _now())

    @property
    def owned(self) -> frozenset[int]:
        """The shards that are owned now; none from ``revoking`` or ``lost`` until ``assigned``."""
        return self._owned

    @property
    def generation(self) -> int:
        """The newest generation of the group that this process was a member of; -1 before the first."""
        return self._claim.generation

    async def run(self) -> None:
        """Take part until cancelled or :meth:`leave`; what Kafka can't do now is tried again for ever.

        Raises:
            ConfigError: the brokers refuse the session; another process has the same ``instance``.
            TopicMismatch: the topic is missing, or has another number of partitions.
            SinkError: this user may not join the group. Once it was a member, that is tried again instead.
        """
        assert self._running is None, "a membership runs once at a time"
        self._running = asyncio.create_task(self._live())
        try:
            await asyncio.wait({self._running})
        finally:
            running, self._running = self._running, None
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self._end_lease()
            self._owned = self._held = _NO_SHARDS
        if not running.cancelled():
            running.result()

    async def leave(self) -> None:
        """End :meth:`run` and leave the group at once, so that others take over now; takes some seconds at most.

        The owner is told nothing: settle first. A static member stays in the group for its session, to return.
        """
        if self._running is not None:
            self._end_lease()
            self._running.cancel()
            await asyncio.wait({self._running})
        if self._instance is not None or not self._member_id:
            return
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                client = await kafka_client.connect(self._settings, name=self._name, timeout=_LEAVE_SECONDS)
                try:
                    group = self._group(client)
                    await group.leave()
                    group.close()
                finally:
                    await kafka_client.close(client, timeout=1)
        except (BridgeError, TimeoutError) as error:
            shown = error if isinstance(error, BridgeError) else f"no answer within {_LEAVE_SECONDS:g} s"
            log.warning("shards: others take over only after the session, as leaving failed: %s", shown)
        self._member_id = ""

    async def _live(self) -> None:
        while True:
            try:
                await self._connect_and_take_part()
            except (KafkaUnavailable, Unanswered) as error:
                self._note_trouble(error)
            except Denied as error:
                if not self._was_member:
                    raise
                self._note_trouble(error)
            except BridgeError as error:
                await self._let_go(str(error))
                raise
            await self._let_go_of_what_is_held_too_long()
            await self._pause()

    async def _connect_and_take_part(self) -> None:
        # A broker that stands still must not use up the lease of a member that could ask another one.
        impatient = replace(self._settings, request_timeout_ms=int(self._answer_seconds * 1000))
        client = await kafka_client.connect(impatient, name=self._name, timeout=_CONNECT_SECONDS)
        group = self._group(client)
        attempts = 0
        try:
            while True:
                try:
                    await self._one_generation(group)
                    attempts = 0
                except Unanswered as error:
                    attempts += 1
                    if attempts == _ATTEMPTS_BEFORE_CONNECTING_ANEW:
                        raise
                    self._note_trouble(error)
                    await self._let_go_of_what_is_held_too_long()
                    await self._pause()
        finally:
            self._member_id = group.member_id
            group.close()
            await kafka_client.close(client, timeout=1)

    def _group(self, client: kafka_client.Client) -> Group:
        return Group(
            self._settings,
            client,
            group=self._group_name,
            topic=self._topic,
            instance=self._instance,
            session_seconds=self._session,
            rebalance_seconds=self._rebalance,
            answer_seconds=self._answer_seconds,
            name=self._name,
            member_id=self._member_id,
        )

    async def _one_generation(self, group: Group) -> None:
        """Join, and be a member until the group comes together anew or has lost us."""
        await self._check_topic(group)
        try:
            joined = await group.join(self._claim)
            shares = None if joined.claims is None else share_out(self._shards, joined.claims)
            shards = await group.sync(shares)
            # Waiting for the others may have used up what the join proved.
            sent = _now()
            await group.heartbeat()
        except (NotMember, RebalanceBegan):
            await self._let_go_of_what_is_held_too_long()
            await self._pause()
            return
        self._note_success()
        self._proven = sent
        self._lease = sent + self._session - self._margin
        if not self.holds:
            return
        if joined.generation - self._claim.generation not in (0, 1):
            await self._let_go("the group had generations without this process")
        self._was_member = True
        self._held = _NO_SHARDS
        self._owned = shards
        self._claim = Claim(joined.generation, shards)
        log.info("shards: %s, in generation %d", _listed(shards), joined.generation)
        await self._keep(group)

    async def _check_topic(self, group: Group) -> None:
        for _ in range(_LOOKS):
            count = await group.partitions()
            if count in (self._shards, None):
                return
            await asyncio.sleep(_LOOK_SECONDS)
        await self._let_go("the topic of the shards changed")
        if not count:
            raise TopicMismatch(f"topic {self._topic} is missing, or hidden from this user")
        raise TopicMismatch(
            f"topic {self._topic} has {count} partitions, but shards is {self._shards}; all processes need the same"
        )

    async def _keep(self, group: Group) -> None:
        """Own the shards while heartbeats prove it, and settle when a rebalance begins."""
        work = asyncio.create_task(self._assign())
        settling = False
        try:
            while not work.done() or not (settling or work.exception()):
                await self._until_next_heartbeat(work)
                if not self.holds:
                    await self._lose(work, self._why_run_out(settling=settling))
                    return
                try:
                    if await self._heartbeat(group) and not settling:
                        settling, work = True, asyncio.create_task(self._settle(work))
                except NotMember as error:
                    await self._lose(work, str(error))
                    return
                except BridgeError as error:
                    await self._lose(work, str(error))
                    raise
            if not work.result():
                await self._lose(work, "its work could not be settled for a rebalance")
            elif not self.holds:
                await self._lose(work, self._why_run_out(settling=True))
            else:
                self._hold()
        finally:
            await _end(work)

    async def _assign(self) -> bool:
        await self._owner.assigned(self._owned)
        return True

    async def _settle(self, assigning: asyncio.Task[bool]) -> bool:
        """Return whether the owner has settled; first it ends what ``assigned`` began."""
        await assigning
        try:
            if self._owned:
                await self._owner.revoking(self._owned)
        except Exception:
            log.exception("shards: settling failed")
            return False
        return True

    async def _until_next_heartbeat(self, work: asyncio.Task[bool]) -> None:
        seconds = max(0.0, min(self._beat_seconds, self._lease - _now()))
        if work.done():
            await asyncio.sleep(seconds)
        else:
            await asyncio.wait({work}, timeout=seconds)

    async def _heartbeat(self, group: Group) -> bool:
        """Prolong the lease if we still are a member; return whether a rebalance has begun."""
        sent = _now()
        try:
            await group.heartbeat()
        except RebalanceBegan:
            self._note_success()
            # The group waits as long as this for us, from after the newest heartbeat that found it at peace.
            patience = self._proven + self._rebalance
            self._lease = min(sent + self._session, patience) - self._margin
            return True
        except (Unanswered, Denied) as error:
            self._note_trouble(error)
            return False
        self._note_success()
        self._proven = sent
        self._lease = sent + self._session - self._margin
        return False

    def _hold(self) -> None:
        """Be ready to join again: what is owned is settled, and kept only if the next generation says so."""
        self._end_lease()
        self._held, self._owned, self._held_since = self._owned, _NO_SHARDS, _now()

    async def _lose(self, work: asyncio.Task[bool], reason: str) -> None:
        self._end_lease()
        self._held, self._owned = self._owned, _NO_SHARDS
        await _end(work)
        await self._let_go(reason)

    async def _let_go(self, reason: str) -> None:
        """Tell the owner that what it held is lost, if it held any."""
        held, self._held = self._held, _NO_SHARDS
        if held:
            log.warning("shards: lost %s: %s", _listed(held), reason)
            await self._owner.lost(reason)

    async def _let_go_of_what_is_held_too_long(self) -> None:
        waited = _now() - self._held_since
        if self._held and waited > self._rebalance + self._session:
            await self._let_go(f"the group has not come together for {waited:.0f} s")

    def _why_run_out(self, *, settling: bool) -> str:
        silent = _now() - self._proven
        if settling and silent > self._rebalance - self._margin:
            return f"not settled within the {self._rebalance:g} s that the others wait in a rebalance"
        return (
            f"nothing proved its membership for {silent:.1f} s (session {self._session:g} s): "
            "this process stood still, or Kafka was out of reach"
        )

    def _end_lease(self) -> None:
        self._lease = _NEVER

    def _note_trouble(self, error: BridgeError) -> None:
        if not self._troubled:
            self._troubled = True
            log.warning("shards: %s; trying again", error)

    def _note_success(self) -> None:
        self._failures = 0
        if self._troubled:
            self._troubled = False
            log.info("shards: group %s answers again", self._group_name)

    async def _pause(self) -> None:
        self._failures = min(self._failures + 1, 10)
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._failures)
        await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - no secret


async def _end(work: asyncio.Task[bool]) -> None:
    if not work.done():
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def _listed(shards: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(shards))) or "none"


def _now() -> float:
    """Return seconds on a clock that also runs while the machine sleeps, where there is one."""
    return time.clock_gettime(_CLOCK)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
