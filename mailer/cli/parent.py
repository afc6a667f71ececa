"""End a child process with its parent: `mailer up` leaves no orphans, even when it is killed."""

import os
import signal

from mailer.ground.libc import last_error, libc

_PR_SET_PDEATHSIG = 1


def end_with(parent: int | None) -> None:
    """Have the kernel send this process SIGTERM when the parent process ends (PR_SET_PDEATHSIG).

    The kernel clears this setting when the process changes its user: call this afterwards.

    Args:
        parent: the process id from `--parent`; None if the option was not given.

    Raises:
        OSError: the kernel refused.
    """
    if parent is None:
        return
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        code = last_error()
        raise OSError(code, os.strerror(code))
    if os.getppid() != parent:
        # The parent died before prctl was called.
        os.kill(os.getpid(), signal.SIGTERM)
