"""Becomes another program that the kernel kills when the thread that started it ends.

Run by path, as ``python tether.py PARENT_PID PROGRAM ARGUMENT...``. Not a ``preexec_fn``: running Python
between fork and exec is unsafe in a process with threads. Elsewhere than on Linux it only runs the program.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; kept across execve


def main(parent: int, command: list[str]) -> None:
    """Replace this process by ``command``, unless ``parent`` is gone already."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:  # it ended before the line above
            sys.exit("the process that wanted this program is gone")
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
