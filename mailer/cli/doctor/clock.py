"""Is the clock right? Signatures, certificates, Date fields and retries all depend on it."""

import ctypes
from datetime import UTC, datetime

from mailer.mail.finding import Finding, Grade

_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""Before this program was written."""
_LATEST = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
_UNSYNCHRONIZED = 5
"""TIME_ERROR of adjtimex(2)."""
_STRUCT_TIMEX = 208
"""Octets on 64-bit Linux, and more than on 32-bit."""


def clock_findings(now: float) -> list[Finding]:
    """Look at the time, and whether the kernel's clock is kept in step.

    Args:
        now: seconds since the epoch.
    """
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if not _EARLIEST <= now <= _LATEST:
        todo = "set it, and keep it in step: apt-get install systemd-timesyncd, or chrony"
        return [Finding("clock", "time", Grade.PROBLEM, f"{shown} cannot be", todo)]
    return [Finding("clock", "time", Grade.OK, shown), _in_step()]


def _in_step() -> Finding:
    """Ask the kernel, which whoever keeps its clock has to tell."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_STRUCT_TIMEX))
    if state < 0:
        return Finding("clock", "ntp", Grade.SKIPPED, "the kernel does not tell (a container, perhaps)")
    if state == _UNSYNCHRONIZED:
        todo = "keep it in step (timedatectl set-ntp true, or chrony), unless the machine's host does so"
        return Finding("clock", "ntp", Grade.WARNING, "nothing tells the kernel that it is in step", todo)
    return Finding("clock", "ntp", Grade.OK, "kept in step")
