"""``binance-bridge tail`` against a real Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from bridge import cli
from bridge.sdk import DeadLetter, Gap, Lifecycle, Raw, Topics, Trade, testing
from tests.sdk.broker import writer

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
ENVIRONMENT = "demo"
NAMESPACE = "tail-test"
TOPICS = ["unified.trade", "raw.spot.agg-trade", "lifecycle", "gaps", "dead-letter"]
START = time.time_ns() // 10**9 * 1000 - 2 * 86_400_000
MICROS = START * 1000


@pytest.fixture
def symbol():
    """A unified symbol that no other test has."""
    return f"{uuid.uuid4().hex[:10].upper()}/USDT"


@pytest.fixture
def run(kafka, capsysbinary):
    """Run ``tail`` in this process; return its exit status, lines and messages."""

    def tail(*arguments):
        with pytest.raises(SystemExit) as exit_:
            cli.main(
                [
                    "tail",
                    *arguments,
                    "--bootstrap-servers",
                    kafka.bootstrap_servers,
                    "-e",
                    ENVIRONMENT,
                    "--namespace",
                    NAMESPACE,
                ]
            )
        out, err = capsysbinary.readouterr()
        return exit_.value.code, out.splitlines(), err.decode()

    return tail


def write(kafka, *records, values=()):
    """Write records, then values as they are, with writers that are not ours."""

    async def go():
        async with writer(kafka.bootstrap_servers, Topics(ENVIRONMENT, NAMESPACE), TOPICS) as ready:
            await ready.write(*records)
            for topic, key, value in values:
                await ready.send(f"{NAMESPACE}.{ENVIRONMENT}.{topic}", key.encode(), value, START)

    asyncio.run(go())


def trade(symbol, number, **fields):
    """Return a trade, one a second."""
    given = {
        "exchangeSymbol": symbol.replace("/", ""),
        "channel": "agg-trade",
        "id": str(number),
        "side": "sell",
    }
    at = MICROS + number * 1_000_000
    given |= {"timestamp": at, "price": "84211.370", "amount": "0.5"}
    return testing.record(Trade, symbol=symbol, **given | fields)


def test_a_line_for_each_record(kafka, run, symbol):
    """A structure and a symbol give one line a record: time, topic, key and what matters."""
    write(kafka, *[trade(symbol, n) for n in range(3)])
    status, lines, _ = run("--structure", "trade", "--symbol", symbol, "--no-follow")
    assert status == 0
    assert len(lines) == 3
    time_, topic, key, rest = lines[2].decode().split(maxsplit=3)
    assert (time_[-5:], topic, key) == (".000Z", "unified.trade", symbol)
    assert rest == "sell 0.5 @ 84211.37 id=2 agg-trade"


def test_json_lines_hold_the_whole_record_and_load_again(kafka, run, symbol, tmp_path):
    """``--json`` prints place, key and every field exactly; a test client is fed from that."""
    given = [trade(symbol, n, price="0.000000000000000001", connectionId=2**62 + 1) for n in range(3)]
    write(kafka, *given)
    _, lines, _ = run("unified.trade", "--symbol", symbol.replace("/", ""), "--no-follow", "--json")
    line = json.loads(lines[0])
    assert line["topic"] == f"{NAMESPACE}.demo.unified.trade"
    assert (line["key"], line["timestamp"], line["structure"]) == (symbol, START, "trade")
    assert line["value"]["price"] == "0.000000000000000001"
    assert line["value"]["connectionId"] == "4000000000000001"
    file = tmp_path / "trades.jsonl"
    file.write_bytes(b"\n".join(lines))
    assert testing.load(file) == given


def test_times_and_a_limit_choose(kafka, run, symbol):
    """``--from`` and ``--to`` bound the time, ``--limit`` the number."""
    write(kafka, *[trade(symbol, n) for n in range(10)])
    asked = ("-s", "trade", "--symbol", symbol, "--json")
    _, lines, _ = run(*asked, "--from", str(START + 2000), "--to", str(START + 5000))
    assert [json.loads(line)["value"]["id"] for line in lines] == ["2", "3", "4"]
    _, lines, _ = run(*asked, "--from", "earliest", "--follow", "--limit", "4")
    assert [json.loads(line)["value"]["id"] for line in lines] == ["0", "1", "2", "3"]


def test_every_kind_of_topic_is_shown(kafka, run, symbol):
    """Raw, lifecycle, gaps and dead letters are printed, several topics at once."""
    name = symbol.replace("/", "")
    write(
        kafka,
        testing.record(
            Raw, channel="agg-trade", symbol=name, stream="s@aggTrade", receivedAt=MICROS, payload=b'{"a": 1}'
        ),
        testing.record(Lifecycle, event="connection.started", connectionId=5, at=MICROS, reason=name),
        testing.record(
            Gap, symbol=symbol, stream="s@aggTrade", detectedAt=MICROS, firstSequence=3, lastSequence=9
        ),
        testing.record(DeadLetter, symbol=name, error=f"no price in {name}", at=MICROS, payload=b"bad"),
    )
    _, lines, _ = run(
        "raw.spot.agg-trade", "lifecycle", f"{NAMESPACE}.demo.gaps", "dead-letter", "--no-follow"
    )
    lines = [line.decode() for line in lines]
    assert any(f"raw.spot.agg-trade {name}" in line and line.endswith('{"a": 1}') for line in lines)
    assert any("0000000000000005 connection.started" in line and f"reason={name}" in line for line in lines)
    assert any(symbol in line and "3..9 open" in line for line in lines)
    assert any(f"parse: no price in {name}" in line for line in lines)


def test_payloads_as_received(kafka, run, symbol):
    """``--raw-payload`` prints the bytes of the messages and nothing else."""
    name, payload = symbol.replace("/", ""), b'{"p":"1.10",  "s":"\xff"}'
    raw = testing.record(
        Raw, channel="agg-trade", symbol=name, stream="s", receivedAt=MICROS, payload=payload
    )
    write(kafka, raw)
    asked = ("-s", "raw", "--market", "spot", "--channel", "agg-trade", "--symbol", name, "--no-follow")
    assert run(*asked, "--raw-payload")[1] == [payload]


def test_what_is_no_record_is_shown_as_that(kafka, run, symbol):
    """A value that can't be decoded does not end the command: its line says what is wrong and holds the bytes."""
    write(
        kafka,
        trade(symbol, 1),
        values=[("unified.trade", symbol, b"poison"), ("unified.trade", symbol, None)],
    )
    _, lines, _ = run("unified.trade", "--no-follow", "--json")
    ours = [line for line in map(json.loads, lines) if line["key"] == symbol]
    assert [line["structure"] for line in ours] == ["trade", None, None]
    assert "begins with 706f" in ours[1]["problem"]
    assert ours[1]["valueBase64"] == "cG9pc29u"
    assert ours[2]["problem"] == "deleted"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "name topics"),
        (("--structure", "trades"), 2, "no structure 'trades'; there are"),
        (("--structure", "raw"), 2, "give --market and --channel"),
        (("raw.spot.agg-trade", "--symbol", "BTC/USDT"), 2, "give --symbol BTCUSDT, not BTC/USDT"),
        (("gaps", "--from", "gestern"), 2, "--from is 'gestern'; use '-15m'"),
        (("gaps", "--to", "now", "--follow"), 2, "give one of them"),
        (("unified.fruit", "--no-follow"), 1, "tail-test.demo.unified.fruit"),
    ],
)
def test_wrong_usage_is_one_message(run, arguments, status, message):
    """Bad usage ends with 2, a missing topic with 1, and one line says what would be right."""
    code, lines, err = run(*arguments)
    assert (code, lines) == (status, [])
    assert message in err
    assert err.count("\n") == 1


def start(kafka, *arguments):
    """Start ``tail`` as a process."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "bridge",
            "tail",
            *arguments,
            "--namespace",
            NAMESPACE,
            "--bootstrap-servers",
            kafka.bootstrap_servers,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
    )


def test_ctrl_c_ends_quietly(kafka, symbol):
    """Following ends on SIGINT with status 0, no message, and all lines printed; the whole topic name is enough."""
    write(kafka, trade(symbol, 1))
    asked = (f"{NAMESPACE}.demo.unified.trade", "--symbol", symbol, "--from", "earliest")
    with start(kafka, *asked) as process:
        assert symbol.encode() in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=180)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_a_closed_pipe_ends_quietly(kafka, symbol):
    """When the reader of its output goes away, ``tail`` ends with status 0 and says nothing."""
    write(kafka, trade(symbol, 1))
    with start(kafka, "-s", "trade", "-e", ENVIRONMENT, "--symbol", symbol, "--from", "earliest") as process:
        process.stdout.readline()
        process.stdout.close()
        write(kafka, trade(symbol, 2), trade(symbol, 3))
        assert process.wait(timeout=180) == 0
        assert process.stderr.read() == b""
