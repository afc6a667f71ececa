"""Remove the files of idempotency keys when they are old."""

import os
from contextlib import suppress
from itertools import islice

from mailer.spool.directory import Spool
from mailer.spool.due import SWEEP_EVERY, SWEPT, is_older
from mailer.spool.flock import lock
from mailer.spool.key_file import FLAGS, OF_DROP, is_name
from mailer.spool.layout import FILE_MODE, ONCE

_DROP_KEPT = 30 * 86_400.0
"""Seconds for which a drop that was queued is remembered, in case its file could not be removed, and likewise
an import, a message sent again and one handed over; the configured window is for keys."""
_AT_ONCE = 1000
"""The most keys that one sweep removes, so that mail does not wait for it; the next sweep continues."""


def forget_old(spool: Spool, now: float, window: float) -> int:
    """Remove key files that are more than `window` seconds old; this looks at them once an hour.

    Args:
        spool: the spool.
        now: seconds since the epoch, by a clock that is believed.
        window: seconds.

    Returns:
        The number of removed files.

    Raises:
        OSError: the spool is unusable.
    """
    try:
        with spool.directory(ONCE) as directory:
            if not is_older(directory, SWEPT, now, SWEEP_EVERY):
                return 0
            with os.scandir(directory) as entries:
                old = (e.name for e in entries if is_name(e.name) and _forget(directory, e.name, now, window))
                count = sum(1 for _ in islice(old, _AT_ONCE))
            if count < _AT_ONCE:
                _touch(directory, now)
            return count
    except FileNotFoundError:
        return 0


def _forget(directory: int, name: str, now: float, window: float) -> bool:
    """Remove a key's file if it is old; return False, without an error, if it cannot be removed."""
    if name.startswith(OF_DROP):
        window = max(window, _DROP_KEPT)
    try:
        if not is_older(directory, name, now, window):
            return False
        fd = os.open(name, FLAGS, dir_fd=directory)
    except OSError:
        return False
    try:
        # A receiver that has just opened the file sees that it was unlinked once it has the lock.
        if not lock(fd) or not is_older(directory, name, now, window):
            return False
        os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _touch(directory: int, now: float) -> None:
    """Record that all were checked; if that fails, the next sweep checks all again."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(OSError):
        fd = os.open(SWEPT, flags, FILE_MODE, dir_fd=directory)
        try:
            os.utime(fd, (now, now))
        finally:
            os.close(fd)
