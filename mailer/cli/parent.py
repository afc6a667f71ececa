"""End a child process with its parent: `mailer up` leaves no orphans, even when it is killed."""

import ctypes
import os
import signal

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
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if os.getppid() != parent:
        # The parent died before prctl was called.
        os.kill(os.getpid(), signal.SIGTERM)
