"""What the bridge is compared with: each a program of its own below ``clients/`` or ``go/``."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.corpus import SUFFIXES, symbol_names
from benchmarks.environments import environment
from benchmarks.measure import ROOT, Client, Launch, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = ROOT / "benchmarks/clients"
BUILD = ROOT / "build/benchmarks"
_CHANNELS = ("book-ticker", "agg-trade", "trade", "depth", "kline", "ticker")
_STRUCTURES = ("bid-ask", "trade", "order-book", "ohlcv", "ticker")
PER_CHANNEL = (*(f"raw.{channel}" for channel in _CHANNELS), *(f"unified.{name}" for name in _STRUCTURES))
"""Topics laid out as the bridge's."""
_CRYPTOFEED = ("ticker-", "trades-", "book-", "candles-")
TWO = ("raw.all", "unified.all")


class Script(Client):
    """A Python program that runs in our own environment.

    Args:
        name: of the row.
        script: its file.
        arguments: of its command line, beside where things are.
        topics: what it writes to.
    """

    def __init__(self, name: str, script: str, *arguments: str, topics: tuple[str, ...] = TWO) -> None:
        self.name = name
        self._script, self._arguments, self._topics = script, arguments, topics

    def launch(self, place: Place) -> Launch:
        """See :class:`~benchmarks.measure.Client`."""
        command = [
            sys.executable, str(CLIENTS / self._script), "--bootstrap-servers", place.bootstrap_servers,
            "--url", place.stream_url, "--symbols", str(place.symbols), *self._arguments,
        ]  # fmt: skip
        return Launch(
            command=command,
            streams=place.symbols * len(SUFFIXES),
            raw="raw.",
            unified="unified.",
            topics=self._topics,
        )


def limits() -> list[Client]:
    """The hand-specialised file: as the bridge lays its topics out, and as is quickest."""
    return [
        Script("limit", "limit.py", "--per-channel", topics=PER_CHANNEL),
        Script("limit, zstd", "limit.py", "--per-channel", "--compression", "zstd", topics=PER_CHANNEL),
        Script("limit, two topics", "limit.py"),
    ]


class Go(Client):
    """A plain bridge in Go, on one core."""

    name = "plain Go"

    def prepare(self) -> None:
        """Build it; the toolchain fetches what go.sum pins."""
        subprocess.run(
            ["go", "build", "-buildvcs=false", "-o", str(BUILD / "go-bridge"), "."],
            cwd=ROOT / "benchmarks/go",
            check=True,
        )

    def launch(self, place: Place) -> Launch:
        """See :class:`~benchmarks.measure.Client`."""
        command = [
            str(BUILD / "go-bridge"), "-bootstrap-servers", place.bootstrap_servers, "-url", place.stream_url,
            "-symbols", str(place.symbols),
        ]  # fmt: skip
        return Launch(
            command=command, environment={"GOMAXPROCS": "1"}, streams=place.symbols * len(SUFFIXES),
            raw="raw.", unified="unified.", topics=PER_CHANNEL,
        )  # fmt: skip


def naive() -> list[Client]:
    """What one writes at home in an evening."""
    return [Script("naive", "naive.py", topics=PER_CHANNEL)]


class Cryptofeed(Client):
    """cryptofeed's Kafka backend. It has no ``trade`` and no ``ticker`` of Binance, and no raw records."""

    def __init__(self, name: str, *, tuned: bool) -> None:
        self.name = name
        self._tuned = tuned

    def prepare(self) -> None:
        """Install it."""
        environment("cryptofeed")

    def launch(self, place: Place) -> Launch:
        """See :class:`~benchmarks.measure.Client`."""
        command = [
            str(environment("cryptofeed")), str(CLIENTS / "cryptofeed_kafka.py"),
            "--bootstrap-servers", place.bootstrap_servers, "--url", place.stream_url, "--rest-url", place.rest_url,
            "--symbols", str(place.symbols), *(["--tuned"] if self._tuned else []),
        ]  # fmt: skip
        topics = ("unified.all",) if self._tuned else tuple(_by_symbol(place.symbols))
        return Launch(
            command=command, streams=place.symbols * 4, raw="", unified="unified." if self._tuned else _CRYPTOFEED,
            topics=topics, partitions=6 if self._tuned else 1,
        )  # fmt: skip


def _by_symbol(symbols: int) -> Iterator[str]:
    """Yield the topics it writes to as it comes; that it would wait for each to be created is not held against it."""
    for kind in _CRYPTOFEED:
        for name in symbol_names(symbols):
            yield f"{kind}BINANCE-{name.removesuffix('USDT')}-USDT"


class Ccxt(Client):
    """ccxt.pro and aiokafka. It reads ``trade`` alone of the two kinds of trades, and publishes what a call gives."""

    name = "ccxt.pro"

    def prepare(self) -> None:
        """Install it."""
        environment("ccxt")

    def launch(self, place: Place) -> Launch:
        """See :class:`~benchmarks.measure.Client`."""
        command = [
            str(environment("ccxt")), str(CLIENTS / "ccxt_kafka.py"), "--bootstrap-servers", place.bootstrap_servers,
            "--url", place.stream_url, "--rest-url", place.rest_url, "--symbols", str(place.symbols),
        ]  # fmt: skip
        topics = [f"unified.{name}" for name in _STRUCTURES]
        return Launch(command=command, streams=place.symbols * 5, raw="", unified="unified.", topics=topics)
