"""SIGHUP: reload the configuration, or end if our terminal was closed."""

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Terminal:
    """The terminal that controls us, if there is one; to be made before SIGHUP gets a handler.

    Who starts us with nohup(1), which has SIGHUP ignored, wants us to work on without a terminal.
    """

    def __init__(self) -> None:
        self._had_one = _is_there() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    @property
    def gone(self) -> bool:
        """Tell whether it was closed: then SIGHUP ends a program in the foreground, as everybody expects."""
        return self._had_one and not _is_there()


def postpone() -> None:
    """Keep a SIGHUP that comes from now on until the program listens: by default it would end the program.

    To be called before the configuration is read, which may change at any time after that. Programs that are
    started meanwhile inherit it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def listen(loop: "asyncio.AbstractEventLoop", hear: Callable[[], None]) -> None:
    """Call a function at each SIGHUP, and at one that came since `postpone`."""
    loop.add_signal_handler(signal.SIGHUP, hear)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
