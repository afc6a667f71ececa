"""What there is to do, by the names of files alone: no message is opened."""

import os
from pathlib import Path

from mailer.spool.ids import is_id
from mailer.spool.layout import DROP, ONCE, Place, Spool, bucket_time, day_for, is_day, is_scheduled
from mailer.spool.scan import buckets, names

SWEPT = "swept"
"""Its modification time is when `once/` was last swept."""
SWEEP_EVERY = 3600.0
_DAY = 86_400.0


def any_message(spool: Spool, *places: Place) -> bool:
    """Tell whether there is a message in one of these places."""
    return any(next(names(spool, place.value), None) for place in places)


def any_drop(path: Path) -> bool:
    """Tell whether there is something to take in, for a program that has not opened the spool yet.

    Whoever can fill the directory decides how long it is: this ends at the first.
    """
    try:
        with os.scandir(path / DROP) as found:
            return any(is_id(entry.name) and entry.is_file(follow_symlinks=False) for entry in found)
    except OSError:
        return False


def due_buckets(spool: Spool, now: float, horizon: float, *, scheduled: bool = True) -> list[str]:
    """Name the retry buckets that are due.

    Args:
        spool: where.
        now: seconds since the epoch.
        horizon: the longest back-off, in seconds. A bucket further ahead than that was named by a wrong clock
            (or this one is), and is due at once: better a try too many than a mail that waits ten years. What
            its sender has scheduled may lie further ahead.
        scheduled: those too that senders have scheduled. Not while the clock is doubted: a try too many does
            no harm, but what was sent too early cannot be called back.
    """
    # A bucket may be named up to a minute after its last message is due.
    last = now + horizon + 60
    found = ((name, bucket_time(name)) for name in buckets(spool, Place.RETRY))
    return [
        name
        for name, due in found
        if (scheduled and due <= now if is_scheduled(name) else not now < due <= last)
    ]


def days_to_prune(spool: Spool, now: float, max_age: float) -> list[str]:
    """Name the days of `sent/` that are over for longer than `max_age` seconds."""
    last = day_for(now - max_age - _DAY)
    return [day for day in buckets(spool, Place.SENT) if day <= last and is_day(day)]


def keys_to_sweep(spool: Spool, now: float) -> bool:
    """Tell whether there are idempotency keys, and they were not swept for an hour."""
    try:
        with spool.directory(ONCE) as directory:
            return is_older(directory, SWEPT, now, SWEEP_EVERY)
    except FileNotFoundError:
        return False


def is_older(directory: int, name: str, now: float, age: float) -> bool:
    """Tell whether a file is as old, or was written by a clock that was as far ahead, or is not there."""
    try:
        written = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return True
    return abs(now - written) >= age
