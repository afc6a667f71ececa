"""The host's clocks. Only `cli` reads them; the rooms below it get them as arguments."""

import time

from mailer.ground.libc import libc
from mailer.mail.clock import Clocks
from mailer.spool.syscalls import boot_id

_UNSYNCHRONIZED = 5
"""TIME_ERROR, the state that adjtimex(2) returns while the clock is not synchronized."""
_STRUCT_TIMEX = 208
"""The size of struct timex in bytes on 64-bit Linux; it is smaller on 32-bit."""


def clocks() -> Clocks:
    """Return this host's clocks."""
    return Clocks(time.time, _uptime, _boot(), lambda: synchronized() is True, time.monotonic)


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    """Identify the boot that the boot clock counts from.

    An uptime since before 1998 is not the kernel's own: the process is in a time namespace, or runs under
    libfaketime (0.9.10), whose boot clock shows the wall clock's time. Programs that run so share one
    identity; to all others it is a different boot.
    """
    return boot_id() if _uptime() < time.time() / 2 else f"{boot_id()}/shifted"


def synchronized() -> bool | None:
    """Ask the kernel whether its clock is synchronized to a time server; None if it does not say.

    After the clock has been set the answer is no, until the NTP daemon reports it as synchronized again.
    """
    import ctypes  # noqa: PLC0415 - asked only while the clock is in doubt

    state = libc.adjtimex(ctypes.create_string_buffer(_STRUCT_TIMEX))
    return None if state < 0 else state != _UNSYNCHRONIZED
