"""The load of the benchmarks sends what it says it sends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from websockets.sync.client import connect

from benchmarks.frames import loaded, prepared, unframed
from benchmarks.measure import FirehoseProcess, Load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SYMBOLS, MESSAGES = 5, 3_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small file of frames."""
    return prepared(tmp_path_factory.mktemp("corpus"), symbols=SYMBOLS, count=MESSAGES)


@pytest.fixture
def firehose(corpus: Path) -> Iterator[FirehoseProcess]:
    """Return a firehose of it."""
    with FirehoseProcess(Load(corpus, SYMBOLS)) as process:
        yield process


def payloads(corpus: Path, firehose: FirehoseProcess) -> list[bytes]:
    """Return all messages in order."""
    return [unframed(frame) for _, frame in loaded(corpus, firehose.now_ms).each()]


def received(corpus: Path, firehose: FirehoseProcess, command: str, count: int) -> list[bytes]:
    """Subscribe to everything, give a command and return what comes, up to ``count`` messages."""
    names = loaded(corpus).names
    with connect(f"ws://127.0.0.1:{firehose.port}/stream", max_size=None, close_timeout=0.1) as socket:
        socket.send(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}))
        assert json.loads(socket.recv(10)) == {"result": None, "id": 1}
        assert firehose.ask("status")["streams"] == len(names)
        firehose.ask(command)
        return [socket.recv(10, decode=False) for _ in range(count)]


def test_all_comes_in_order_as_fast_as_it_is_read(corpus: Path, firehose: FirehoseProcess) -> None:
    """Unpaced, a socket gets the corpus, byte for byte."""
    found = received(corpus, firehose, "start 0 0", MESSAGES)

    assert found == payloads(corpus, firehose)
    status = firehose.ask("status")
    assert (status["sent"], status["planned"]) == (MESSAGES, MESSAGES)


def test_the_first_so_many_are_sent(corpus: Path, firehose: FirehoseProcess) -> None:
    """A count cuts the corpus short."""
    found = received(corpus, firehose, "start 0 700", 700)

    assert found == payloads(corpus, firehose)[:700]
    assert firehose.ask("status")["planned"] == 700


@pytest.mark.parametrize("rate", [0, 100_000])
def test_no_more_is_planned_than_there_is(corpus: Path, firehose: FirehoseProcess, rate: int) -> None:
    """Who asks for more than there is gets all, and does not wait for the rest."""
    found = received(corpus, firehose, f"start {rate} {10 * MESSAGES}", MESSAGES)

    assert found == payloads(corpus, firehose)
    status = firehose.ask("status")
    assert (status["sent"], status["planned"]) == (MESSAGES, MESSAGES)


def test_a_steady_rate_is_kept_and_logged(corpus: Path, firehose: FirehoseProcess, tmp_path: Path) -> None:
    """The log says when each message was sent."""
    received(corpus, firehose, "start 5000 3000", 3_000)

    firehose.ask(f"log {tmp_path / 'sent.csv'}")
    sent = [tuple(map(int, line.split(","))) for line in (tmp_path / "sent.csv").read_text().splitlines()]
    (began, first), (ended, last) = sent[0], sent[-1]
    assert last == 3_000
    # Never quicker than asked for, however busy the machine is: a message of the last tick was due by then.
    assert (last - first) / (ended - began) * 1e6 <= 5_000 * 1.05
    assert len(sent) > 20


def test_times_move_to_the_present_by_whole_minutes(corpus: Path) -> None:
    """Candles stay where they are within their minute."""
    then, now = (
        [unframed(frame) for _, frame in loaded(corpus, at).each()] for at in (1_760_000_040_000, None)
    )

    timed = next(number for number, text in enumerate(then) if b'"E":' in text)
    before, after = (json.loads(messages[timed])["data"]["E"] for messages in (then, now))
    assert after > before
    assert (after - before) % 60_000 == 0
    assert len(then) == len(now) == MESSAGES
