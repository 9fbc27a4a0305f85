"""How far each stream is published at one moment: what checkpoints and the coverage topic are made of. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.core.coverage import Ledger, covered
from bridge.core.resumption import Reading, Resumption

if TYPE_CHECKING:
    from bridge.core.derive import StreamDeriver
    from bridge.core.notices import Notice
    from bridge.core.sequence import Tail
    from bridge.model import Market, Stream

StreamKey = tuple["Market", str]
"""Market and stream name."""


class Standing(NamedTuple):
    """How far one stream is published.

    Attributes:
        stream: the stream.
        symbol: the unified symbol; the stream's name where it has none.
        tail: see :class:`~bridge.core.sequence.Sequencer`.
        carried_until: when a connection last carried it, microseconds; None before the first time.
        coverage_key: the key of its coverage record.
        coverage: the fields of that record; None before the stream's first event.
    """

    stream: Stream
    symbol: str
    tail: Tail | None
    carried_until: int | None
    coverage_key: bytes
    coverage: dict[str, Any] | None


class _Kept:
    """What is known of a stream, and what was last told."""

    __slots__ = ("carried_until", "deriver", "first", "ledger", "tail")

    def __init__(self, deriver: StreamDeriver, ledger: Ledger) -> None:
        self.deriver, self.ledger = deriver, ledger
        self.tail: Tail | None = None
        self.first: int | None = None
        self.carried_until: int | None = None


class Standings:
    """The ledgers of all streams of a shard, and what of them was told.

    Args:
        epoch: the shard's epoch.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._kept: dict[StreamKey, _Kept] = {}

    def add(self, deriver: StreamDeriver) -> None:
        """Keep the ledger of a stream."""
        stream = deriver.stream
        symbol = deriver.instruments.get(stream.symbol).symbol if stream.symbol else stream.name
        ledger = Ledger(covered(deriver.compiled, stream, symbol))
        self._kept.setdefault((stream.market, stream.name), _Kept(deriver, ledger))

    def resume(self, deriver: StreamDeriver, ledger: Ledger, carried_until: int | None) -> None:
        """Go on with the ledger of an earlier owner, whose connections carried the stream last then."""
        kept = self._kept[deriver.stream.market, deriver.stream.name]
        kept.ledger, kept.carried_until = ledger, carried_until

    def note(self, deriver: StreamDeriver, notice: Notice) -> None:
        """Take a gap record into the ledger of its stream."""
        kept = self._kept[deriver.stream.market, deriver.stream.name]
        self._begin(kept)
        kept.ledger.note(notice.record)

    def begin(self, deriver: StreamDeriver, at: int) -> None:
        """Note since when a stream that is known by time alone is carried (microseconds)."""
        ledger = self._kept[deriver.stream.market, deriver.stream.name].ledger
        if ledger.first is None:
            ledger.begin(at, at)

    def of(self, stream: Stream, now: int, carried: int | None, *, always: bool) -> Standing | None:
        """Return how far a stream is published, if that is further than when last told.

        Args:
            stream: the stream.
            now: microseconds.
            carried: until when a connection carried it, microseconds; None where that is not known.
            always: whether it is further or not.
        """
        kept = self._kept[stream.market, stream.name]
        if not self._advance(kept, carried) and not always:
            return None
        ledger = kept.ledger
        ledger.changed = False
        record = None if ledger.first is None else ledger.record(now, self._epoch)
        return Standing(
            stream, ledger.stream.symbol, kept.tail, kept.carried_until, ledger.stream.key, record
        )

    def resumption(self, stream: Stream) -> Resumption:
        """Return where the next owner of a stream goes on if this one ends here, with everything published.

        It is what the next owner finds in the last checkpoint, and nothing lies behind that.
        """
        kept = self._kept[stream.market, stream.name]
        standing = self.of(stream, 0, None, always=True)
        assert standing is not None, "asked for in any case"
        coverage = standing.coverage
        ledger = Ledger(kept.ledger.stream) if coverage is None else Ledger.restore(coverage)
        return Reading(ledger, standing.tail, standing.carried_until, self._epoch).finish()

    def _advance(self, kept: _Kept, carried: int | None) -> bool:
        """Bring a ledger up to its stream; return whether there is something to tell."""
        deriver, ledger = kept.deriver, kept.ledger
        if ledger.stream.by == "time":
            if carried is not None and carried != kept.carried_until:
                kept.carried_until = carried
                ledger.reached(carried)
            return ledger.changed
        self._begin(kept)
        tail = deriver.tail
        if tail != kept.tail and tail is not None:
            kept.tail = tail
            ledger.reached(tail.last if ledger.stream.by == "sequence" else _closed_until(tail))
        return ledger.changed

    def _begin(self, kept: _Kept) -> None:
        """Let the ledger know the stream's first event before anything else of it."""
        deriver = kept.deriver
        if deriver.first is not None and deriver.first != kept.first:
            kept.first = deriver.first
            kept.ledger.begin(deriver.first, deriver.began_at)


def _closed_until(tail: Tail) -> int:
    """Return up to which millisecond candles are closed."""
    return tail.close_time if tail.closed else tail.last - 1
