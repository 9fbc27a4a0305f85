"""Which topics a configuration needs: the catalogue's families, applied to what is enabled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.catalogue import UNKNOWN, USER, Catalogue, TopicNames
from bridge.kafka.topics import TopicSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.config import RetentionDays, Settings
    from bridge.model import Market

_DAY_MS = 86_400_000


def topic_specs(catalogue: Catalogue, settings: Settings, names: TopicNames | None = None) -> list[TopicSpec]:
    """Return the topics of the enabled channels, and those every bridge has.

    Args:
        catalogue: declares the channels and the families of topics.
        settings: says what is enabled, how many partitions and replicas there are, and how long records are kept.
        names: the names to use; None for the environment's own.
    """
    names = names or TopicNames(settings.environment)
    days = settings.topics.retention_days
    return [
        _spec(catalogue, settings, names.of(*parts), family, _retention(days, family))
        for family, parts in dict.fromkeys(_needed(catalogue, settings))
    ]


def _needed(catalogue: Catalogue, settings: Settings) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield family and name parts of each topic; repeats are fine."""
    structures: dict[str, None] = {"market": None}
    kept = {"market"}
    for subscription in settings.subscriptions:
        market: Market = subscription.market
        yield "raw.api", ("raw", market, "api")
        yield "raw", ("raw", market, UNKNOWN)
        for text in subscription.channels:
            channel = catalogue.parse_channel(market, text).channel
            yield "raw", ("raw", market, channel)
            made = catalogue.channel(market, channel).structures
            structures |= dict.fromkeys(made)
            kept |= {one for one in made if channel in catalogue.topics.state.get(one, ())}
    for account in settings.accounts:
        yield "raw.api", ("raw", account.market, "api")
        yield "raw.user", ("raw", account.market, USER)
        made = catalogue.accounts.structures(account.market)
        structures |= dict.fromkeys(made)
        kept |= {one for one in made if USER in catalogue.topics.state.get(one, ())}
    for structure in structures:
        yield "unified", ("unified", structure)
        if structure in kept:
            yield "state", ("state", structure)
    for family in (
        "lifecycle", "gaps", "coverage", "dead-letter", "control.shards", "control.signals", "control.checkpoints",
    ):  # fmt: skip
        yield family, tuple(family.split("."))


def _spec(
    catalogue: Catalogue, settings: Settings, name: str, family: str, retention_ms: int | None
) -> TopicSpec:
    topic = catalogue.topics.families[family]
    config = dict(topic.config)
    if retention_ms is not None and "retention.ms" in config:
        config["retention.ms"] = str(retention_ms)
    partitions = (
        settings.shards if family == "control.shards" else topic.partitions or settings.topics.partitions
    )
    return TopicSpec(name, partitions, settings.replication_factor, config)


def _retention(days: RetentionDays, family: str) -> int | None:
    named = {
        "raw": days.raw, "raw.api": days.raw, "raw.user": days.user, "unified": days.unified,
        "lifecycle": days.lifecycle, "gaps": days.gaps,
        "dead-letter": days.dead_letter, "control.signals": days.signals,
    }  # fmt: skip
    value = named.get(family)
    return None if value is None else value * _DAY_MS
