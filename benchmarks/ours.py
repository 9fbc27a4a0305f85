"""The bridge as users run it: ``binance-bridge run``, with everything on that is on by default, books apart."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.corpus import CHANNELS
from benchmarks.measure import ROOT, Client, Launch, Place
from bridge.local.process import free_ports

if TYPE_CHECKING:
    from collections.abc import Mapping


class Ours(Client):
    """A bridge.

    Args:
        name: of the row.
        transport: ``picows`` or ``websockets``.
        settings: of the configuration, beside ours.
        channels: what is read of each symbol.
        processes: how many share the work, with a shard each.
    """

    def __init__(
        self,
        name: str,
        transport: str = "picows",
        settings: Mapping[str, Any] | None = None,
        channels: tuple[str, ...] = CHANNELS,
        processes: int = 1,
    ) -> None:
        self.name = name
        self._transport = transport
        self._settings = settings or {}
        self._channels = channels
        self._processes = processes

    def launch(self, place: Place) -> Launch:
        """See :class:`~benchmarks.measure.Client`."""
        commands = [self._command(place, number) for number in range(self._processes)]
        return Launch(
            command=commands[0],
            others=commands[1:],
            environment={"PYTHONPATH": str(ROOT)},
            streams=place.symbols * len(self._channels),
            raw="binance.prod.raw.spot.",
            unified="binance.prod.unified.",
        )

    def _command(self, place: Place, number: int) -> list[str]:
        settings = {
            "environment": "prod",
            "instance": f"benchmark-{number}",
            "http": {"port": free_ports(1)[0]},
            "replication_factor": 1,
            "kafka": {"bootstrap_servers": place.bootstrap_servers},
            "endpoints": {"spot": {"stream": place.stream_url, "rest": place.rest_url}},
            "subscriptions": [{"market": "spot", "symbols": "*", "channels": list(self._channels)}],
            "connection": {"transport": self._transport},
            "books": {"enabled": False},
            "shards": self._processes,
            **self._settings,
        }
        file = place.directory / f"bridge-{number}.yaml"
        file.write_text(yaml.safe_dump(settings))
        return [sys.executable, "-m", "bridge", "run", "--config", str(file)]


def exactly_once(interval_ms: int) -> Ours:
    """Return a bridge that writes in transactions."""
    settings = {"delivery": "exactly_once", "transactions": {"interval_ms": interval_ms}}
    return Ours(f"ours, exactly once, {interval_ms} ms", "picows", settings)
