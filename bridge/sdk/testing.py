"""Feeds a client from a list or a file, so that code that consumes records can be tested without a broker.

::

    async with testing.connect([testing.record(Trade, symbol="BTC/USDT", price="84000.1")]) as client:
        prices = [trade.price async for trade in client.trades("BTC/USDT")]

Everything on the way is the real thing: records are encoded, filtered, fenced and decoded as from Kafka.
"""

from __future__ import annotations

import asyncio
import io
import json
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import fastavro

from bridge.core.account_records import Draft, state_key
from bridge.errors import DecodeError, UsageError
from bridge.kafka.partitioner import partition_for
from bridge.schema import schemas, structure
from bridge.sdk import jsonlines
from bridge.sdk.client import Client
from bridge.sdk.reading import decoder
from bridge.sdk.record import Record
from bridge.sdk.records import TYPES, AccountEvent, Balance, Coverage, Lifecycle, Order, Position, Raw
from bridge.sdk.source import CaughtUp, Fetched
from bridge.sdk.times import milliseconds
from bridge.sdk.topics import Topics, stateful

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bridge.model import Environment
    from bridge.sdk.source import Request
    from bridge.sdk.times import When

__all__ = ["TestClient", "connect", "encode", "load", "record"]

T = TypeVar("T", bound=Record)
_PARTITIONS = 4
_TIMES = {"ohlcv": "eventTime", "raw": "eventTime", "order": "lastUpdateTimestamp"}
_EMPTY = {"string": "", "bytes": b"", "boolean": False, "array": ()}


def record(class_: type[T], **fields: Any) -> T:
    """Return a record with the given fields; the others are null, zero, empty, or an enum's first symbol.

    Decimals may be given as text.

    Raises:
        UsageError: there is no such field.
    """
    schema = structure(class_.structure)
    stray = set(fields) - {field.name for field in schema.fields}
    if stray:
        raise UsageError(f"{class_.__name__} has no field {', '.join(sorted(stray))}")
    values = jsonlines.plain(class_(*(_default(field["type"]) for field in schema.text["fields"])))
    for name, value in fields.items():
        values[name] = jsonlines.plain_value(tuple(value) if isinstance(value, list) else value)
    made = jsonlines.record(class_.structure, values)
    assert isinstance(made, class_)
    return made


def connect(
    records: Iterable[Record] | str | PathLike[str] = (),
    *,
    environment: Environment = "prod",
    live: bool = False,
    now: When | None = None,
) -> TestClient:
    """Return a client that reads ``records``: the same interface as :func:`bridge.sdk.connect` gives.

    Args:
        records: the records, in the order they come; or a file for :func:`load`.
        environment: the environment it says it reads.
        live: after the last record wait for :meth:`TestClient.feed`; else the iteration ends there.
        now: the present that ``start="-15m"`` counts from; None is the time of the last record given.
    """
    given = load(records) if isinstance(records, (str, PathLike)) else records
    source = _Memory(
        Topics(environment), None if now is None else milliseconds(now, now=0, what="now"), ended=not live
    )
    for each in given:
        source.add(each)
    return TestClient(source)


def load(path: str | PathLike[str]) -> list[Record]:
    """Return the records in a file: JSON lines as ``binance-bridge tail --json`` prints them, or an Avro file.

    Raises:
        DecodeError: a line or the file is none of it; names the line.
    """
    file = Path(path)
    if file.suffix == ".avro":
        return _load_avro(file)
    found = []
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if text.strip():
            try:
                line = json.loads(text)
                found.append(jsonlines.record(line["structure"], line["value"]))
            except (ValueError, KeyError, TypeError, DecodeError) as error:
                raise DecodeError(f"{file}, line {number}: {error}") from error
    return found


def _load_avro(file: Path) -> list[Record]:
    by_name = {schema.text["name"]: schema for schema in schemas().values()}
    decode = decoder().decode
    with file.open("rb") as data:
        try:
            reader = fastavro.reader(data)
            written: Any = reader.writer_schema
            schema = by_name[str(written["name"]).rpartition(".")[2]]
            return [decode(_encoded(schema.structure, value)) for value in reader]
        except (ValueError, KeyError, TypeError) as error:
            raise DecodeError(f"{file} holds no records of a structure of ours: {error}") from error


def encode(record: Record) -> bytes:
    """Return ``record`` in Avro single-object encoding, as written by fastavro."""
    return _encoded(record.structure, _dictionary(record))


def _encoded(name: str, value: Any) -> bytes:
    schema, body = structure(name), io.BytesIO()
    fastavro.schemaless_writer(body, schema.parsed, value)
    return schema.header + body.getvalue()


def _dictionary(value: Any) -> Any:
    names = getattr(value, "__struct_fields__", None) or getattr(value, "_fields", None)
    if names is not None:
        return {name: _dictionary(getattr(value, name)) for name in names}
    return [_dictionary(item) for item in value] if isinstance(value, tuple) else value


def _default(type_: Any) -> Any:
    if isinstance(type_, list):
        return None
    if isinstance(type_, str):
        return _EMPTY.get(type_, 0)
    if type_.get("logicalType") == "decimal":
        return Decimal(0)
    if type_["type"] == "enum":
        return type_["symbols"][0]
    if type_["type"] == "record":
        return TYPES[type_["name"]](*(_default(_resolved(f["type"], type_)) for f in type_["fields"]))
    return _EMPTY.get(type_["type"], 0)


def _resolved(type_: Any, outer: dict[str, Any]) -> Any:
    """Return the definition of a named record where a sibling of the field holds it (``Range`` in ``Limits``)."""
    siblings = (f["type"] for f in outer["fields"] if isinstance(f["type"], dict))
    return next((t for t in siblings if t.get("name") == type_), type_)


