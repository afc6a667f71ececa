"""The layout of a spool directory, and the object that holds it open.

Every path below is relative to the descriptor of the spool directory, which is opened once: replacing a
parent directory later has no effect on a running program.
"""

import errno
import fcntl
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol, Self

import msgspec

from mailer.spool.filesystems import INSTEAD, filesystem_of, refusal
from mailer.spool.free_space import FreeSpace, free_space
from mailer.spool.inode_spread import InodeSpread
from mailer.spool.journalling import renames_are_whole
from mailer.spool.mark import MARK, Standing, mark, standing
from mailer.spool.syscalls import check_takes_changes

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

SPOOL_WIDE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    # A filesystem over a network that this host is cut off from; the first one also without a lease.
    *(errno.ESTALE, errno.ESHUTDOWN),
}
"""Errors that the next message would meet too; any other (EIO on one file) concerns that message alone."""

_BUCKET = "%Y%m%dT%H%MZ"
_SCHEDULED = "-scheduled"
_DAY = "%Y%m%d"


class SpoolError(OSError):
    """The spool directory cannot be used; the text says why and what to do."""


class NotMade(SpoolError):
    """The spool, or a part of it, does not exist yet; `mailer serve` and `mailer-send` will make it."""


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
"""Made with the first idempotency key: see `idempotency`."""
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


class Permission(Protocol):
    """A program's permission to use the spool, which may end while it runs: see `hosts.lease`."""

    draining: bool
    """Whether new mail is to be refused, while what is in the spool is sent."""

    def check(self) -> None:
        """Return if mail may be accepted and sent now; raises OSError otherwise."""

    def end(self) -> None:
        """Note that it is not needed any more."""


