"""Names of the topics that a consumer reads (contract, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import msgspec

from bridge import contracts
from bridge.errors import ConfigError, UsageError
from bridge.model import ENVIRONMENTS, MARKETS
from bridge.schema import structure as schema_of

_OPERATIONAL = {"lifecycle": "lifecycle", "gap": "gaps", "coverage": "coverage", "dead-letter": "dead-letter"}


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one environment.

    Attributes:
        environment: ``prod``, ``demo`` or ``testnet``.
        namespace: first part of all names; another one where a replay has written beside live.

    Raises:
        ConfigError: no such environment.
    """

    environment: str
    namespace: str = "binance"

    def __post_init__(self) -> None:
        if self.environment not in ENVIRONMENTS:
            raise ConfigError(f"environment is {self.environment!r}; it is one of {', '.join(ENVIRONMENTS)}")

    def of(self, *parts: str) -> str:
        """Return ``<namespace>.<environment>.<parts…>``."""
        return ".".join((self.namespace, self.environment, *parts))

    def raw(self, market: str, channel: str) -> str:
        """Return the raw topic of a channel."""
        check_market(market)
        return self.of("raw", market, channel)

    def structure(self, structure: str) -> str:
        """Return the topic of a structure.

        Raises:
            UsageError: there is no such structure, or it has more topics than one (``raw``).
        """
        if schema_of(structure).unified:
            return self.of("unified", structure)
        if structure == "raw":
            raise UsageError("raw records lie in a topic per market and channel; name both of them")
        return self.of(_OPERATIONAL[structure])

    def state(self, structure: str) -> str:
        """Return the compacted topic that holds the newest value of each identity of a structure.

        Raises:
            UsageError: there is no such structure, or it has no such topic.
        """
        schema_of(structure)
        if structure not in stateful():
            raise UsageError(
                f"no current state is kept of {structure} records; it is of {', '.join(stateful())}"
            )
        return self.of("state", structure)


@cache
def stateful() -> tuple[str, ...]:
    """Return the structures whose newest values have a topic."""
    return tuple(msgspec.yaml.decode(contracts.text("topics/topics.yaml"))["state"])


def check_market(market: str) -> None:
    """Raise UsageError where ``market`` is none."""
    if market not in MARKETS:
        raise UsageError(f"market is {market!r}; it is one of {', '.join(MARKETS)}")
