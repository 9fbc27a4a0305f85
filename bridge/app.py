"""The wiring of ``run``: builds the parts, starts them in order, stops them in order.

Start: Kafka, topics, HTTP, then the group that shares out the shards; what this process gets of them,
:class:`~bridge.shards.Shards` takes over. Stop: connections first (no more messages), then what is held is derived,
everything queued is delivered, the group is left, and only then Kafka goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import logging
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from bridge import __version__, schema
from bridge.account_cursor import AccountCursor
from bridge.account_desk import AccountDesk
from bridge.binance.hosts import hosts_of
from bridge.binance.legs import RedundantPools
from bridge.binance.pool import attempt_budget
from bridge.binance.private_streams import PrivateStreams
from bridge.binance.rest import RestClient
from bridge.books import Books, require_one_speed
from bridge.catalogue import TopicNames, catalogue
from bridge.collector import Collector
from bridge.config import kafka_settings, require_runnable, spool_settings
from bridge.core.connection_settings import ConnectionSettings
from bridge.core.derive import Writer
from bridge.core.instruments import parse_exchange_info
from bridge.core.private_settings import PrivateSettings
from bridge.cursor import CursorReader
from bridge.errors import ConfigError, DeliveryFailed, SourceError, TopicMismatch, UnexpectedMessage
from bridge.gap_filler import GapFiller
from bridge.http import HttpEndpoint
from bridge.kafka import topics as kafka_topics
from bridge.kafka.membership import Membership
from bridge.kafka.publisher import Hooks
from bridge.lifecycle import LifecycleWriter
from bridge.model import Header, Market
from bridge.pipeline import EXCHANGE_INFO, Counts, Pipeline
from bridge.publishers import Publishers, Transactions
from bridge.report import Reporter
from bridge.shards import Shards
from bridge.telemetry import Lifecycle, Telemetry
from bridge.topics import topic_specs
from bridge.worker import ShardWorker, Surroundings, shard_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from bridge.binance.signing import AccountKey
    from bridge.catalogue import ChosenStream
    from bridge.config import Settings
    from bridge.core.account_progress import AccountProgress
    from bridge.core.gap_filling import StreamGaps
    from bridge.core.history import Page
    from bridge.core.instruments import Instruments
    from bridge.kafka.publisher import KafkaPublisher, TroubleKind
    from bridge.model import PrivateInbox
    from bridge.worker import Pool

log = logging.getLogger("bridge")

_TICK_SECONDS = 0.05
_REPORT_SECONDS = 1.0
_REFRESH_PAUSE_SECONDS = 5.0
_RESUME_BELOW = 0.5
_DAY_MS = 86_400_000
_HISTORY_DAYS = 8  # of an account, read at a take-over: a day more than REST is asked for at most
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)


def now_micros() -> int:
    """Return the wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


