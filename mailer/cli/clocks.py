"""The clocks. They are read here and nowhere below `cli`, which gets them as arguments."""

import ctypes
import time

from mailer.mail.clock import Clocks
from mailer.spool.syscalls import boot_id

_UNSYNCHRONIZED = 5
"""TIME_ERROR of adjtimex(2)."""
_STRUCT_TIMEX = 208
"""Octets on 64-bit Linux, and more than on 32-bit."""


def clocks() -> Clocks:
    """Return this host's clocks."""
    return Clocks(time.time, _uptime, _boot(), lambda: synchronized() is True, time.monotonic)


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    """Name what the boot clock counts from.

    One that has run since before 1998 is of a time namespace of its own, or libfaketime's (0.9.10), which
    shows the wall clock's time: programs under it go with one another, and for all others it is another boot.
    """
    return boot_id() if _uptime() < time.time() / 2 else f"{boot_id()}/shifted"


def synchronized() -> bool | None:
    """Ask the kernel whether a time server keeps its clock; None: it does not tell.

    After the clock is set the answer is no, until the time server's program tells the kernel again.
    """
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_STRUCT_TIMEX))
    return None if state < 0 else state != _UNSYNCHRONIZED
