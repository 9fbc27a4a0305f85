"""What the benchmark command compares, and its quick variant without sockets and Kafka."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import end_to_end, experiments, hot_path
from benchmarks.environments import PEERS
from benchmarks.measure import Place

ROOT = Path(__file__).parents[2]


def asked(
    *, quick: bool = False, only: list[str] | None = None, exactly_once: bool = False
) -> argparse.Namespace:
    """Return a command line."""
    return argparse.Namespace(quick=quick, only=only, exactly_once=exactly_once)


def names(rows: list[end_to_end.Row]) -> list[str]:
    """Return the rows' names."""
    return [row.client.name for row in rows]


def test_all_of_them_are_compared_with_ours_first() -> None:
    """The first is the base of ratios."""
    found = names(end_to_end.rows())

    assert found[:2] == ["ours, picows", "ours, websockets"]
    assert {"limit", "plain Go", "naive", "cryptofeed", "cryptofeed, tuned", "ccxt.pro"} <= set(found)
    assert len(set(found)) == len(found)


def test_the_quick_variant_is_the_bridge_and_the_limit() -> None:
    """For development."""
    assert names(end_to_end.chosen_rows(asked(quick=True))) == ["ours, picows", "limit"]


def test_rows_can_be_chosen() -> None:
    """By name; transactions are asked for."""
    assert names(end_to_end.chosen_rows(asked(only=["plain Go"]))) == ["plain Go"]
    assert "ours, exactly once, 50 ms" in names(end_to_end.chosen_rows(asked(exactly_once=True)))


@pytest.mark.parametrize("name", PEERS)
def test_peers_are_pinned(name: str) -> None:
    """Figures of other versions would be other figures."""
    _, requirements = PEERS[name]

    assert all(
        "==" in requirement for requirement in requirements if not requirement.startswith("matplotlib")
    )


def test_a_client_is_told_where_things_are(tmp_path: Path) -> None:
    """Each is pointed at the firehose and at Kafka."""
    for row in end_to_end.rows():
        if row.client.name.startswith(("ours", "limit", "naive")):
            directory = tmp_path / row.client.name
            directory.mkdir()
            launch = row.client.launch(Place("127.0.0.1:9", 8, directory, 20))
            said = [*launch.command, *(file.read_text() for file in directory.iterdir())]
            assert any("127.0.0.1:9" in text for text in said)
            assert any("ws://127.0.0.1:8" in text for text in said)
            assert launch.streams == 20 * 6


def test_growth_can_be_cut_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each curve begins where it always does."""
    loads = []
    monkeypatch.setattr(experiments, "prepared", lambda _, *, symbols, count: (symbols, count))
    monkeypatch.setattr(experiments, "measured", lambda client, load, _: loads.append((client.name, load)))
    monkeypatch.setattr(experiments, "latency", lambda *_: None)

    found = list(experiments.growth(tmp_path, ["rate", "symbols"], 2, 3, points=2))

    assert [(grown.of, grown.value) for grown in found] == [
        ("symbols", 10), ("symbols", 30), ("rate", 1_000), ("rate", 2_000),
    ]  # fmt: skip
    assert [(name, load.rate, load.messages) for name, load in loads] == [
        ("10 symbols", 10_000, 20_000), ("30 symbols", 10_000, 20_000), ("1000 rate", 1_000, 2_000),
        ("2000 rate", 2_000, 4_000),
    ]  # fmt: skip


def test_a_corpus_is_long_enough_for_what_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Up to the largest there is."""
    counts = []
    monkeypatch.setattr(experiments, "prepared", lambda _, **wanted: counts.append(wanted["count"]))
    monkeypatch.setattr(experiments, "measured", lambda *_: None)
    monkeypatch.setattr(experiments, "latency", lambda *_: None)

    list(experiments.growth(tmp_path, ["rate"], 12, 30))

    wanted = [30 * rate for rate in experiments.RATES]
    assert all(count >= min(most, 1_000_000) for count, most in zip(counts, wanted, strict=True))


def test_the_corpus_has_every_kind_of_message() -> None:
    """So many as are asked for, and of one kind alone."""
    for suffix in hot_path.SUFFIXES:
        messages = hot_path.payloads_of(50, 5, suffix)
        assert len(messages) == 50
        assert all(suffix.encode() in message for message in messages)


def printed(*arguments: str) -> str:
    """Run the hot path in a process of its own, as it freezes what it has made; return what it prints."""
    command = [sys.executable, str(ROOT / "benchmarks/hot_path.py"), "--symbols", "5", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_hot_path_is_timed() -> None:
    """All kinds together."""
    found = printed("--messages", "200", "--passes", "1")

    assert float(found.partition(" ")[0]) > 0


def test_what_valgrind_runs_works_by_itself(tmp_path: Path) -> None:
    """It takes its messages from a file, so that making them is not counted."""
    corpus = tmp_path / "corpus"
    corpus.write_bytes(b"\n".join(hot_path.payloads_of(300, 5)))

    assert not printed("--once", str(corpus), "--messages", "300")
