"""Kafka's ``IncrementalAlterConfigs`` request, which aiokafka lacks."""

from __future__ import annotations

from typing import TypeAlias

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String


class IncrementalAlterConfigsResponse_v0(Response):  # type: ignore[misc]  # noqa: N801 - as aiokafka
    """Kafka's answer to :class:`IncrementalAlterConfigsRequest`."""

    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "responses",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class IncrementalAlterConfigsRequest_v0(RequestStruct):  # type: ignore[misc]  # noqa: N801 - the same
    """The wire form of :class:`IncrementalAlterConfigsRequest`."""

    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = IncrementalAlterConfigsResponse_v0
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(("name", String("utf-8")), ("operation", Int8), ("value", String("utf-8"))),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


_Versions: TypeAlias = Request[IncrementalAlterConfigsRequest_v0]


class IncrementalAlterConfigsRequest(_Versions):  # type: ignore[misc]  # aiokafka has no types
    """Change single settings and leave the others (KIP-339).

    aiokafka has only the older ``AlterConfigs``, which sets every setting it is not given back to its default.
    """

    API_KEY = 44

    def __init__(self, resources: list[tuple[int, str, list[tuple[str, int, str]]]]) -> None:
        self._resources = resources

    def build(
        self, request_struct_class: type[IncrementalAlterConfigsRequest_v0]
    ) -> IncrementalAlterConfigsRequest_v0:
        """Return the request as the version the broker speaks."""
        validate_only = False
        return request_struct_class(self._resources, validate_only)
