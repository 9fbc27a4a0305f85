"""From Kafka records to typed ones: filters, the fence against late writers, markers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import msgspec

from bridge import contracts
from bridge.core.wire import Decoder
from bridge.errors import DecodeError
from bridge.schema import schemas
from bridge.sdk.records import CLASSES, TYPES, Envelope, Gap, Raw
from bridge.sdk.source import CaughtUp, Fetched

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from bridge.core.schema import Schema
    from bridge.sdk.record import Record
    from bridge.sdk.source import Reading

T = TypeVar("T")

_UNIFIED = frozenset(class_ for class_ in CLASSES.values() if issubclass(class_, Envelope))
_AT_ONCE = 20
"""Records decoded ahead of the one that is asked for: a millisecond's work at most."""


@dataclass(frozen=True, slots=True)
class GapMarker:
    """A stretch that is missing, or news of one, at about the place where it is missing.

    Attributes:
        gap: the gap record.
    """

    gap: Gap


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which of the records read are wanted; None wants all.

    Attributes:
        symbols: unified or exchange symbols.
        market: the market.
        channel: the channel.
        accounts: accounts, of records that are of one.
        gap_channels: where markers are asked for: the channels whose gaps concern the reader.
    """

    symbols: frozenset[str] | None = None
    market: str | None = None
    channel: str | None = None
    accounts: frozenset[str] | None = None
    gap_channels: frozenset[str] | None = None

    @property
    def wants_all(self) -> bool:
        """Whether every record is wanted."""
        return all(one is None for one in (self.symbols, self.market, self.channel, self.accounts))

    def wants(self, record: Record) -> bool:
        """Return whether ``record`` is wanted."""
        if self.market is not None and getattr(record, "market", None) != self.market:
            return False
        if self.channel is not None and getattr(record, "channel", None) != self.channel:
            return False
        if self.accounts is not None and getattr(record, "account", None) not in self.accounts:
            return False
        symbols = self.symbols
        if symbols is None:
            return True
        return (
            getattr(record, "symbol", None) in symbols or getattr(record, "exchangeSymbol", None) in symbols
        )


class Fence:
    """Finds what a writer wrote after another had taken its place.

    Each take-over of a shard raises ``writerEpoch``. A live record with a lower epoch than one seen before of the
    same topic, key and channel, and of the same account where it is of one, comes from a writer that did not know
    yet. Backfill and replay write old stretches on purpose, so their records pass.
    """

    def __init__(self) -> None:
        self._epochs: dict[tuple[str, bytes | None, str, str, str | None], int] = {}
        self.dropped = 0

    def passes(self, fetched: Fetched, record: Record) -> bool:
        """Return whether ``record`` is to be kept; count it if not."""
        if type(record) in _UNIFIED:
            assert isinstance(record, Envelope)
            if record.origin in {"backfill", "replay"}:
                return True
        elif not isinstance(record, Raw) or record.kind != "stream":
            return True
        account = getattr(
            record, "account", None
        )  # each account, on each market, is a piece of work of its own
        identity = (fetched.topic, fetched.key, record.channel, record.market, account)
        epoch = self._epochs.get(identity, 0)
        if record.writerEpoch < epoch:
            self.dropped += 1
            return False
        if record.writerEpoch > epoch:
            self._epochs[identity] = record.writerEpoch
        return True


class Records(Generic[T]):
    """An asynchronous iterator of typed records, and of markers where they were asked for.

    Of one key the records come in the exchange's order. Between keys there is no order: partitions are read side
    by side. It opens on the first record asked for; :meth:`ready` opens it before. It closes at the end of
    ``async with``, by :meth:`aclose`, or when nobody holds it any more.
    """

    def __init__(self, reading: Reading, decoder: Decoder, filter_: Filter, *, markers: bool = False) -> None:
        self._reading, self._decoder, self._filter, self._markers = reading, decoder, filter_, markers
        self._fence = Fence()
        self._wants_all, self._gap_channels = filter_.wants_all, filter_.gap_channels
        self._queue: deque[Fetched | CaughtUp] = deque()
        # An error stands at its end only: what follows is looked at when that was raised.
        self._found: deque[Any] = deque()
        self._opened = self._ended = False

    @property
    def dropped(self) -> int:
        """Records left out so far because a later writer had taken over (lower ``writerEpoch``)."""
        return self._fence.dropped

    async def ready(self) -> Self:
        """Fix where reading begins: whatever is written from now on will come.

        Raises:
            TopicMismatch: the topic does not exist.
            KafkaUnavailable: no broker answers.
        """
        if not self._opened and not self._ended:
            await self._reading.open()
            self._opened = True
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        found = self._found
        while not found:
            if not self._queue and not await self._fill():
                raise StopAsyncIteration
            self._look(_AT_ONCE)
        item = found.popleft()
        if type(item) is DecodeError:
            raise item
        return cast("T", item)

    async def batch(self) -> list[T]:
        """Wait for records and return all that have come; an empty list is the end."""
        found = self._found
        while not found:
            if not self._queue and not await self._fill():
                return []
            self._look(len(self._queue))
        if type(found[-1]) is not DecodeError:
            items = list(found)
            found.clear()
            return items
        if len(found) == 1:
            raise found.popleft()
        return [found.popleft() for _ in range(len(found) - 1)]

    async def _fill(self) -> bool:
        if self._ended:
            return False
        await self.ready()
        self._queue.extend(await self._reading.fetch())
        if not self._queue:
            await self.aclose()
        return not self._ended

    def _look(self, most: int) -> None:
        """Find what is wanted among the next ``most`` of what was fetched."""
        queue, found = self._queue, self._found
        for _ in range(min(most, len(queue))):
            fetched = queue.popleft()
            if isinstance(fetched, CaughtUp):
                if self._markers:
                    found.append(fetched)
            elif fetched.value is not None:
                try:
                    record = decode(self._decoder, fetched)
                except DecodeError as error:
                    found.append(error)
                    return
                if self._gap_channels is not None and isinstance(record, Gap):
                    if self._concerns(record, self._gap_channels):
                        found.append(GapMarker(record))
                elif (self._wants_all or self._filter.wants(record)) and self._fence.passes(fetched, record):
                    found.append(record)

    def _concerns(self, gap: Gap, channels: frozenset[str]) -> bool:
        return gap.channel.partition("@")[0].partition("_")[0] in channels and self._filter.wants(gap)

    async def aclose(self) -> None:
        """Stop reading."""
        if not self._ended:
            self._ended = True
            self._queue.clear()
            self._found.clear()
            await self._reading.close()

    async def __aenter__(self) -> Self:
        return await self.ready()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def decoder(ids: Mapping[int, Schema] | None = None) -> Decoder:
    """Return a decoder of all structures into the classes of :mod:`bridge.sdk.records`."""
    return Decoder(schemas().values(), TYPES, ids)


def decode(decoder: Decoder, fetched: Fetched) -> Record:
    """Return the typed record in ``fetched``.

    Raises:
        DecodeError: it is none; names the topic, the partition and the offset.
    """
    assert fetched.value is not None
    try:
        record: Record = decoder.decode(fetched.value)
    except DecodeError as error:
        raise DecodeError(
            f"{fetched.topic}, partition {fetched.partition}, offset {fetched.offset}: {error}"
        ) from error
    return record


@cache
def channels_of(structure: str) -> frozenset[str]:
    """Return the channels whose messages become records of ``structure``."""
    found = set()
    for name, text in contracts.texts("topics/streams", ".yaml"):
        declared = msgspec.yaml.decode(text)
        if any(record["structure"] == structure for record in declared.get("records", ())):
            found.add(name.partition(".")[0])
    return frozenset(found)
