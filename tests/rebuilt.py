"""A consumer's order book, rebuilt from records alone; it knows nothing of the bridge's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

Side = dict[Decimal, Decimal]


@dataclass(slots=True)
class Rebuilt:
    """One symbol's book as the contract tells consumers to keep it.

    Attributes:
        bids: quantity by price.
        asks: the same.
        sequence: the last update in it; None while it is not in sync.
        snapshots: how many snapshots were taken.
        breaks: how often a delta did not follow.
    """

    bids: Side = field(default_factory=dict)
    asks: Side = field(default_factory=dict)
    sequence: int | None = None
    snapshots: int = 0
    breaks: int = 0

    def take(self, record: dict[str, Any]) -> None:
        """Take the next record of the symbol's key."""
        assert record["channel"] == "depth"
        if record["type"] == "snapshot":
            self._begin(record)
        elif self.sequence is not None:
            self._change(record)

    def _begin(self, record: dict[str, Any]) -> None:
        assert record["origin"] in {"snapshot", "replay"}
        assert record["depth"] is None
        assert record["firstSequence"] is None
        bids, asks = [[(r["price"], r["amount"]) for r in record[side]] for side in ("bids", "asks")]
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)
        assert all(amount > 0 for _, amount in (*bids, *asks))
        if bids and asks:
            assert bids[0][0] < asks[0][0], "a crossed book was served"
        self.bids, self.asks = dict(bids), dict(asks)
        assert (len(self.bids), len(self.asks)) == (len(bids), len(asks))
        self.sequence = record["sequence"]
        self.snapshots += 1

    def _change(self, record: dict[str, Any]) -> None:
        spot = record["market"] == "spot"
        follows = record["firstSequence"] - 1 if spot else record["previousSequence"]
        if follows > self.sequence or record["sequence"] <= self.sequence:
            self.sequence = None
            self.breaks += 1
            return
        apply(self.bids, ((r["price"], r["amount"]) for r in record["bids"]))
        apply(self.asks, ((r["price"], r["amount"]) for r in record["asks"]))
        self.sequence = record["sequence"]


def apply(side: Side, rows: Iterable[tuple[Decimal, Decimal]]) -> None:
    """Apply absolute quantities; 0 removes."""
    for price, amount in rows:
        if amount:
            side[price] = amount
        else:
            side.pop(price, None)
