"""What there is to do, judged by file names alone, without opening a message."""

import os
from pathlib import Path

from mailer.spool.directory import Spool
from mailer.spool.ids import is_id
from mailer.spool.layout import DROP, ONCE, Place, bucket_time, day_for, is_day, is_scheduled
from mailer.spool.scan import buckets, names

SWEPT = "swept"
"""A file in `once/` whose modification time is that of the last sweep."""
SWEEP_EVERY = 3600.0
_DAY = 86_400.0


def any_message(spool: Spool, *places: Place) -> bool:
    """Return whether there is a message in one of these places."""
    return any(next(names(spool, place.value), None) for place in places)


def any_drop(path: Path) -> bool:
    """Return whether there is mail in `drop/`, for a program that has not opened the spool yet.

    Any user who may write to the directory can make it long, so the search ends at the first file.
    """
    try:
        with os.scandir(path / DROP) as found:
            return any(is_id(entry.name) and entry.is_file(follow_symlinks=False) for entry in found)
    except OSError:
        return False


def due_buckets(spool: Spool, now: float, horizon: float, *, scheduled: bool = True) -> list[str]:
    """Return the names of the retry buckets that are due.

    Args:
        spool: the spool.
        now: seconds since the epoch.
        horizon: the longest backoff, in seconds. A bucket further ahead was named by a wrong clock (or this
            clock is wrong), and is due now: an attempt too many is better than a mail that waits ten years.
            A bucket that senders have scheduled may lie further ahead.
        scheduled: include buckets that senders have scheduled. False while the clock is doubted: an attempt
            too many is harmless, but mail that was sent too early cannot be recalled.
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
    """Return the days of `sent/` that ended more than `max_age` seconds ago."""
    last = day_for(now - max_age - _DAY)
    return [day for day in buckets(spool, Place.SENT) if day <= last and is_day(day)]


def keys_to_sweep(spool: Spool, now: float) -> bool:
    """Return whether there are idempotency keys that were not swept for an hour."""
    try:
        with spool.directory(ONCE) as directory:
            return is_older(directory, SWEPT, now, SWEEP_EVERY)
    except FileNotFoundError:
        return False


def is_older(directory: int, name: str, now: float, age: float) -> bool:
    """Return whether a file is `age` seconds old, or dated as far in the future, or missing."""
    try:
        written = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return True
    return abs(now - written) >= age
