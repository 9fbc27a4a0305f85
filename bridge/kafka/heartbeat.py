"""Kafka's ``Heartbeat`` request with the member's ``group.instance.id``, which aiokafka's lacks."""

from __future__ import annotations

from typing import TypeAlias

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Int16, Int32, Schema, String


class HeartbeatResponse_v3(Response):  # type: ignore[misc]  # noqa: N801 - as aiokafka
    """Kafka's answer to :class:`HeartbeatRequest`."""

    API_KEY = 12
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class HeartbeatRequest_v3(RequestStruct):  # type: ignore[misc]  # noqa: N801 - the same
    """The wire form of :class:`HeartbeatRequest`."""

    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = HeartbeatResponse_v3
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


_Versions: TypeAlias = Request[HeartbeatRequest_v3]


class HeartbeatRequest(_Versions):  # type: ignore[misc]  # aiokafka has no types
    """Show that a member lives, and learn whether it still is one (KIP-345).

    With the instance in it, a member whose name another process took hears so (FENCED_INSTANCE_ID) and not that
    nobody knows it, upon which it would join again and take the name back.
    """

    API_KEY = 12

    def __init__(self, group: str, generation: int, member_id: str, instance: str | None) -> None:
        self._fields = (group, generation, member_id, instance)

    def build(self, request_struct_class: type[HeartbeatRequest_v3]) -> HeartbeatRequest_v3:
        """Return the request as the version the broker speaks."""
        return request_struct_class(*self._fields)
