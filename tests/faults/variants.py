"""Runs ``binance-bridge`` with one part exchanged: ``python -m tests.faults.variants NAME run --config bridge.yaml``.

The mutants lack what a promise rests on, and the oracle has to convict each of them on the plan that the true
bridge passes. ``lost-answers`` breaks nothing of the bridge's: it is the fault that shows what a producer is worth.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ANSWERS_LOST_EVERY = 15


def generous_exchange() -> None:
    """Let one address open as many connections as many addresses might: all processes of a test share one."""
    from bridge.simulator import simulator

    made = simulator.Simulator.__init__

    def init(self: Any, settings: Any, *args: Any, **kwargs: Any) -> None:
        limits = dataclasses.replace(settings.limits, connects=1_000_000)
        made(self, dataclasses.replace(settings, limits=limits), *args, **kwargs)

    simulator.Simulator.__init__ = init  # type: ignore[method-assign]


def lost_answers() -> None:
    """Lose the broker's answer to every fifteenth request that stores records, after it has stored them."""
    from aiokafka.errors import RequestTimedOutError

    from bridge.kafka.aiokafka_publisher import AiokafkaPublisher

    answers, requests = AiokafkaPublisher._answers, itertools.count(1)

    async def lose(self: Any, *args: Any) -> Any:
        found = await answers(self, *args)
        if found and next(requests) % _ANSWERS_LOST_EVERY == 0:
            raise RequestTimedOutError
        return found

    AiokafkaPublisher._answers = lose  # type: ignore[method-assign]


def not_idempotent() -> None:
    """Send batches that tell nothing of who sent them, so that a broker takes each for new; answers get lost."""
    from bridge.kafka import outbox

    lost_answers()
    stamp, nobody = outbox.SealedBatch.stamp, outbox.Identity(-1, -1)

    def anonymous(self: Any, *_: object) -> None:
        stamp(self, nobody, -1)

    outbox.SealedBatch.stamp = anonymous  # type: ignore[method-assign]


def no_gap_filling() -> None:
    """Take the live stream as it comes: what is missing is neither filled nor named."""
    from bridge.pipeline import Pipeline

    Pipeline.missing = lambda *_: None  # type: ignore[method-assign]


def no_sequencer() -> None:
    """Publish what comes in the order it comes."""
    from bridge.core import derive
    from bridge.core.sequence import Unordered

    derive.sequencer = lambda *_: Unordered()


VARIANTS: dict[str, Callable[[], None]] = {
    "generous-exchange": generous_exchange,
    "lost-answers": lost_answers,
    "not-idempotent": not_idempotent,
    "no-gap-filling": no_gap_filling,
    "no-sequencer": no_sequencer,
}

if __name__ == "__main__":
    VARIANTS[sys.argv[1]]()
    from bridge.cli import main

    main(sys.argv[2:])