class TestClient(Client):
    """A client whose records come from a test."""

    __test__ = False  # no test case, whatever pytest thinks of its name

    def __init__(self, source: _Memory) -> None:
        super().__init__(source, source.topics)
        self._memory = source

    async def feed(self, *records: Record) -> None:
        """Let more records come to whoever iterates."""
        for each in records:
            self._memory.add(each)
        await self._memory.wake()

    async def delete(self, *records: Record) -> None:
        """Delete the rows of records from tables, as Kafka records without a value do.

        Raises:
            UsageError: no current state is kept of such a record.
        """
        for each in records:
            self._memory.delete(each)
        await self._memory.wake()

    async def finish(self) -> None:
        """End each iteration once it has had all records."""
        self._memory.ended = True
        await self._memory.wake()


class _Memory:
    """Topics in memory, as a source."""

    def __init__(self, topics: Topics, now: int | None, *, ended: bool) -> None:
        self.topics, self._now, self.ended = topics, now, ended
        self.log: list[Fetched] = []
        self._ends: dict[tuple[str, int], int] = {}
        self._changed = asyncio.Condition()

    @property
    def now(self) -> int:
        """The present, in milliseconds."""
        return self._now if self._now is not None else max((f.timestamp for f in self.log), default=0)

    def add(self, record: Record) -> None:
        """Put a record where a bridge puts it: in its topic, and as the newest of its identity."""
        value, at = encode(record), _millis(record)
        self._append(*self._place(record), at, value)
        if record.structure in stateful():
            self._append(*self._state_place(record), at, value)

    def delete(self, record: Record) -> None:
        self._append(*self._state_place(record), _millis(record), None)

    def _append(self, topic: str, key: bytes, timestamp_ms: int, value: bytes | None) -> None:
        partition = partition_for(key, _PARTITIONS)
        offset = self._ends.get((topic, partition), 0)
        self._ends[topic, partition] = offset + 1
        self.log.append(Fetched(topic, partition, offset, timestamp_ms, key, value))

    def _place(self, record: Record) -> tuple[str, bytes]:
        """Return topic and key of ``record``."""
        if isinstance(record, Raw):
            return self.topics.raw(record.market, record.channel), (record.symbol or record.stream).encode()
        topic = self.topics.structure(record.structure)
        if isinstance(record, Lifecycle):
            connection = record.connectionId
            return topic, (record.instance if connection is None else f"{connection:016x}").encode()
        if isinstance(record, Coverage):
            return topic, f"{record.market}:{record.stream}:{record.exchangeSymbol or ''}".encode()
        if isinstance(record, AccountEvent):
            return topic, record.account.encode()
        return topic, (getattr(record, "symbol", None) or "").encode()

    def _state_place(self, record: Record) -> tuple[str, bytes]:
        """Return the topic of the current state of ``record``'s structure, and the key of its identity there."""
        topic = self.topics.state(record.structure)
        if isinstance(record, (Order, Balance, Position)):
            values = {name: getattr(record, name) for name in record.__struct_fields__}
            values["exchangeSymbol"] = record.exchangeSymbol or record.symbol  # a test may leave it out
            draft = Draft(record.structure, values, record.origin, record.connectionId)
            key = state_key(draft, record.account, record.market)
            assert key is not None, "all three have one"
            return topic, key
        return topic, self._place(record)[1]

    async def wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def more_than(self, count: int) -> bool:
        """Wait for more than ``count`` records; return whether there are, or False at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.log) > count or self.ended)
        return len(self.log) > count

    def read(self, request: Request) -> _MemoryReading:
        return _MemoryReading(self, request)

    async def partition(self, topic: str, key: bytes) -> int:  # noqa: ARG002 - all topics have as many
        return partition_for(key, _PARTITIONS)

    async def close(self) -> None:
        self.ended = True
        await self.wake()


class _MemoryReading:
    """Where a start is given, what is there already is history; else it comes as if it were live."""

    def __init__(self, memory: _Memory, request: Request) -> None:
        self._memory, self._request = memory, request
        self._start, self._end = 0, 1 << 63
        self._history = self._position = 0
        self._caught_up = self._closed = False

    async def open(self) -> None:
        request, now = self._request, self._memory.now
        self._start = 0 if request.start is None else milliseconds(request.start, now=now, what="start")
        if request.end not in {None, "now"}:
            self._end = milliseconds(request.end, now=now, what="end")
        self._history = len(self._memory.log)

    async def fetch(self) -> Sequence[Fetched | CaughtUp]:
        while not self._closed:
            first, log = self._position, self._memory.log
            self._position = len(log)
            found: list[Fetched | CaughtUp] = [log[n] for n in range(first, self._position) if self._wants(n)]
            if self._request.end is not None:
                self._closed = True
            elif not self._caught_up:
                found.append(CaughtUp(self._memory.now))
            self._caught_up = True
            if found:
                return found
            if not self._closed and not await self._memory.more_than(self._position):
                self._closed = True
        return ()

    def _wants(self, index: int) -> bool:
        fetched, request = self._memory.log[index], self._request
        if fetched.topic not in request.topics or (
            request.keys is not None and fetched.key not in request.keys
        ):
            return False
        return fetched.timestamp < self._end and (index >= self._history or fetched.timestamp >= self._start)

    async def close(self) -> None:
        self._closed = True


def _millis(record: Record) -> int:
    """Return the Kafka time of ``record``: of its event where it has one, else of receipt."""
    event = _TIMES.get(record.structure, record.time_field)
    times = (getattr(record, name, None) for name in (event, record.time_field, "receivedAt"))
    return next((int(micros) // 1000 for micros in times if micros is not None), 0)
