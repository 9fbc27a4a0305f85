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
    """

    def __init__(
        self,
        name: str,
        transport: str,
        settings: Mapping[str, Any] | None = None,
        channels: tuple[str, ...] = CHANNELS,
    ) -> None:
        self.name = name
        self._transport = transport
        self._settings = settings or {}
        self._channels = channels

    def launch(self, place: Place) -> Launch:
        """See :class:`~benchmarks.measure.Client`."""
        settings = {
            "environment": "prod",
            "instance": "benchmark",
            "http": {"port": free_ports(1)[0]},
            "replication_factor": 1,
            "kafka": {"bootstrap_servers": place.bootstrap_servers},
            "endpoints": {"spot": {"stream": place.stream_url, "rest": place.rest_url}},
            "subscriptions": [{"market": "spot", "symbols": "*", "channels": list(self._channels)}],
            "connection": {"transport": self._transport},
            "books": {"enabled": False},
            **self._settings,
        }
        file = place.directory / "bridge.yaml"
        file.write_text(yaml.safe_dump(settings))
        return Launch(
            command=[sys.executable, "-m", "bridge", "run", "--config", str(file)],
            environment={"PYTHONPATH": str(ROOT)},
            streams=place.symbols * len(self._channels),
            raw="binance.prod.raw.spot.",
            unified="binance.prod.unified.",
        )
