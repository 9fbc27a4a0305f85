"""Child processes that don't outlive this one, however it ends, and ports for them."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TETHER = Path(__file__).with_name("tether.py")
_FIRST_PORT = 15_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def launch(command: Sequence[str], *, log: Path, directory: Path) -> subprocess.Popen[bytes]:
    """Start ``command`` with its output appended to ``log``; it is killed when this process ends.

    It gets a session of its own, so that Ctrl-C in a terminal reaches only us, and none of our environment
    but ``PATH``, so that no ``JAVA_TOOL_OPTIONS`` or ``CLASSPATH`` changes it.
    """
    tethered = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *command]
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - the command is ours
            tethered,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )


def in_launcher(action: Callable[[], None]) -> None:
    """Run ``action`` in the one thread that starts children, and wait for it.

    The kernel ties a child to the *thread* that started it, and callers' threads come and go; this one stays.
    It runs one action at a time, also when the caller was interrupted while it waited.
    """
    done: Future[None] = Future()
    _launcher(os.getpid()).put((action, done))
    done.result()


@cache
def _launcher(_pid: int) -> SimpleQueue[tuple[Callable[[], None], Future[None]]]:
    """Return the queue of this process's launcher thread; a forked child has a thread of its own."""
    queue: SimpleQueue[tuple[Callable[[], None], Future[None]]] = SimpleQueue()

    def serve() -> None:
        while True:
            action, done = queue.get()
            try:
                action()
            except Exception as error:  # noqa: BLE001 - handed to the waiting caller
                done.set_exception(error)
            else:
                done.set_result(None)

    Thread(target=serve, name="launcher", daemon=True).start()
    return queue


def free_ports(count: int) -> tuple[int, ...]:
    """Return free loopback ports below the range that outgoing connections take theirs from.

    Inside it, a client that retries a broker which is down could take the broker's port or connect to itself.
    """
    top = int(_EPHEMERAL.read_text(encoding="ascii").split()[0]) if _EPHEMERAL.exists() else 32_768
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(_FIRST_PORT, max(top, _FIRST_PORT + 1_000))  # noqa: S311 - no secret
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.add(port)
    return tuple(found)
