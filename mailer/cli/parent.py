"""Ending with the program that started us: `mailer up` leaves no orphan, not even when it is killed."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with(parent: int | None) -> None:
    """Have the kernel send us SIGTERM when the parent process ends.

    The kernel forgets the wish when we become another user: call this after that.

    Args:
        parent: the process id that the parent gave us; None: it gave none.

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
        # It died before we could ask.
        os.kill(os.getpid(), signal.SIGTERM)
