"""The gap of an event that came, but made no record: the dead letter has its bytes, and the stream lacks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.conversions import milliseconds
from bridge.core.coverage import by_of
from bridge.core.notices import missing_notice
from bridge.core.sequence import Missing

if TYPE_CHECKING:
    from bridge.core.derive import Failure, StreamDeriver
    from bridge.core.notices import Notice

CAUSE = "dead-letter"
_LONGEST_ERROR = 500


def unmade_notice(deriver: StreamDeriver, failure: Failure) -> Notice | None:
    """Return the gap record, unrecoverable, of a message that was put in order and then made no record.

    None where nothing is to be told: of what could not be parsed (it was never put in order: the next message shows
    that it is missing), of a row of history (its gap's own record says so), of a candle that is not closed yet, and
    of streams without ids (raw holds the message, and time has no hole).
    """
    item = failure.item
    if item.message is None or failure.reason != "unify" or item.connection_id == 0:
        return None
    compiled, by = deriver.compiled, by_of(deriver.compiled, deriver.stream.symbol)
    if by == "sequence" and compiled.link is not None:
        previous, last = compiled.link(item.message)
        missing = Missing(previous + 1, last)
    elif by == "candle" and compiled.candle is not None:
        began, ended, closed = compiled.candle(item.message)
        if not closed:
            return None
        missing = Missing(None, None, milliseconds(began), milliseconds(ended))
    else:
        return None
    return unmade(missing_notice(deriver, missing, item), failure.error)


def unmade(notice: Notice, error: str) -> Notice:
    """Make a gap's record that of what is in the dead-letter topic: unrecoverable, for ``error``."""
    reason = f"it came but there is no record of it, see the dead letter: {error[:_LONGEST_ERROR]}"
    notice.record.update(cause=CAUSE, status="unrecoverable", reason=reason)
    return notice
