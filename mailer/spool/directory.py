"""The spool directory, held open by a program: its files and directories are created and synced through it.

Every path is relative to the descriptor of the directory, which is opened once: replacing a parent directory
later has no effect on a running program.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

from mailer.spool.free_space import FreeSpace, free_space
from mailer.spool.inode_spread import InodeSpread
from mailer.spool.journalling import renames_are_whole
from mailer.spool.layout import DIRECTORY_MODE, FILE_MODE, LOG, STATE, Place, Spot
from mailer.spool.mark import Standing, standing
from mailer.spool.preparation import (
    NotMade,
    SpoolError,
    is_of_hosts,
    make_directory,
    no_spool,
    prepare,
)
from mailer.spool.syscalls import check_takes_changes

SPOOL_WIDE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    # A filesystem over a network that this host is cut off from; the first one also without a lease.
    *(errno.ESTALE, errno.ESHUTDOWN),
}
"""Errors that the next message would meet too; any other (EIO on one file) concerns that message alone."""


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
        self.on_close: list[Callable[[], None]] = []
        """Called when it is closed, and is still open; they raise nothing."""
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
            prepare(path, root, create=create)
            spool._makes = create
        except OSError:
            spool.close()
            raise
        return spool

    @classmethod
    def open_unchecked(cls, path: Path) -> Self:
        """Open the spool at `path` for reading: nothing is made, checked or tightened; raises OSError."""
        return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def make_directory(self, name: str) -> bool:
        """Make a directory of mode 0700; return False if it existed."""
        return make_directory(self.root, name)

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
        while self.on_close:
            self.on_close.pop()()
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


def foreign(path: Path) -> str:
    """Return why a directory would never be used as a spool; empty if it would, or cannot be read."""
    try:
        with Spool.open_unchecked(path) as spool:
            found = standing(spool.root)
    except OSError:
        return ""
    return f"{path} {no_spool(found, path)}" if found is Standing.FOREIGN else ""


def _sync_parent(path: Path) -> None:
    """Make the name of a new spool directory durable, because all mail is inside it."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
