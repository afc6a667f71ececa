"""The sweep: due messages return to `new/`, and what dead programs left in `tmp/` is removed.

Its cost depends on what is due, not on what is queued: it reads the names of the buckets, and opens only due
ones.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from mailer.spool.directory import SPOOL_WIDE, Spool
from mailer.spool.due import due_buckets
from mailer.spool.ids import is_id
from mailer.spool.inode_spread import HOME
from mailer.spool.layout import PROBE, Place, Spot
from mailer.spool.locked_message import LockedMessage, Missed, Unsafe
from mailer.spool.run.claim import Claims, Report
from mailer.spool.run.notice import is_awaited
from mailer.spool.scan import names

STALE = 24 * 3600.0
"""Seconds after which an unlocked file in `tmp/` is removed.

A receiver holds the lock of a file that it writes; the day is a margin for clocks that jump.
"""


_BATCH = 50
"""Messages that are moved before both directories are synced. They are few because the run does nothing else
meanwhile, and because each file is open until then."""


def requeue_due(spool: Spool, claims: Claims, now: float, horizon: float) -> Iterator[Spot]:
    """Move due messages from `retry/` to `new/`, and yield each; otherwise as `requeue_some`."""
    for some in requeue_some(spool, claims, now, horizon):
        yield from some


def requeue_some(
    spool: Spool, claims: Claims, now: float, horizon: float, *, scheduled: bool = True
) -> Iterator[list[Spot]]:
    """Move due messages from `retry/` to `new/`, durably and in batches; arguments as for `due_buckets`.

    A file that cannot be opened or moved is reported through `claims`, and does not stop the others.

    Raises:
        OSError: the spool is unusable; each message is in its old place or in its new one.
    """
    for bucket in due_buckets(spool, now, horizon, scheduled=scheduled):
        directory = f"{Place.RETRY}/{bucket}"
        found = names(spool, directory)
        while some := list(islice(found, _BATCH)):
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
        # Synced before any message is sent and removed: otherwise a power cut could restore it in the bucket.
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
    """Remove a bucket or day unless it is in use again; a program that needs it later makes it anew."""
    try:
        os.rmdir(directory, dir_fd=spool.root)
    except OSError:
        return


def clean_tmp(spool: Spool, now: float | None, on_skip: Report = lambda _spot, _reason: None) -> list[str]:
    """Remove what dead programs left in `tmp/`, and return the ids. No such file was ever acknowledged.

    The directories of a killed `mailer doctor` are removed, too, but not returned.

    A notification that its parent's journal names stays: the next claim of the parent moves it to `new/`.

    Args:
        spool: the spool.
        now: seconds since the epoch; None if the clock is not believed, so that no file counts as old.
        on_skip: called with each file that cannot be opened or removed; it does not stop the others.

    Raises:
        OSError: the spool is unusable.
    """
    removed: list[str] = []
    was_accepted = False
    for name in _litter(spool, now):
        spot = Spot(Place.TMP, name)
        try:
            with LockedMessage.lock(spool, spot) as locked:
                state = os.fstat(locked.fd)
                # A second name shows that it was accepted: a power cut restored this one, or its runner died.
                # A name in a scratch directory does not count, since every file is made there.
                accepted = any(not path.startswith(f"{HOME}/") for path in locked.also)
                if not accepted and (not _is_stale(state, now) or is_awaited(spool, locked)):
                    continue
                for path in locked.also:
                    spool.sync_directory(path.rpartition("/")[0])
                os.unlink(spot.path, dir_fd=spool.root)
                removed.append(name)
                was_accepted |= accepted
        except (Missed, Unsafe):
            continue
        except OSError as error:
            if error.errno in SPOOL_WIDE:
                raise
            on_skip(spot, f"it cannot be removed: {error.strerror}")
    if was_accepted:
        # Otherwise a power cut could restore the name once the message has been sent and has no other.
        spool.sync_directory(Place.TMP.value)
    return removed


def _litter(spool: Spool, now: float | None) -> Iterator[str]:
    """Yield the ids in `tmp/`; remove what killed probes of the filesystem left there."""
    with spool.directory(Place.TMP.value) as fd, os.scandir(fd) as entries:
        for entry in entries:
            if is_id(entry.name):
                yield entry.name
            elif entry.name.startswith(PROBE):
                with suppress(OSError):
                    if _is_stale(entry.stat(follow_symlinks=False), now):
                        _remove_probe(entry.name, fd)


def _remove_probe(name: str, directory: int) -> None:
    """Remove a directory with its content; raises OSError."""
    for _, directories, files, fd in os.fwalk(name, topdown=False, dir_fd=directory):
        for each in files:
            os.unlink(each, dir_fd=fd)
        for each in directories:
            os.rmdir(each, dir_fd=fd)
    os.rmdir(name, dir_fd=directory)


def _is_stale(state: os.stat_result, now: float | None) -> bool:
    return now is not None and now - state.st_mtime > STALE
