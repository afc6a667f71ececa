"""When a runner last did its work: `state/last-run.json`, for whoever wonders whether there is one at all."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from mailer.spool import state
from mailer.spool.layout import LOG, STATE, Place, Spool, is_day

_NAME = "last-run.json"


class LastRun(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run that could work with the spool, whatever became of the mail. Counts are messages."""

    at: str
    """When it ended; for one that stays, when it was last seen at work. As the ledger writes times."""
    began: str
    seconds: float
    """Between the two."""
    mode: str
    """`once` or `watch`."""
    claimed: int = 0
    sent: int = 0
    deferred: int = 0
    failed: int = 0
    held: int = 0
    version: str = ""
    """The program's."""
    leapt: str = ""
    """To what time its clock leapt lately, so that nothing is deleted for its age yet; empty: it did not."""


def read(spool: Spool) -> LastRun | None:
    """Return the last run; None: there was none, or its marker cannot be read."""
    try:
        return msgspec.json.decode(state.read(spool, _NAME) or b"", type=LastRun)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write(spool: Spool, run: LastRun) -> None:
    """Put this run in the place of the one before; raises OSError."""
    state.replace(spool, _NAME, msgspec.json.encode(run) + b"\n")


def moments(spool: Spool) -> list[float]:
    """Return when something happened in the spool, in seconds since the epoch, as its files tell.

    Raises:
        OSError: the spool cannot be worked with.
    """
    return [*_days(spool), *_changes(spool)]


def _days(spool: Spool) -> Iterator[float]:
    """When each day of the ledger began."""
    with spool.directory(LOG) as fd, os.scandir(fd) as entries:
        for entry in entries:
            day = entry.name.partition(".")[0]
            if is_day(day):
                yield datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).timestamp()


def _changes(spool: Spool) -> Iterator[float]:
    for name in (Place.NEW, Place.CUR, Place.RETRY, LOG, STATE):
        yield os.stat(name, dir_fd=spool.root, follow_symlinks=False).st_mtime