class Spool:
    """An open spool directory. It holds one descriptor; everything else is opened when needed."""

    def __init__(self, path: Path, root: int) -> None:
        self.path = path
        self.root = root
        self.lease: Permission | None = None
        """Checked before mail is accepted, and before it is sent; None: no other host may use the spool."""
        self._is_shared: bool | None = None
        self._makes = False
        """Whether this program makes what is missing."""
        self._inode_spread = InodeSpread(root)
        self._kept: dict[str, tuple[int, tuple[int, int]]] = {}
        """Directories that stay open: their descriptors, and the device and inode of each."""

    @cached_property
    def renames_are_whole(self) -> bool:
        """Whether renames on the spool's filesystem survive a power cut whole: see `journalling`."""
        return renames_are_whole(self.root)

    @property
    def is_shared(self) -> bool:
        """Whether the spool is that of one of several hosts, in a directory that they share."""
        # Not a cached_property: until Python 3.12 all threads share a lock in it, and a stat may hang.
        if self._is_shared is None:
            self._is_shared = is_of_hosts(self.root)
        return self._is_shared

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> Self:
        """Open the spool at `path`; nothing is made or changed.

        With `create`, the spool is made if there is nothing at `path`, or an empty directory; the parent must
        exist. Missing parts of an existing spool are made, and modes are tightened to 0700.

        Raises:
            SpoolError: it is missing, not a spool, another user's, on a network filesystem, or cannot be
                opened. Nothing was changed.
        """
        try:
            if create and not path.exists():
                path.mkdir(mode=DIRECTORY_MODE)
                _sync_parent(path)
            # The spool itself may be a symbolic link to another disk; inside it, none is followed.
            root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            kind = NotMade if isinstance(error, FileNotFoundError) else SpoolError
            raise kind(error.errno, f"cannot open the spool: {error.strerror}", str(path)) from error
        spool = cls(path, root)
        try:
            spool._prepare(create=create)
            spool._makes = create
        except OSError:
            spool.close()
            raise
        return spool

    @classmethod
    def open_unchecked(cls, path: Path) -> Self:
        """Open the spool at `path` for reading: nothing is made, checked or tightened; raises OSError."""
        return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def _prepare(self, *, create: bool) -> None:
        state = os.fstat(self.root)
        if state.st_uid != os.geteuid():
            raise SpoolError(
                None,
                f"the spool {self.path} belongs to user {state.st_uid}, and this runs as {os.geteuid()}: "
                "run as its owner, or give it to this user with chown -R",
            )
        if not os.access(".", os.X_OK, dir_fd=self.root, effective_ids=True):
            if not create:
                raise _unusable(self.path, state)
            os.fchmod(self.root, DIRECTORY_MODE)
        kind = filesystem_of(self.root).kind
        if why := refusal(kind, of_hosts=self.is_shared):
            raise SpoolError(
                None,
                f"the spool {self.path} is on {kind}, {why}: {INSTEAD}",
            )
        for name in (ONCE, DROP, SUPPRESSED):
            with suppress(FileNotFoundError):
                self._check_directory(name)
        found = standing(self.root)
        if found is Standing.FOREIGN:
            raise SpoolError(None, f"{self.path} {no_spool(found, self.path)}")
        if found is Standing.FREE and not create:
            raise NotMade(None, f"{self.path} {no_spool(found, self.path)}")
        if not create:
            self._check_complete()
            return
        if found is Standing.OURS:
            # A spool of an earlier version, or a full disk: the directory names identify it without the mark.
            with suppress(OSError):
                mark(self.root)
        else:
            mark(self.root)
        self._complete()

    def _complete(self) -> None:
        """Make the directories that are missing, durably; raises OSError."""
        missing = [name for name in DIRECTORIES if not self._tighten(name)]
        if missing:
            # A power cut that keeps directories and not the mark would leave what is no spool, and not empty.
            os.fsync(self.root)
        for name in missing:
            self.make_directory(name)
            self._tighten(name)
        self.let_others_through()
        if missing:
            os.fsync(self.root)
        with suppress(OSError):
            self._take_over_traces()

    @property
    def mode(self) -> int:
        """The mode of the spool directory: others may pass through to an open `drop/`, but not list names."""
        try:
            found = os.stat(DROP, dir_fd=self.root, follow_symlinks=False)
        except FileNotFoundError:
            return DIRECTORY_MODE
        is_open = stat.S_ISDIR(found.st_mode) and found.st_mode & 0o077
        return DIRECTORY_MODE | 0o011 if is_open else DIRECTORY_MODE

    def let_others_through(self) -> None:
        """Set the directory to that mode; raises OSError."""
        if stat.S_IMODE(os.fstat(self.root).st_mode) != self.mode:
            os.fchmod(self.root, self.mode)

    def _check_complete(self) -> None:
        for name in DIRECTORIES:
            try:
                self._check_directory(name)
            except FileNotFoundError:
                raise NotMade(
                    None,
                    f"{self.path / name} is missing: the next start of mailer serve or mailer-send makes it",
                ) from None

    def _check_directory(self, name: str) -> os.stat_result:
        """Stat a directory, which must be a real one that we own; raises FileNotFoundError, SpoolError."""
        found = os.stat(name, dir_fd=self.root, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            raise SpoolError(None, f"{self.path / name} is not a directory: move it away")
        if found.st_uid != os.geteuid():
            raise SpoolError(None, f"{self.path / name} {owned_by_another(self.path, found)}")
        return found

    def _tighten(self, name: str) -> bool:
        """Make sure that a directory has mode 0700; return whether it exists."""
        try:
            found = self._check_directory(name)
        except FileNotFoundError:
            return False
        if stat.S_IMODE(found.st_mode) != DIRECTORY_MODE:
            try:
                with self.directory(name) as fd:
                    os.fchmod(fd, DIRECTORY_MODE)
            except PermissionError:
                raise _unusable(self.path / name, found) from None
        return True

    def _take_over_traces(self) -> None:
        """Move traces of an earlier version out of `log/`, where `cat log/*` met a directory.

        Raises:
            OSError: there are none (nothing was made), or not all could be moved.
        """
        with self.directory(f"{LOG}/{TRACES}") as old:
            self.make_directory(TRACES)
            with self.directory(TRACES) as new, os.scandir(old) as entries:
                for name in [entry.name for entry in entries]:
                    os.rename(name, name, src_dir_fd=old, dst_dir_fd=new)
        os.rmdir(f"{LOG}/{TRACES}", dir_fd=self.root)

    def make_directory(self, name: str) -> bool:
        """Make a directory of mode 0700; return False if it existed."""
        try:
            os.mkdir(name, DIRECTORY_MODE, dir_fd=self.root)
        except FileExistsError:
            return False
        return True

    def has_directory(self, name: str) -> bool:
        """Return whether an optional directory of the spool exists; raises OSError."""
        try:
            os.stat(name, dir_fd=self.root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def directory(self, name: str) -> Iterator[int]:
        """Open a directory of the spool for the duration of the block.

        Programs that make a spool make `log/` and `state/` again, which may be deleted while they run.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self.root)
        except FileNotFoundError:
            if not self._makes or name not in {LOG, STATE}:
                raise
            self.make_directory(name)
            fd = os.open(name, flags, dir_fd=self.root)
        try:
            yield fd
        finally:
            os.close(fd)

    def sync_directory(self, name: str) -> None:
        """Make the renames into and out of a directory durable.

        If the directory was removed meanwhile (a bucket that a sweep found empty), its parent is synced
        instead, which makes the removal durable.

        Raises:
            OSError: they are not durable; or a write to this directory failed since the last call, which the
                kernel reports once.
        """
        if name in self._kept:
            fd, identity = self._kept[name]
            if self._identity(name) == identity:
                self._sync(fd)
                return
        try:
            with self.directory(name) as fd:
                self._sync(fd)
        except FileNotFoundError:
            parent = name.rpartition("/")[0]
            if not parent:
                raise
            self.sync_directory(parent)

    def _sync(self, directory: int) -> None:
        os.fsync(directory)
        if self.renames_are_whole:
            # If another process's fsync was the one to get the journal's write error, this fsync succeeded
            # all the same; but the filesystem then refuses every change, which this call detects.
            check_takes_changes(directory)

    def keep_directories(self) -> None:
        """Keep the directories open, so that no write error between two syncs is missed.

        The kernel reports a write error once to each file that was open when it happened. A descriptor that
        is opened just for an fsync does not get an error that another program's fsync has already received.

        Raises:
            OSError: a directory cannot be opened.
        """
        for place in Place:
            if place.value in self._kept:
                continue
            with self.directory(place.value) as fd:
                found = os.fstat(fd)
                kept = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
                self._kept[place.value] = (kept, (found.st_dev, found.st_ino))

    def _identity(self, name: str) -> tuple[int, int] | None:
        """Return the device and inode of a directory that may have been moved away; None: it is missing."""
        try:
            found = os.stat(name, dir_fd=self.root)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def check_place(self) -> None:
        """Check that the path still leads to this directory; if not, no other program sees what it gets.

        Raises:
            OSError: (ESTALE) it was moved, deleted or unmounted, or something is mounted over it; or the path
                cannot be followed.
        """
        try:
            found: os.stat_result | None = self.path.stat()
        except FileNotFoundError:
            found = None
        if found is None or not os.path.samestat(found, os.fstat(self.root)):
            raise OSError(errno.ESTALE, "the spool was replaced by another directory", str(self.path))

    def create(self, spot: Spot, flags: int) -> int:
        """Create and open a file; `flags` as for open(2). Raises OSError, such as EEXIST."""
        return self._inode_spread.create(spot.path, flags, FILE_MODE)

    def free_space(self) -> FreeSpace:
        """Return what the spool's filesystem says of its free space; raises OSError."""
        return free_space(self.root)

    def close(self) -> None:
        if self.lease:
            self.lease.end()
        self._inode_spread.close()
        while self._kept:
            os.close(self._kept.popitem()[1][0])
        os.close(self.root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_of_hosts(root: int) -> bool:
    """Return whether an open spool is in a directory that several hosts share, each with its own spool."""
    try:
        return stat.S_ISDIR(os.stat(f"../{HOSTS}", dir_fd=root, follow_symlinks=False).st_mode)
    except OSError:
        return False


def no_spool(found: Standing, path: Path) -> str:
    """Return why a directory is not used as a spool, and what to do; the caller puts its name before this."""
    if found is Standing.FREE:
        return "is not a spool yet: mailer serve, mailer up and mailer-send make it one when they start"
    from shlex import quote  # noqa: PLC0415 - for a message

    return (
        "is not a spool and contains other files, so nothing in it is changed: set spoolDir to a directory "
        f"that is empty or does not exist yet. If it is a spool, type: touch {quote(str(path / MARK))}"
    )


def foreign(path: Path) -> str:
    """Return why a directory would never be used as a spool; empty if it would, or cannot be read."""
    try:
        with Spool.open_unchecked(path) as spool:
            found = standing(spool.root)
    except OSError:
        return ""
    return f"{path} {no_spool(found, path)}" if found is Standing.FOREIGN else ""


def owned_by_another(spool: Path, state: os.stat_result) -> str:
    """Return whose a directory of the spool is, and how it becomes ours: it may contain mail."""
    from shlex import quote  # noqa: PLC0415 - for a message

    return (
        f"belongs to user {state.st_uid}, and this runs as {os.geteuid()}: "
        f"type, as root: chown -R {os.geteuid()} {quote(str(spool))}"
    )


def _unusable(path: Path, state: os.stat_result) -> SpoolError:
    from shlex import quote  # noqa: PLC0415 - for a message

    what = f"{path} has mode {stat.S_IMODE(state.st_mode):04o}, and its owner cannot use it"
    return SpoolError(None, f"{what}: type: chmod {DIRECTORY_MODE:04o} {quote(str(path))}")


def _sync_parent(path: Path) -> None:
    """Make the name of a new spool directory durable, because all mail is inside it."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
