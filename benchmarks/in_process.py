"""A bridge's pipeline for the streams of the corpus, without sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.corpus import CHANNELS, exchange_info
from bridge.catalogue import catalogue
from bridge.core.derive import Writer
from bridge.model import Header, Leg, StreamState
from bridge.pipeline import EXCHANGE_INFO, Pipeline
from bridge.schema import schemas
from bridge.telemetry import Telemetry

if TYPE_CHECKING:
    from bridge.catalogue import TopicNames
    from bridge.model import Publisher

BEGAN_AT = 1_760_000_000_000_000
"""When the bridge began, microseconds: with the corpus's first message."""
WAKE_UP = 25
"""Messages of one wake-up: what a busy connection has."""


def made_ready(
    publisher: Publisher, names: TopicNames, symbols: int, *, books: bool = False
) -> tuple[Pipeline, Leg]:
    """Return a pipeline for every stream of the corpus, and the connection that carries them."""
    streams = catalogue()
    pipeline = Pipeline(
        catalogue=streams, schemas=schemas(), names=names, publisher=publisher, telemetry=Telemetry(),
        writer=Writer("live", 7, (Header("version", b"0.0.0"),)), hold_ms=250, state_interval_ms=1000,
        snapshot_interval_ms=60_000 if books else None,
    )  # fmt: skip
    pipeline.answer("spot", EXCHANGE_INFO["spot"], BEGAN_AT, exchange_info(symbols))
    leg = Leg(1 << 60, "spot")
    for chosen in streams.choose("spot", CHANNELS, "*", None, pipeline.instruments["spot"]):
        pipeline.add(chosen)
        leg.streams[chosen.stream.name.encode()] = StreamState(chosen.stream)
    return pipeline, leg
