"""Where this package keeps files: a cache that processes share, and scratch folders that outlive no owner."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "binance-bridge-kafka-"
_OWNED = "owned"


def cache_directory() -> Path:
    """Return the folder for downloaded jars: ``BRIDGE_CACHE``, else one in the user's own cache."""
    given = os.environ.get("BRIDGE_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "binance-kafka-bridge"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the only lock on ``path`` among all processes; waits for it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Scratch:
    """A temporary folder, removed by :meth:`remove` or, where its owner was killed, by the next of them."""

    def __init__(self) -> None:
        _sweep()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Locked before it gets its name, so that nobody's sweep ever finds it without an owner.
        unnamed = self.path / "new"
        self._owned = unnamed.open("w")
        fcntl.flock(self._owned, fcntl.LOCK_EX)
        unnamed.rename(self.path / _OWNED)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._owned.close()


def _sweep() -> None:
    for owned in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_OWNED}"):
        try:
            with owned.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(owned.parent, ignore_errors=True)
        except OSError:  # its owner lives, it is another user's, or somebody else just swept it
            continue
