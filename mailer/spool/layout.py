"""The layout of a spool directory: its directories, and the names of retry buckets and of days in them."""

import math
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

_BUCKET = "%Y%m%dT%H%MZ"
_SCHEDULED = "-scheduled"
_DAY = "%Y%m%d"


class Place(StrEnum):
    """The directories that hold messages."""

    TMP = "tmp"
    NEW = "new"
    CUR = "cur"
    RETRY = "retry"
    HOLD = "hold"
    FAILED = "failed"
    CORRUPT = "corrupt"
    SENT = "sent"


BUCKETED = {Place.RETRY, Place.SENT}
"""Places with subdirectories: `retry/` by the minute when a message is due, `sent/` by the UTC day."""

LOCAL = "local"
LOG = "log"
STATE = "state"
ONCE = "once"
"""Made with the first idempotency key: see `key_file`."""
DROP = "drop"
"""Made where users may leave mail while no receiver runs: see `drop`."""
DROP_MODE = 0o3733
"""Any user may create files, but not list them or remove another user's; new files inherit the group."""
SUPPRESSED = "suppressed"
"""Made with the first suppressed address: see `suppression`."""
HOSTS = ".hosts"
"""Beside the spools of hosts that share a directory: says who may use which. See `hosts.epochs`."""
PROBE = ".probe-"
"""The beginning of the names of `checks.probe`'s directories in `tmp/`."""
TRACES = "traces"
"""Made with the first session that fails: see `maillog.traces`. Nothing depends on it."""
DIRECTORIES = (*(place.value for place in Place), LOCAL, LOG, STATE)


class Spot(msgspec.Struct, frozen=True):
    """The location of a message's file: a place, the bucket inside it if there are buckets, and a name."""

    place: Place
    name: str
    bucket: str = ""

    @property
    def directory(self) -> str:
        return self.place + "/" + self.bucket if self.bucket else self.place

    @property
    def path(self) -> str:
        """The file's path, relative to the spool directory."""
        # Added, because a member of an enum is formatted slowly.
        return self.directory + "/" + self.name if self.bucket else self.place + "/" + self.name


def bucket_for(due: float) -> str:
    """Name the retry bucket of a message due at this time: the minute, rounded up so that none is early."""
    return datetime.fromtimestamp(full_minute(due), UTC).strftime(_BUCKET)


def scheduled_bucket_for(due: float) -> str:
    """Name the bucket of a message that its sender wants tried at this time, and not before.

    The suffix tells it from our own due times: one of those that lies too far ahead came from a wrong clock.
    """
    return bucket_for(due) + _SCHEDULED


def is_scheduled(bucket: str) -> bool:
    """Return whether `scheduled_bucket_for` named this bucket."""
    return bucket.endswith(_SCHEDULED)


def full_minute(due: float) -> int:
    """Return when a message due at this time is tried: at the next full minute, as its bucket says."""
    return math.ceil(due / 60) * 60


@lru_cache(maxsize=1024)
def bucket_time(name: str) -> float:
    """Return when a retry bucket is due, in seconds since the epoch.

    Raises:
        ValueError: the name is not that of a retry bucket.
    """
    minute = name.removesuffix(_SCHEDULED)
    # Not strptime(3): importing Python's takes as long as everything else in a run without work.
    digits = f"{minute[:8]}{minute[9:13]}"
    if len(minute) != 14 or minute[8] + minute[13] != "TZ" or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"not a minute: {name!r}")
    return datetime.fromisoformat(minute).timestamp()


def day_for(moment: float) -> str:
    """Name the UTC day, as in `sent/` and `log/`."""
    return datetime.fromtimestamp(moment, UTC).strftime(_DAY)


def is_day(name: str) -> bool:
    """Return whether `day_for` could have returned this name."""
    if not (len(name) == len("20261122") and name.isascii() and name.isdigit()):
        return False
    try:
        date(int(name[:4]), int(name[4:6]), int(name[6:]))
    except ValueError:
        return False
    return True
