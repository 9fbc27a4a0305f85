"""The accounts of a shard on one market at work: what their streams and REST tell goes to Kafka, each thing once.

The desk is the inbox of what listens (:class:`~bridge.binance.private_streams.PrivateStreams`): that hands over bytes,
:class:`~bridge.core.user_events.AccountDeriver` makes records of them. It starts where the topics say that the accounts
stand, so what REST tells at a start is published as far as it is news.
"""

from __future__ import annotations

from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING

from bridge.core.account_progress import AccountProgress
from bridge.core.account_records import CHANNEL
from bridge.core.user_events import AccountDeriver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bridge.account_cursor import Published
    from bridge.binance.connection import ConnectionView
    from bridge.binance.private_streams import PrivateStreams
    from bridge.catalogue import Catalogue, TopicNames
    from bridge.core.derive import Writer
    from bridge.core.schema import Schema
    from bridge.core.user_events import Taken
    from bridge.kafka.publisher import KafkaPublisher
    from bridge.model import Market, PrivateAnswer, PrivateInbox, UserMessage
    from bridge.pipeline import Pipeline


class AccountDesk:
    """Keeps the accounts of a shard on a market; to the shard it is one of its pools (:class:`bridge.worker.Pool`).

    Args:
        market: the market.
        accounts: names of the accounts.
        catalogue: the declarations.
        schemas: all schemas.
        names: names of the topics.
        publisher: where records go.
        pipeline: the shard's: it has the instruments, counts messages and writes dead letters.
        writer: who derives.
        listen: makes what listens to the accounts, not started, of the inbox and what is known of each.
    """

    def __init__(
        self,
        market: Market,
        accounts: Sequence[str],
        *,
        catalogue: Catalogue,
        schemas: Mapping[str, Schema],
        names: TopicNames,
        publisher: KafkaPublisher,
        pipeline: Pipeline,
        writer: Writer,
        listen: Callable[[PrivateInbox, Mapping[str, AccountProgress]], PrivateStreams],
    ) -> None:
        self.market, self.accounts = market, tuple(accounts)
        self._names, self._publisher, self._pipeline, self._writer = names, publisher, pipeline, writer
        self._derivers = {
            account: AccountDeriver(
                catalogue.accounts, schemas, names.environment, account, market, writer, pipeline.instruments[market]
            )
            for account in accounts
        }  # fmt: skip
        self._listen = listen
        self._streams: PrivateStreams | None = None
        self._answers: Counter[str] = Counter()
        self._held: deque[Callable[[], None]] | None = None

    # Where it starts, and its connections

    def go_on_from(self, published: Iterable[Published]) -> None:
        """Go on where the accounts stand; before :meth:`start`.

        Args:
            published: what Kafka holds of them (:class:`bridge.account_cursor.AccountCursor`).
        """
        progress = {account: AccountProgress() for account in self.accounts}
        for structure, record in published:
            self._derivers[record["account"]].resume(structure, record)
            progress[record["account"]].published(structure, record)
        self._streams = self._listen(self, progress)

    async def start(self) -> None:
        """Begin to listen; after :meth:`go_on_from`."""
        assert self._streams is not None
        await self._streams.start()

    async def pause(self, reason: str) -> None:
        """Close all connections and open none until :meth:`resume`."""
        if self._streams is not None:
            await self._streams.pause(reason)

    async def resume(self) -> None:
        """Open the connections again."""
        if self._streams is not None:
            await self._streams.resume()

    async def stop(self, timeout: float) -> None:  # noqa: ARG002 - what it waits for is bounded by itself
        """Close everything."""
        if self._streams is not None:
            await self._streams.stop()

    def connections(self) -> list[ConnectionView]:
        """Return what may be shown of each connection."""
        return [] if self._streams is None else self._streams.connections()

    def absent(self) -> list[str]:
        """Return the accounts that are not listened to at the moment."""
        return list(self.accounts) if self._streams is None else self._streams.absent()

    # Standing still

    def hold(self) -> None:
        """Take nothing in until :meth:`release`; what comes is kept, in order."""
        if self._held is None:
            self._held = deque()

    def release(self) -> None:
        """Take in what was kept, and go on."""
        held, self._held = self._held, None
        for take in held or ():
            take()

    # What the workers call (:class:`bridge.model.PrivateInbox`)

    def received(self, message: UserMessage) -> None:
        """Take a private event."""
        if self._held is not None:
            self._held.append(partial(self.received, message))
            return
        taken = self._deriver(message.account).take(
            message.payload,
            connection_id=message.connection_id,
            number=message.sequence,
            received_at=message.received_at,
        )
        self._pipeline.counts.tallies[self.market, CHANNEL].add(message.payload)
        self._publish(taken)

    def answered(self, answer: PrivateAnswer) -> None:
        """Take an answer of REST."""
        if self._held is not None:
            self._held.append(partial(self.answered, answer))
            return
        number = self._answers[answer.account]
        self._answers[answer.account] += 1
        taken = self._deriver(answer.account).answer(
            answer.endpoint,
            answer.payload,
            number=number,
            asked_at=answer.asked_at,
            received_at=answer.received_at,
            params=answer.params,
        )
        self._publish(taken)

    def reconciling(self, account: str, market: Market, connection_id: int, at: int) -> None:
        """Nothing to do: what is asked for twice is published once."""

    def reconciled(
        self, account: str, market: Market, connection_id: int, at: int, *, complete: bool
    ) -> None:
        """Nothing to do: whoever asks says so."""

    def _deriver(self, account: str) -> AccountDeriver:
        deriver = self._derivers[account]
        deriver.use(self._pipeline.instruments[self.market])
        return deriver

    def _publish(self, taken: Taken) -> None:
        raw = taken.raw
        self._publisher.lane(self._names.raw(self.market, CHANNEL), raw.key).append(
            raw.time_ms, raw.key, raw.value
        )
        headers = self._writer.headers
        for one in taken.records:
            lane = self._publisher.lane(self._names.unified(one.structure), one.key)
            lane.append(one.time_ms, one.key, one.value, headers)
            if one.state is not None:
                lane = self._publisher.lane(self._names.state(one.structure), one.state)
                lane.append(one.time_ms, one.state, one.value, headers)
        for letter in taken.letters:
            topic = self._names.of(letter.record["topic"])
            self._pipeline.dead_letter(letter._replace(record={**letter.record, "topic": topic}))
