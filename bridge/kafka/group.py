"""One member's talk with the coordinator of a Kafka consumer group: join, sync, heartbeat, leave.

It sends and reads, and says in its errors what an answer means; when to do what, knows
:class:`~bridge.kafka.membership.Membership`. The group is one of the protocol type ``consumer``, so that Kafka's
own tools show its members and who has which partition.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import for_code
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest

from bridge.errors import ConfigError, SinkError
from bridge.kafka.client import LOST
from bridge.kafka.heartbeat import HeartbeatRequest
from bridge.kafka.share_out import Claim

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from aiokafka.protocol.api import Request

    from bridge.kafka.client import Client
    from bridge.kafka.settings import KafkaSettings

PROTOCOL = "bridge-shards"
"""How this version shares out; a group's members must all know it."""

_GROUP_LOADING, _NO_COORDINATOR, _NOT_COORDINATOR = 14, 15, 16
_ILLEGAL_GENERATION, _OTHER_PROTOCOL, _BAD_GROUP_NAME, _UNKNOWN_MEMBER = 22, 23, 24, 25
_BAD_SESSION, _REBALANCING, _DENIED, _MEMBER_ID_REQUIRED, _FENCED = 26, 27, 30, 79, 82
_UNKNOWN_TOPIC, _TOPIC_DENIED = 3, 29


class Unanswered(SinkError):  # noqa: N818 - says what happened
    """The coordinator did not answer, or could not now. Worth another try."""


class Denied(SinkError):  # noqa: N818 - the same
    """This user may not be a member of the group; names what it lacks."""


class NotMember(SinkError):  # noqa: N818 - the same
    """The coordinator does not know us, or not in the generation that we know: join again."""


class RebalanceBegan(SinkError):  # noqa: N818 - the same
    """The group is coming together anew: join again."""


class Joined(NamedTuple):
    """A generation that we are part of.

    Attributes:
        generation: its number.
        claims: what every member claims, where it is ours to share out; None where it is another member's.
    """

    generation: int
    claims: Mapping[str, Claim] | None


