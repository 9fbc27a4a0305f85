"""``binance-bridge broker``: a real Apache Kafka on this machine, until it is told to stop."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from types import FrameType


def broker(
    nodes: Annotated[
        int, typer.Option(help="1, or 3 with replication factor 3 and min.insync.replicas 2.")
    ] = 1,
) -> None:
    """Run a real Apache Kafka on free loopback ports until SIGTERM or SIGINT; leaves nothing behind.

    Prints its address as one line of JSON when it is ready.

    Example: binance-bridge broker --nodes 3
    """
    from bridge.local.kafka import LocalKafka

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        with LocalKafka(nodes) as kafka:
            print(json.dumps({"bootstrap_servers": kafka.bootstrap_servers}), flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """End the command, wherever it is; a second signal must not break off the tidying."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
