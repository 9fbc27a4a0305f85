"""Writes what happened to the lifecycle topic, and keeps the newest events for the status page."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bridge import __version__
from bridge.core.schema import encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.core.schema import Schema
    from bridge.model import Environment, Publisher
    from bridge.status import LifecycleStatus
    from bridge.telemetry import Lifecycle

KEPT = 50


class LifecycleWriter:
    """Turns lifecycle events into records."""

    def __init__(
        self,
        schema: Schema,
        topic: str,
        instance: str,
        environment: Environment,
        publisher: Publisher,
        now: Callable[[], int],
    ) -> None:
        self._schema, self._topic, self._instance, self._environment = schema, topic, instance, environment
        self._publisher, self._now = publisher, now
        self.newest: deque[LifecycleStatus] = deque(maxlen=KEPT)

    def __call__(self, event: Lifecycle) -> None:
        """Queue the record of one event."""
        at = self._now()
        record: dict[str, Any] = {
            "event": event.event,
            "at": at,
            "instance": self._instance,
            "version": __version__,
            "environment": self._environment,
            "connectionId": event.connection_id,
            "market": event.market,
            "streams": list(event.streams),
            "attempt": event.attempt,
            "code": event.code,
            "reason": event.reason,
            "nextRetryAt": None if event.retry_in is None else at + int(event.retry_in * 1_000_000),
            "messages": event.messages,
            "lastSequence": event.last_sequence,
            "shard": event.shard,
            "requestId": event.request_id,
            "account": event.account,
        }
        shown = None if event.connection_id is None else f"{event.connection_id:016x}"
        key = (shown or self._instance).encode()
        self._publisher.lane(self._topic, key).append(at // 1000, key, encode(self._schema, record))
        if event.event != "request.resolved":
            time = datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="milliseconds")
            self.newest.appendleft(
                {"at": time.replace("+00:00", "Z"), "event": event.event, "text": str(event)}
            )
