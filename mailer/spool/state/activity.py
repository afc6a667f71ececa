"""Times of events in a spool, by the clock of that time, as evidence for the clock guard."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

from mailer.spool.directory import Spool
from mailer.spool.ids import arrival
from mailer.spool.layout import LOG, STATE, Place, is_day
from mailer.spool.scan import buckets, names

_IDS = 1000
"""The most message ids to read in each place, so that a million messages do not hold up a run."""
_TOUCHED = (Place.NEW, Place.CUR, Place.RETRY, LOG, STATE)


def moments(spool: Spool) -> list[float]:
    """Return times at which something happened, in seconds since the epoch, in no order.

    Raises:
        OSError: the spool is unusable.
    """
    return [*_ledger(spool), *_changes(spool), *_arrivals(spool)]


def _ledger(spool: Spool) -> Iterator[float]:
    """Yield when each day of the ledger began, and when its file was last written."""
    with spool.directory(LOG) as fd, os.scandir(fd) as entries:
        for entry in entries:
            day = entry.name.partition(".")[0]
            if is_day(day):
                yield datetime(int(day[:4]), int(day[4:6]), int(day[6:]), tzinfo=UTC).timestamp()
                try:
                    yield entry.stat(follow_symlinks=False).st_mtime
                except FileNotFoundError:
                    continue  # Its retention has just ended.


def _changes(spool: Spool) -> Iterator[float]:
    for name in _TOUCHED:
        yield os.stat(name, dir_fd=spool.root, follow_symlinks=False).st_mtime


def _arrivals(spool: Spool) -> Iterator[float]:
    """Yield when some messages of each place arrived."""
    places = [Place.NEW.value, Place.CUR.value, Place.HOLD.value, Place.FAILED.value]
    places += [f"{Place.RETRY}/{bucket}" for bucket in islice(buckets(spool, Place.RETRY), _IDS)]
    for place in places:
        yield from map(arrival, islice(names(spool, place), _IDS))
