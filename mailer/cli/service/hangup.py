"""SIGHUP handling: reload the configuration, or end if the controlling terminal was closed."""

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Terminal:
    """The controlling terminal, if there is one. Create it before installing a SIGHUP handler.

    A program started by nohup(1), which ignores SIGHUP, counts as one without a terminal and keeps running.
    """

    def __init__(self) -> None:
        self._had_one = _is_there() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    @property
    def gone(self) -> bool:
        """Whether the terminal was closed: then SIGHUP ends a foreground program, as users expect."""
        return self._had_one and not _is_there()


def postpone() -> None:
    """Block SIGHUP until the program calls `listen`, because its default action would end the program.

    Call this before the configuration is read, which may change at any time after that. Child processes
    that are started in between inherit the blocked signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def listen(loop: "asyncio.AbstractEventLoop", hear: Callable[[], None]) -> None:
    """Call a function at each SIGHUP, including one that has been pending since `postpone`."""
    loop.add_signal_handler(signal.SIGHUP, hear)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
