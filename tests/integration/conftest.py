"""A broker for these tests alone: topic names are fixed by environment, so they share it with nobody else.

Each module has an environment to itself: captures prod, stop and rotation demo, start testnet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bridge.local.kafka import LocalKafka

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalKafka]:
    """A Kafka of one node."""
    with LocalKafka() as kafka:
        yield kafka