class Bridge:
    """One bridge process: everything between Binance and Kafka."""

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry | None = None,
        keys: Callable[[], Mapping[str, AccountKey]] = dict,
    ) -> None:
        require_runnable(settings)
        self.settings = settings
        self._load_keys, self._keys = keys, keys()
        self.telemetry = telemetry or Telemetry()
        self.names = TopicNames(settings.environment)
        self._account_cursor = AccountCursor(kafka_settings(settings), self.names)
        self.catalogue = catalogue()
        self.counts = Counts()
        self._full = asyncio.Event()
        self.telemetry.metrics.expect(
            (part.market, self.catalogue.parse_channel(part.market, text).channel)
            for part in settings.subscriptions
            for text in part.channels
        )
        self.publishers = self._publishers()
        self.lifecycle = LifecycleWriter(
            schema.structure("lifecycle"), self.names.of("lifecycle"), settings.instance, settings.environment,
            self.publishers.own, now_micros,
        )  # fmt: skip
        self.connection_settings = connection_settings(settings)
        self.attempts = attempt_budget(self.connection_settings)
        self.hosts = hosts_of(
            settings.environment, settings.endpoints.model_dump(), allow_insecure=settings.allow_insecure
        )
        if settings.connection.time_unit == "microsecond":
            self.hosts["spot"] = dataclasses.replace(self.hosts["spot"], microseconds=True)
        self.tables: dict[Market, Instruments] = {}
        self.shards = self._shards()
        self.membership = self._membership()
        self.reporter = Reporter(self)
        self.http = HttpEndpoint(
            settings.http.host,
            settings.http.port,
            self.telemetry.registry,
            status=self.reporter.status,
            ready=self.reporter.ready,
            live=self.reporter.live,
            connections=self.reporter.connections,
        )
        self.trouble: dict[tuple[str, str], str] = {}
        self.started = False
        self.stopping = False
        self.rest: RestClient | None = None
        self.books: Books | None = None
        self._filler: GapFiller | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._refresh = asyncio.Event()
        self._collector = Collector()
        self._failure: asyncio.Future[None] | None = None

    def _publishers(self) -> Publishers:
        settings, transactions = self.settings, None
        if settings.delivery == "exactly_once":
            transactions = Transactions(
                prefix=self.names.of(settings.name),
                interval_ms=settings.transactions.interval_ms,
                timeout_ms=settings.transactions.timeout_ms,
                on_transaction=self._transaction_ended,
            )
        return Publishers(
            kafka_settings(settings), self._hooks(), may_send=self._may_send, shards=settings.shards,
            spool=spool_settings(settings), transactions=transactions,
        )  # fmt: skip

    def _shards(self) -> Shards:
        settings = self.settings
        in_transactions = settings.delivery == "exactly_once"
        around = Surroundings(
            schemas=schema.schemas(), names=self.names, catalogue=self.catalogue, telemetry=self.telemetry,
            now=now_micros, checkpoint_seconds=settings.checkpoint_interval_seconds, in_transactions=in_transactions,
            spawn=self._spawn,
        )  # fmt: skip
        cursor = CursorReader(kafka_settings(settings), self.catalogue, self.names, settings.name)
        return Shards(
            cursor=cursor, publisher=self.publishers.own, maker=self, around=around, bridge=settings.name,
            instance=settings.instance, process=secrets.randbits(63), markets=self.markets,
            count=settings.shards,
        )  # fmt: skip

    def _membership(self) -> Membership:
        settings = self.settings
        named = "instance" in settings.model_fields_set
        return Membership(
            kafka_settings(settings),
            topic=self.names.of("control", "shards"),
            shards=settings.shards,
            group=self.names.of(settings.name),
            instance=settings.instance if named else None,
            session_seconds=settings.session_timeout_seconds,
            owner=self.shards,
            name=f"bridge-{settings.instance}",
        )

    # Life

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set, then drain and end.

        Raises:
            ConfigError: a subscription names what the exchange does not have.
            KafkaUnavailable: no broker answers at the start.
            TopicMismatch: topics are missing and may not be created.
            DeliveryFailed: records were left undelivered at the end.
        """
        stopped = asyncio.ensure_future(stop.wait())
        self._failure = asyncio.get_running_loop().create_future()
        try:
            starting = asyncio.ensure_future(self.start())
            await _first_of(starting, stopped)
            starting.cancel()  # does nothing when it is done
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            if self.started and not stopped.done():
                await _first_of(stopped, self._failure)
        finally:
            stopped.cancel()
            await self._stop_after(self._failure)
        if self._failure.done():
            self._failure.result()

    async def _stop_after(self, failure: asyncio.Future[None]) -> None:
        """Stop; what ended the bridge is told before what it left undelivered for that."""
        try:
            await self.stop()
        except DeliveryFailed as error:
            if not failure.done():
                raise
            log.warning("%s", error)

    async def start(self) -> None:
        """Start everything; see :meth:`run` for what can go wrong."""
        await self.http.start()
        await self.publishers.start()
        await self._ensure_topics()
        await self._recover()
        self.telemetry.publish = self.lifecycle
        self.telemetry.emit(Lifecycle(event="bridge.started"))
        self.rest = RestClient(self.hosts, self.telemetry, self.connection_settings)
        self.rest.on_reply = self._keep_answer
        self._keep_books(self.rest)
        self._fill_gaps(self.rest)
        self._spawn(self._every(_TICK_SECONDS, self._tick), "tick")
        self._spawn(self._every(_REPORT_SECONDS, self.reporter.tick), "report")
        self._spawn(self._every(_REPORT_SECONDS, self._look_what_stays), "collector")
        self._spawn(self._guard_buffer(), "buffer")
        self._spawn(self._refresh_markets(), "markets")
        self._spawn(self.membership.run(), "membership")
        self.started = True

    async def stop(self) -> None:
        """Close connections, derive what is held, deliver what is queued, leave the group, close Kafka. Idempotent.

        Raises:
            DeliveryFailed: Kafka did not take everything within ``stop_timeout_seconds``; says how much.
        """
        if self.stopping:
            return
        self.stopping = True
        budget = self.settings.stop_timeout_seconds
        deadline = asyncio.get_running_loop().time() + budget
        if self.telemetry.publish is not None:
            self.telemetry.emit(Lifecycle(event="bridge.stopping"))
        if self._failure is not None and self._failure.done() and self.shards.suspended is not None:
            # The group has put us out: nothing may be sent any more, not even that.
            self.telemetry.publish = None
            await self.shards.abandon()
            self.publishers.discard()
        else:
            await self.shards.stop(budget / 2)
        if self.telemetry.publish is not None:
            self.telemetry.emit(Lifecycle(event="bridge.stopped"))
            self.telemetry.publish = None
        left = deadline - asyncio.get_running_loop().time()
        undelivered = await self.publishers.stop(max(1.0, left))
        await self.membership.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._collector.end()
        if self.rest is not None:
            await self.rest.close()
        await self.http.stop()
        if undelivered:
            shown = ", ".join(f"{records} for {topic}" for topic, records in undelivered)
            raise DeliveryFailed(f"Kafka did not take these records within {budget} s of the stop: {shown}")

    # Steps of the start

    async def _recover(self) -> None:
        """Queue what an earlier process left in the spool."""
        for topic, records in self.publishers.own.recoverable():
            log.warning(
                "spool: %d records of %s wait since before the start; they are published now", records, topic
            )
        await self.publishers.own.recover(lambda _: True)

    async def _ensure_topics(self) -> None:
        specs = topic_specs(self.catalogue, self.settings, self.names)
        async with kafka_topics.Cluster(kafka_settings(self.settings)) as cluster:
            missing = set(await kafka_topics.missing(specs, cluster))
            if missing and not self.settings.create_topics:
                raise TopicMismatch(
                    f"topics are missing: {', '.join(sorted(missing))}; "
                    "run 'binance-bridge topics apply' or set create_topics: true"
                )
            wanted = tuple(spec for spec in specs if spec.name in missing)
            await kafka_topics.apply(kafka_topics.Plan(create=wanted), cluster)
        await self.publishers.refresh([spec.name for spec in specs])

    def _fill_gaps(self, rest: RestClient) -> None:
        own = self.settings.gaps
        if own.fill:
            self._filler = GapFiller(rest, self, weight_share=own.weight_share, attempts=own.attempts)
            self._spawn(self._filler.run(), "gaps")

    def _keep_books(self, rest: RestClient) -> None:
        own = self.settings.books
        if own.enabled:
            self.books = Books(
                rest, depth=own.depth, weight_share=own.weight_share, busy=lambda key: self._changes(*key)
            )
            self._spawn(self.books.run(), "books")

    @property
    def markets(self) -> list[Market]:
        """The markets that are subscribed to, whether or not they are reached already."""
        settings = self.settings
        of_accounts = [account.market for account in settings.accounts]
        return list(dict.fromkeys([part.market for part in settings.subscriptions] + of_accounts))

    def _may_send(self) -> bool:
        """Whether the shards are ours now: the lease holds, and after a loss nobody else has claimed them."""
        return self.membership.holds and self.shards.suspended is None

    # What shards are made of (:class:`bridge.shards.Maker`)

    async def publisher_of(self, shard: int) -> KafkaPublisher:
        """Return the publisher of a shard, started."""
        return await self.publishers.of(
            shard,
            before_commit=partial(self.shards.before_commit, shard),
            on_ended=partial(self.shards.publisher_ended, shard),
        )

    async def dismiss(self, shard: int) -> int:
        """Publish nothing more by a shard's own publisher; return how many records are dropped for it."""
        return await self.publishers.dismiss(shard)

    def worker(self, shard: int, epoch: int, publisher: KafkaPublisher) -> ShardWorker:
        """Return a worker without streams."""
        settings = self.settings
        pipeline = Pipeline(
            catalogue=self.catalogue,
            schemas=schema.schemas(),
            names=self.names,
            publisher=publisher,
            telemetry=self.telemetry,
            writer=self._writer(epoch),
            hold_ms=settings.sequence.hold_ms,
            state_interval_ms=settings.state_interval_ms,
            snapshot_interval_ms=settings.snapshot_interval_seconds * 1000
            if settings.books.enabled
            else None,
            counts=self.counts,
        )
        pipeline.on_contract_info = self._contract_changed
        pipeline.on_book = self.books.happened if self.books is not None else None
        pipeline.on_gap = self._filler.found if self._filler is not None else None
        return ShardWorker(shard, epoch, pipeline, publisher, self.shards.around)

    def _writer(self, epoch: int) -> Writer:
        return Writer("live", epoch, (Header("version", __version__.encode()),))

    def pool(self, worker: ShardWorker, market: Market, streams: Sequence[ChosenStream]) -> Pool:
        """Return the connections of a shard's streams on a market, not opened yet."""
        assert self.rest is not None
        return RedundantPools(
            market,
            [one.stream for one in streams],
            redundancy=self.settings.connection.redundancy,
            settings=self.connection_settings,
            receive=worker.pipeline.receive,
            telemetry=self.telemetry,
            rest=self.rest,
            hosts=self.hosts[market],
            budget=self.attempts,
        )

    async def instruments(self, market: Market, *, anew: bool) -> Instruments:
        """Ask until the exchange answers: a bridge that starts during its maintenance waits."""
        attempt = 0
        try:
            while anew or market not in self.tables:
                try:
                    await self._ask_instruments(market)
                except SourceError as error:
                    pause = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
                    attempt += 1
                    log.warning("%s; asking again in %g s", error, pause)
                    self.trouble["exchange", market] = str(error)
                    await asyncio.sleep(pause)
                else:
                    break
        finally:
            self.trouble.pop(("exchange", market), None)  # also where the shards went to another meanwhile
        return self.tables[market]

    async def listen(self, worker: ShardWorker, market: Market) -> None:
        """Let a shard listen to its accounts of a market, if it has any (:class:`bridge.shards.Maker`)."""
        accounts = [
            account.name
            for account in self.settings.accounts
            if account.market == market
            and shard_of(market, f"account {account.name}", self.settings.shards) == worker.shard
        ]
        if not accounts:
            return
        desk = AccountDesk(
            market,
            accounts,
            catalogue=self.catalogue,
            schemas=schema.schemas(),
            names=self.names,
            publisher=worker.publisher,
            pipeline=worker.pipeline,
            writer=self._writer(worker.epoch),
            listen=partial(self._private_streams, market, accounts),
        )
        structures = self.catalogue.accounts.structures(market)
        since_ms = now_micros() // 1000 - _HISTORY_DAYS * _DAY_MS
        published = await self._account_cursor.find(market, accounts, structures, since_ms)
        await worker.listen(market, desk, published)

    def _private_streams(
        self,
        market: Market,
        accounts: Sequence[str],
        inbox: PrivateInbox,
        progress: Mapping[str, AccountProgress],
    ) -> PrivateStreams:
        assert self.rest is not None
        return PrivateStreams(
            [(account, market) for account in accounts],
            self._keys,
            inbox=inbox,
            rest=self.rest,
            settings=self.connection_settings,
            own=PrivateSettings(**self.settings.private.model_dump()),
            telemetry=self.telemetry,
            budget=self.attempts,
            progress={(account, market): known for account, known in progress.items()},
            pairs=partial(self._pairs, market),
            reload=self._reload,
        )

    def _pairs(self, market: Market) -> Mapping[str, tuple[str, str]]:
        records = (one.record for one in self.tables[market].by_id.values())
        return {record["id"]: (record["baseId"], record["quoteId"]) for record in records}

    def _reload(self, account: str) -> AccountKey:
        return self._load_keys()[account]

    def choose(self, market: Market, table: Instruments) -> list[ChosenStream]:
        """Return the market's streams, each once.

        Raises:
            ConfigError: names the subscription that asks for what there is not.
        """
        chosen: dict[str, ChosenStream] = {}
        for index, subscription in enumerate(self.settings.subscriptions):
            if subscription.market != market:
                continue
            try:
                streams = self.catalogue.choose(
                    market, subscription.channels, subscription.symbols, subscription.quote, table
                )
            except ConfigError as error:
                raise ConfigError(f"subscriptions[{index}]: {error}") from None
            for one in streams:
                chosen.setdefault(one.stream.name, one)
        require_one_speed(market, (one.stream for one in chosen.values()))
        return list(chosen.values())

    async def _ask_instruments(self, market: Market) -> None:
        """Ask for the instruments; the answer is taken in :meth:`_keep_answer`, as every answer is."""
        assert self.rest is not None
        before = self.tables.pop(market, None)
        try:
            await self.rest.get(market, EXCHANGE_INFO[market])
            if market not in self.tables:
                raise UnexpectedMessage(
                    f"{market} exchangeInfo could not be understood; its bytes are in the api topic"
                )
        finally:
            if before is not None:
                self.tables.setdefault(market, before)

    # What goes on while it runs

    @property
    def workers(self) -> list[ShardWorker]:
        """The shards at work."""
        return list(self.shards.workers.values())

    def pools(self, market: Market | None = None) -> Iterator[Pool]:
        """Yield the connections of all shards, of one market or all."""
        for worker in self.workers:
            for on, pool in worker.pools.items():
                if market in (None, on):
                    yield pool
            for on, desk in worker.desks.items():
                if market in (None, on):
                    yield desk

    def of(self, market: Market, stream: str) -> StreamGaps | None:
        """Return the open gaps of a stream (:class:`bridge.gap_filler.Gaps`)."""
        worker = self.shards.carrier(market, stream)
        return None if worker is None else worker.pipeline.gaps.of(market, stream)

    def give_up(self, market: Market, stream: str, page: Page, reason: str, at: int) -> None:
        """End a gap that can't be asked for (:class:`bridge.gap_filler.Gaps`)."""
        worker = self.shards.carrier(market, stream)
        # Whoever asked may have lost the shard since; its next owner asks for itself.
        if worker is not None and worker.pipeline.gaps.of(market, stream) is not None:
            worker.pipeline.gaps.give_up(market, stream, page, reason, at)

    def _changes(self, market: Market, stream: str) -> int:
        worker = self.shards.carrier(market, stream)
        return 0 if worker is None else worker.pipeline.changes(market, stream)

    def _tick(self) -> None:
        now = now_micros()
        for worker in self.shards.workers.values():
            worker.pipeline.tick(now)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Bring the bridge down with the reason when one of its own tasks fails: that is a defect of ours."""
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def _every(self, seconds: float, action: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            action()

    def _look_what_stays(self) -> None:
        self._collector.look(self.workers, time.monotonic())

    async def _guard_buffer(self) -> None:
        """Close connections while Kafka cannot take more, rather than grow or drop."""
        while True:
            await self._full.wait()
            reason = f"buffer full: {self.publishers.buffered_bytes} bytes wait for Kafka"
            self.trouble["kafka", "buffer"] = reason
            await asyncio.gather(*(pool.pause(reason) for pool in self.pools()))
            await self.publishers.wait_below(_RESUME_BELOW)
            self._full.clear()
            self.trouble.pop(("kafka", "buffer"), None)
            await asyncio.gather(*(pool.resume() for pool in self.pools()))

    async def _refresh_markets(self) -> None:
        """Ask for the instruments now and then, and soon after the exchange said that contracts changed."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._refresh.wait(), self.settings.markets_refresh_seconds)
            self._refresh.clear()
            for market in tuple(self.tables):
                try:
                    await self._ask_instruments(market)
                except SourceError as error:
                    log.warning("%s; the instruments of %s stay as they were", error, market)
            await asyncio.sleep(_REFRESH_PAUSE_SECONDS)

    def _contract_changed(self, market: Market) -> None:  # noqa: ARG002 - all markets are asked
        self._refresh.set()

    def _keep_answer(self, market: Market, endpoint: str, received_at: int, body: bytes) -> None:
        """Hand an answer of REST to the shard it is of; what is of no symbol goes to the first."""
        path, _, query = endpoint.partition("?")
        symbol = parse_qs(query).get("symbol")
        worker = self.shards.of(market, symbol[0]) if symbol else self.shards.workers.get(0)
        if path == EXCHANGE_INFO[market]:
            try:
                _, table = parse_exchange_info(market, body)
            except UnexpectedMessage as error:
                log.warning("%s", error)
            else:
                self.tables[market] = table
                for other in self.workers:
                    if other is not worker:
                        other.pipeline.use(market, table)
        if worker is not None:
            worker.pipeline.answer(market, endpoint, received_at, body)

    # What Kafka's side tells

    def _hooks(self) -> Hooks:
        return Hooks(
            on_poison=self._poisoned,
            on_delivered=self._delivered,
            on_trouble=self._kafka_trouble,
            on_full=self._full.set,
        )

    def _delivered(self, topic: str, records: int, size: int, queued_at: float, newest_event_ms: int) -> None:
        self.reporter.delivered(topic, records, size, queued_at, newest_event_ms)

    def _transaction_ended(self, outcome: str, seconds: float) -> None:
        metrics = self.telemetry.metrics
        metrics.transactions_total.labels(outcome).inc()
        metrics.transaction_seconds.observe(seconds)

    def _poisoned(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes]],  # noqa: ARG002 - the hook's
        error: str,
    ) -> None:
        for worker in self.workers:
            worker.pipeline.refused(value, now_micros(), error)
        for worker in self.workers[:1]:
            worker.pipeline.poisoned(topic, key, value, timestamp_ms, error)
        if not self.workers:
            log.error("kafka: a record for %s is refused for good: %s", topic, error)

    def _kafka_trouble(self, kind: TroubleKind, topic: str, text: str) -> None:
        if kind == "recovered":
            self.trouble.pop(("kafka", topic), None)
        else:
            self.trouble["kafka", topic] = text
        # Topics just made have no leader for a moment: every start would warn of it.
        level = logging.INFO if kind in {"no-leader", "recovered"} else logging.WARNING
        log.log(level, "kafka: %s %s", kind, f"{topic}: {text}" if topic else text)


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def connection_settings(settings: Settings) -> ConnectionSettings:
    """Return the ``connection`` section as the connections take it."""
    own = settings.connection
    transport = own.transport
    if transport == "auto":
        transport = "picows" if importlib.util.find_spec("picows") else "websockets"
    return ConnectionSettings(
        transport=transport,
        streams_per_connection=own.streams_per_connection,
        rotate_after_seconds=own.rotate_after_seconds,
        rotate_jitter_seconds=min(1800.0, own.rotate_after_seconds / 10),
        overlap_seconds=own.overlap_seconds,
        max_message_bytes=own.max_message_bytes,
        attempts_burst=max(1, own.connections_per_5_minutes // 5),
        attempts_per_second=own.connections_per_5_minutes * 0.8 / 300,
    )
