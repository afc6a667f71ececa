"""Sweeping: what is due comes back to `new/`, what dead programs left in `tmp/` goes.

A sweep costs what is due, not what is queued: it reads the names of the buckets, and opens only the due ones.
"""

import os
from collections.abc import Iterator
from itertools import islice

from mailer.spool.due import due_buckets
from mailer.spool.inode_spread import HOME
from mailer.spool.layout import SPOOL_WIDE, Place, Spool, Spot
from mailer.spool.locked import LockedMessage, Missed, Unsafe
from mailer.spool.run.claim import Claims, Report
from mailer.spool.run.notice import is_awaited
from mailer.spool.scan import names

STALE = 24 * 3600.0
"""Age in seconds from which an unlocked file in `tmp/` is litter.

A receiver holds the lock of what it writes; the day is for clocks that jump.
"""


_TOGETHER = 50
"""Messages that are moved before the two directories are synced: few, for nothing else is done meanwhile, and
each is open until then."""


def requeue_due(spool: Spool, claims: Claims, now: float, horizon: float) -> Iterator[Spot]:
    """Move what is due from `retry/` to `new/`, naming each message; the rest is as in `requeue_some`."""
    for some in requeue_some(spool, claims, now, horizon):
        yield from some


def requeue_some(
    spool: Spool, claims: Claims, now: float, horizon: float, *, scheduled: bool = True
) -> Iterator[list[Spot]]:
    """Move what is due from `retry/` to `new/`, some at a time, durably; arguments as `due_buckets`.

    A file that cannot be opened or moved is reported by the claims, and stops none of the others.

    Raises:
        OSError: the spool cannot be worked with; each message is in its old place or in its new one.
    """
    for bucket in due_buckets(spool, now, horizon, scheduled=scheduled):
        directory = f"{Place.RETRY}/{bucket}"
        found = names(spool, directory)
        while some := list(islice(found, _TOGETHER)):
            yield requeue(spool, claims, [Spot(Place.RETRY, name, bucket) for name in some])
        remove_if_empty(spool, directory)


def requeue(spool: Spool, claims: Claims, spots: list[Spot]) -> list[Spot]:
    """Move messages of one bucket to `new/`, durably; return those that were moved.

    Raises:
        OSError: as `requeue_some`.
    """
    moved: dict[Spot, LockedMessage] = {}
    try:
        for spot in spots:
            if locked := claims.requeue_due(spot):
                moved[spot] = locked
    finally:
        # Before any of them is sent and removed, or a power cut would bring it back in the bucket.
        try:
            if moved:
                spool.sync_directory(Place.NEW)
                for locked in moved.values():
                    locked.leave()
                spool.sync_directory(spots[0].directory)
        finally:
            for locked in moved.values():
                locked.release()
    return list(moved)


def remove_if_empty(spool: Spool, directory: str) -> None:
    """Remove a bucket or a day; one that is in use again stays (a mover that finds it gone makes it anew)."""
    try:
        os.rmdir(directory, dir_fd=spool.root)
    except OSError:
        return


def clean_tmp(spool: Spool, now: float | None, on_skip: Report = lambda _spot, _reason: None) -> list[str]:
    """Remove what programs that died left in `tmp/`, and name it. None of it was ever acknowledged.

    A notification that its parent's journal names stays: the next claim of the parent will send it.

    Args:
        spool: where.
        now: seconds since the epoch; None: the clock is not believed, and nothing is removed for its age.
        on_skip: called for each file that cannot be opened or removed; it stops none of the others.

    Raises:
        OSError: the spool cannot be worked with.
    """
    removed: list[str] = []
    for name in names(spool, Place.TMP.value):
        spot = Spot(Place.TMP, name)
        try:
            with LockedMessage.take(spool, spot) as locked:
                state = os.fstat(locked.fd)
                # With another name it was accepted: a power cut brought this one back, or its runner died.
                # The name in a scratch directory says nothing: every file begins there.
                accepted = any(not path.startswith(f"{HOME}/") for path in locked.also)
                if not accepted and (not _is_stale(state, now) or is_awaited(spool, locked)):
                    continue
                for path in locked.also:
                    spool.sync_directory(path.rpartition("/")[0])
                os.unlink(spot.path, dir_fd=spool.root)
                removed.append(name)
        except (Missed, Unsafe):
            continue
        except OSError as error:
            if error.errno in SPOOL_WIDE:
                raise
            on_skip(spot, f"it cannot be removed: {error.strerror}")
    return removed


def _is_stale(state: os.stat_result, now: float | None) -> bool:
    return now is not None and now - state.st_mtime > STALE