class Group:
    """A connection to the coordinator of ``group``, made as it is needed.

    All but :meth:`close` raise :class:`Unanswered`, after which the next call looks for the coordinator anew, and
    :class:`Denied`. Any raises ``ConfigError`` for what no repetition mends.

    Args:
        settings: where Kafka is.
        client: knows the cluster's brokers.
        group: name of the group.
        topic: its partitions are what is shared out.
        instance: name of a static member, None for a dynamic one.
        session_seconds: how long a member may be silent.
        rebalance_seconds: how long the others wait for a member to join again.
        answer_seconds: how long an answer may take that nothing delays.
        member_id: as whom to speak, empty for a new member.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        client: Client,
        *,
        group: str,
        topic: str,
        instance: str | None,
        session_seconds: float,
        rebalance_seconds: float,
        answer_seconds: float,
        name: str,
        member_id: str = "",
    ) -> None:
        self._settings, self._client, self._name = settings, client, name
        self._group, self._topic, self._instance = group, topic, instance
        self._session, self._rebalance, self._answer = session_seconds, rebalance_seconds, answer_seconds
        self.member_id = member_id
        self._generation = -1
        self._coordinator: tuple[int, str, int] | None = None
        self._guide: int | None = None  # the broker that last knew who coordinates
        self._connection: AIOKafkaConnection | None = None

    def close(self) -> None:
        """Let go of the coordinator; what is asked now gets no answer."""
        self._coordinator = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def partitions(self) -> int | None:
        """Return how many partitions the topic has, 0 where it is missing or hidden, None if unknown now."""
        request = MetadataRequest([self._topic], allow_auto_topic_creation=False)
        answer = await self._ask(request)
        for code, name, _, partitions in answer.topics:
            if code == _TOPIC_DENIED:
                raise Denied(f"this user may not see the topic {self._topic}; allow it Describe on the topic")
            if name == self._topic and code in (0, _UNKNOWN_TOPIC):
                return len(partitions)
        return None

    async def join(self, claim: Claim) -> Joined:
        """Join, and wait for the other members to; return the generation that begins.

        Raises:
            NotMember: the coordinator forgot us; the next call joins as a new member.
        """
        text = json.dumps([claim.generation, *sorted(claim.shards)]).encode()
        metadata = ConsumerProtocolMemberMetadata(0, [self._topic], text).encode()
        while True:
            request = JoinGroupRequest(
                self._group,
                int(self._session * 1000),
                int(self._rebalance * 1000),
                self.member_id,
                self._instance,
                "consumer",
                [(PROTOCOL, metadata)],
            )
            answer = await self._ask_and_watch(request)
            if answer.error_code != _MEMBER_ID_REQUIRED:
                break
            self.member_id = answer.member_id
        self._check(answer.error_code)
        self.member_id, self._generation = answer.member_id, answer.generation_id
        if answer.leader_id != answer.member_id:
            return Joined(answer.generation_id, None)
        return Joined(answer.generation_id, {member: _claim(data) for member, _, data in answer.members})

    async def sync(self, shares: Mapping[str, frozenset[int]] | None) -> frozenset[int]:
        """Tell the coordinator who gets what, if that is ours to say, and return what we get.

        Raises:
            NotMember: the generation is over for us.
            RebalanceBegan: it is over for all.
        """
        assignments = [
            (member, ConsumerProtocolMemberAssignment(0, [(self._topic, sorted(mine))], b"").encode())
            for member, mine in (shares or {}).items()
        ]
        request = SyncGroupRequest(self._group, self._generation, self.member_id, self._instance, assignments)
        answer = await self._ask_and_watch(request)
        self._check(answer.error_code)
        assignment = ConsumerProtocolMemberAssignment.decode(answer.member_assignment)
        return frozenset(place.partition for place in assignment.partitions() if place.topic == self._topic)

    async def heartbeat(self) -> None:
        """Show that we live; returning proves that we are a member of the generation, and that it goes on.

        Raises:
            RebalanceBegan: we are a member still, and the group waits for us to join again.
            NotMember: we are none.
        """
        request = HeartbeatRequest(self._group, self._generation, self.member_id, self._instance)
        self._check((await self._ask(request)).error_code)

    async def leave(self) -> None:
        """Leave the group, if we are in it."""
        if self.member_id:
            answer = await self._ask(LeaveGroupRequest(self._group, self.member_id))
            self.member_id = ""
            if answer.error_code != _UNKNOWN_MEMBER:
                self._check(answer.error_code)

    async def _ask(self, request: Request[Any]) -> Any:
        """Ask the coordinator something that it answers at once."""
        return await self._answered(_send(await self._connected(), request), self._answer)

    async def _ask_and_watch(self, request: Request[Any]) -> Any:
        """Ask the coordinator something that it answers when other members are ready.

        Meanwhile look whether it still is the coordinator: one that stands still never answers.
        """
        sending = _send(await self._connected(), request)
        asked = asyncio.create_task(self._answered(sending, self._rebalance + self._session))
        try:
            while not (await asyncio.wait({asked}, timeout=self._answer))[0]:
                await self._watch()
            return asked.result()
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    async def _watch(self) -> None:
        before = self._coordinator
        try:
            found = await self._locate()
        except Unanswered:
            return  # whom we asked does not know either
        if found != before:
            self.close()
            raise Unanswered(f"the coordinator of group {self._group} moved")

    async def _connected(self) -> AIOKafkaConnection:
        if self._connection is not None and self._connection.connected():
            return self._connection
        self.close()
        self._coordinator = _, host, port = await self._locate()
        options = self._settings.aiokafka_options() | {
            "client_id": self._name,
            # Joining takes as long as the slowest member; what should be quick has a time of its own.
            "request_timeout_ms": int((self._rebalance + self._session + self._answer) * 1000),
        }
        del options["bootstrap_servers"]
        self._connection = await self._answered(create_conn(host, port, **options), self._answer)
        return self._connection

    async def _locate(self) -> tuple[int, str, int]:
        """Ask any broker which one coordinates the group."""
        request = FindCoordinatorRequest(self._group, CoordinationType.GROUP)
        guide = self._client.get_random_node() if self._guide is None else self._guide
        self._guide = None
        # Not by _answered: it is not the coordinator's connection that would be at fault.
        try:
            async with asyncio.timeout(self._answer):
                answer = await self._client.send(guide, request, group=ConnectionGroup.DEFAULT)
        except LOST as error:
            raise Unanswered(f"no broker says who coordinates group {self._group}: {error!r}") from None
        self._check(answer.error_code)
        self._guide = guide
        return answer.coordinator_id, answer.host, answer.port

    async def _answered(self, asked: Awaitable[Any], seconds: float) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await asked
        except LOST as error:
            where = f"{self._coordinator[1]}:{self._coordinator[2]}" if self._coordinator else "gone"
            self.close()
            shown = f"no answer within {seconds:g} s" if isinstance(error, TimeoutError) else repr(error)
            raise Unanswered(f"coordinator of group {self._group} ({where}): {shown}") from None

    def _check(self, code: int) -> None:
        """Raise what an error code of the coordinator means."""
        if code == 0:
            return
        if code == _REBALANCING:
            raise RebalanceBegan(f"group {self._group} is coming together anew")
        if code == _UNKNOWN_MEMBER:
            self.member_id = ""
            raise NotMember(f"group {self._group} does not know this member any more")
        if code == _ILLEGAL_GENERATION:
            raise NotMember(f"group {self._group} went on without this member")
        if code == _DENIED:
            raise Denied(
                f"this user may not join the consumer group {self._group}; allow it Read on the group"
            )
        if code in _HOPELESS:
            raise ConfigError(
                _HOPELESS[code].format(group=self._group, instance=self._instance, session=self._session)
            )
        if code in (_NO_COORDINATOR, _NOT_COORDINATOR):
            self.close()
        raise Unanswered(f"coordinator of group {self._group}: {for_code(code).__name__} (error {code})")


_HOPELESS = {
    _FENCED: "another process runs as instance {instance}; each process needs its own `instance`",
    _BAD_SESSION: (
        "the brokers refuse a session of {session:g} s; it must lie between their group.min.session.timeout.ms "
        "(6 s by default) and group.max.session.timeout.ms"
    ),
    _OTHER_PROTOCOL: "members of another kind are in the consumer group {group}; give the bridges one of their own",
    _BAD_GROUP_NAME: "{group} is no name for a consumer group",
}


async def _send(connection: AIOKafkaConnection, request: Request[Any]) -> Any:
    """Send within the coroutine, so that a connection that ended meanwhile is an error of its awaiting."""
    return await connection.send(request)


def _claim(metadata: bytes) -> Claim:
    """Read what a member claims; one that says it in another way claims nothing."""
    try:
        generation, *shards = json.loads(ConsumerProtocolMemberMetadata.decode(metadata).user_data)
        return Claim(int(generation), frozenset(map(int, shards)))
    except (ValueError, TypeError):
        return Claim()
