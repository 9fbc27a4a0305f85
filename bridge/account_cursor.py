"""Where accounts stand: what of their orders, fills, balances and positions was published, read from Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.core.wire import Decoder
from bridge.errors import DecodeError
from bridge.kafka.reader import PartitionReader, partitions_for
from bridge.schema import schemas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

    from bridge.catalogue import TopicNames
    from bridge.kafka.reader import Start
    from bridge.kafka.settings import KafkaSettings
    from bridge.model import Fetched, Market

_STATES = ("order", "balance", "position")
_HISTORIES = ("order", "my-trade", "ledger")


class Published(NamedTuple):
    """A record of an account that is in Kafka.

    Attributes:
        structure: its structure.
        record: its fields; times are microseconds, decimals exact.
    """

    structure: str
    record: Mapping[str, Any]


class AccountCursor:
    """Reads what was published of accounts.

    Args:
        settings: where Kafka is.
        names: names of the topics.
    """

    def __init__(self, settings: KafkaSettings, names: TopicNames) -> None:
        self._settings, self._names = settings, names
        self._decode = Decoder(schemas().values()).decode

    async def find(
        self, market: Market, accounts: Iterable[str], structures: Iterable[str], since_ms: int
    ) -> list[Published]:
        """Return the newest value of all that changes, then the history since a time, in Kafka's order.

        Args:
            market: of the accounts.
            accounts: their names.
            structures: what accounts of the market have.
            since_ms: from when on histories are read; milliseconds.

        Raises:
            TopicMismatch: a topic is missing.
            KafkaUnavailable: no broker serves us.
        """
        wanted, there = frozenset(accounts), frozenset(structures)
        states = [structure for structure in _STATES if structure in there]
        histories = [structure for structure in _HISTORIES if structure in there]
        newest: dict[tuple[str, bytes], Published] = {}
        async for key, found in self._read({self._names.state(s): s for s in states}, "earliest"):
            newest[found.structure, key] = found
        read = list(newest.values())
        read += [one async for _, one in self._read({self._names.unified(s): s for s in histories}, since_ms)]
        return [one for one in read if one.record["market"] == market and one.record["account"] in wanted]

    async def _read(self, topics: Mapping[str, str], start: Start) -> AsyncIterator[tuple[bytes, Published]]:
        """Yield key and record of everything up to now."""
        places = await partitions_for(self._settings, dict.fromkeys(topics))
        async with PartitionReader(
            self._settings, places, start=start, end="now", name="bridge-account-cursor"
        ) as reader:
            async for place, records in reader:
                for key, value in self._values(records):
                    yield key, Published(topics[place.topic], value)

    def _values(self, records: Iterable[Fetched]) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
        for record in records:
            try:
                yield record.key or b"", self._decode(record.value or b"")
            except DecodeError:
                continue  # not ours: another's record, or another version's
