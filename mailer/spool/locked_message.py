"""Locks on spool files: the program that holds the lock owns the message."""

import errno
import os
import stat
from typing import Self

from mailer.spool import journal
from mailer.spool.directory import Spool
from mailer.spool.entry import Entry, check_message, read_beginning, read_entry
from mailer.spool.flock import lock
from mailer.spool.journal import Event
from mailer.spool.layout import BUCKETED, Spot
from mailer.spool.names import foreign_names, other_names
from mailer.spool.renaming import rename_whole
from mailer.spool.syscalls import begin_writing, read_at, rename_exclusive, reserve, write_all
from mailer.spool.transitions import Move, target

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Missed(Exception):
    """The message could not be taken, though nothing is wrong with it."""


class Gone(Missed):
    """It is not there any more: another program moved it."""


class Busy(Missed):
    """Another process, or another part of this one, holds its lock."""


class Unsafe(Exception):
    """The entry is not a spool file of ours, but a link, directory, FIFO, socket, or another user's file."""

    def __init__(self, reason: str, *, movable: bool) -> None:
        super().__init__(reason)
        self.movable = movable
        """Whether it may be quarantined by name; False if another path or owner may be using the file."""


class LockedMessage:
    """A spool file whose lock we hold, and the spot that is known to name it.

    The lock is given up by `release`, or when the process ends, however it ends.
    """

    def __init__(self, spool: Spool, spot: Spot, fd: int, size: int, also: tuple[str, ...] = ()) -> None:
        self.spool = spool
        self.spot = spot
        self.path = path = spot.path
        """The spot's path, relative to the spool directory."""
        self.id = spot.name
        self.fd = fd
        self.also = also
        """Other paths in the spool that name the same file: its old name, while a move is not durable, or one
        that a power cut brought back. See `leave`."""
        self._durable = "" if also else path
        """The file's only name. Of several names, one that a dead process gave it may not be durable."""
        self.lost: OSError | None = None
        """The error of a failed sync, after which no later sync can be believed."""
        self.is_synced = False
        """Whether its journal was made durable together with those of other messages."""
        self._torn: bool | None = None
        self._end: int | None = size
        """The file's size in bytes; None after a failed write. No other program changes it."""
        self._promised = 0
        """Bytes of journal that are reserved beyond the end and not written yet."""
        self._whole = b""
        """The file's bytes, if one read got all of them, so that the message is not read again."""

    @classmethod
    def lock(cls, spool: Spool, spot: Spot) -> Self:
        """Lock the file at a spot without waiting.

        Raises:
            Gone: it was moved on.
            Busy: another process, or another part of this one, holds its lock.
            Unsafe: it is something that the spool would not have written.
            OSError: as open(2), such as EMFILE; or the lease on the spool has ended (`hosts.lease`).
        """
        if spool.lease:
            spool.lease.check()
        path = spot.path
        try:
            fd = os.open(path, _FLAGS, dir_fd=spool.root)
        except FileNotFoundError as error:
            raise Gone(path) from error
        except OSError as error:
            raise _unsafe(error) from error
        try:
            size, also = _lock_and_check(spool, spot, path, fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(spool, spot, fd, size, also)

    @property
    def size(self) -> int:
        """The file's size in octets; raises OSError."""
        return os.fstat(self.fd).st_size if self._end is None else self._end

    def read(self, *, boot: str = "") -> Entry:
        """Read the envelope and fold the journal; raises as `read_entry`."""
        size = self.size
        beginning = read_beginning(self.fd, size)
        entry = read_entry(self.fd, self.spot.name, boot=boot, size=size, beginning=beginning)
        self._torn = entry.torn
        if len(beginning) == size:
            self._whole = beginning
        return entry

    def check(self, entry: Entry) -> None:
        """Compare the message with its digest; raises as `check_message`."""
        check_message(self.fd, entry, whole=self._whole)

    def read_message(self, entry: Entry, offset: int, length: int) -> bytes:
        """Return `length` bytes of the message from `offset` on; fewer, or none, only at its end.

        Raises:
            OSError: it cannot be read, or the file has become shorter: the message is damaged.
        """
        start, length = entry.offset + offset, max(0, min(length, entry.length - offset))
        if self._whole:
            return self._whole[start : start + length]
        data = read_at(self.fd, length, start)
        if len(data) < length:
            raise OSError(errno.EIO, "the file has become shorter than its message", self.path)
        return data

    def append(self, *events: Event, of_promise: int = 0) -> None:
        """Append lines to the journal in one write; they survive a crash of ours, but not yet a power cut.

        Args:
            events: the lines.
            of_promise: how many of the bytes promised by `reserve` are for these lines; the promise shrinks
                by them. The rest of the promise stays, and needs room in addition to these lines.

        Raises:
            OSError: some of the lines may be missing or torn, and then do not count.
        """
        self.append_lines(journal.encode(*events), of_promise=of_promise)

    def append_lines(self, lines: bytes, *, of_promise: int = 0) -> None:
        """Append lines that `journal.encode` returned, as `append` does."""
        end = self.size if self._end is None else self._end
        if self._torn is None:
            self._torn = end > 0 and os.pread(self.fd, 1, end - 1) != b"\n"
        if self._torn:
            lines = b"\n" + lines
        self._promised -= of_promise
        if self._promised and len(lines) > of_promise:
            reserve(self.fd, end, self._promised + len(lines))
        self._torn, self._end, self.is_synced = True, None, False
        write_all(self.fd, lines)
        self._torn, self._end = False, end + len(lines)

    def reserve(self, length: int) -> None:
        """Promise room for `length` bytes of journal, in addition to what was promised before.

        Raises:
            OSError: as `syscalls.reserve`; nothing is promised.
        """
        end = self.size if self._end is None else self._end
        reserve(self.fd, end, self._promised + length)
        self._promised += length

    def give_back(self, length: int) -> None:
        """Reduce the promise by `length` bytes, which are not needed or about to be written."""
        self._promised -= length

    def begin_sync(self) -> None:
        """Start writing the journal to the disk; `sync` is still needed."""
        begin_writing(self.fd)

    def sync(self) -> None:
        """Make the journal durable.

        Raises:
            OSError: it is not durable, or an earlier sync failed: the kernel reports a failed write once, and
                drops its data.
        """
        if self.lost is not None:
            raise OSError(self.lost.errno, self.lost.strerror)
        if self.is_synced:
            return
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            self.lost = error
            raise

    def move(self, move: Move, bucket: str = "") -> Spot | None:
        """Rename or unlink the file as the table of transitions says; this is not durable yet.

        Where a power cut may tear a rename, the file keeps its old name as well, until `leave` or `settle`.

        Returns:
            Where the file is now; None if it was unlinked.

        Raises:
            ValueError: the table has no such move from here, its bucket is missing, or the lock was given up;
                nothing changed.
            OSError: as rename(2), unlink(2), mkdir(2); the file is where it was.
        """
        place = target(move, self.spot.place)
        if self.fd < 0 or (place in BUCKETED) != bool(bucket):
            raise ValueError(f"no {move} of {self.path}: no lock, or no bucket where one is needed")
        old = self.path
        if place is None:
            if self.also:
                self.leave()
            os.unlink(old, dir_fd=self.spool.root)
            return None
        spot = Spot(place, self.id, bucket)
        new = spot.path
        # It may have been moved there before, by a runner that died or that is about to give it back.
        stays = new in self.also or self._rename(old, new, spot)
        others = tuple([path for path in self.also if path != new]) if self.also else ()
        self.also = (*others, old) if stays else others
        self.spot, self.path = spot, new
        return spot

    def _rename(self, old: str, new: str, spot: Spot) -> bool:
        try:
            return rename_whole(self.spool, old, new)
        except FileNotFoundError:
            # The bucket does not exist yet, or a sweep has just found it empty and removed it; or an operator
            # removed one of the spool's own directories.
            self.spool.make_directory(spot.place)
            if spot.bucket:
                self.spool.make_directory(spot.directory)
            return rename_whole(self.spool, old, new)

    def leave(self) -> tuple[str, ...]:
        """Remove the file's other names, once the one that remains is durable.

        Returns:
            The directories of the removed names, which the caller syncs.

        Raises:
            OSError: as unlink(2); names that are left are found and removed with the next move.
        """
        left: dict[str, None] = {}
        for path in self.also:
            left[path.rpartition("/")[0]] = None
            try:
                os.unlink(path, dir_fd=self.spool.root)
            except FileNotFoundError:
                continue
        self.also = ()
        self._durable = self.path
        return tuple(left)

    def settle(self) -> None:
        """Remove the file's other names now, after a move that is not made durable in a group.

        Raises:
            OSError: the new name is not durable, or another cannot be removed; a later run finds both.
        """
        if self.also:
            if self.path != self._durable:
                self.spool.sync_directory(self.spot.directory)
            self.leave()

    def release(self) -> None:
        """Give up the lock; a second call does nothing.

        A second close would be harmful: another file may have the same descriptor number by then, and the
        close would free that file's lock.
        """
        if (fd := self.detach()) >= 0:
            os.close(fd)

    def detach(self) -> int:
        """Return the descriptor, and the lock with it, for the caller to close; negative if there is none."""
        fd, self.fd = self.fd, -1
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _unsafe(error: OSError) -> Exception:
    """Return Unsafe if the kind of the entry keeps it from being opened, and otherwise the error itself."""
    match error.errno:
        case errno.ELOOP:
            return Unsafe("it is a symbolic link", movable=True)
        case errno.EISDIR:
            return Unsafe("it is a directory", movable=True)
        case errno.ENXIO | errno.ENODEV:
            return Unsafe("it is a socket or a device", movable=True)
        case errno.EACCES | errno.EPERM:
            return Unsafe(f"it cannot be opened: {error.strerror}", movable=False)
    return error


def _lock_and_check(spool: Spool, spot: Spot, path: str, fd: int) -> tuple[int, tuple[str, ...]]:
    """Lock, then check that the path still names this inode, and that it is a file that we would write.

    Returns:
        The file's size in bytes, and its other names in the spool.
    """
    if not lock(fd):
        raise Busy(spot.path)
    opened = os.fstat(fd)
    try:
        named = os.stat(path, dir_fd=spool.root, follow_symlinks=False)
    except FileNotFoundError as error:
        raise Gone(spot.path) from error
    if (opened.st_ino, opened.st_dev) != (named.st_ino, named.st_dev) or opened.st_nlink == 0:
        raise Gone(spot.path)
    if not stat.S_ISREG(opened.st_mode):
        raise Unsafe("it is not a regular file", movable=True)
    if opened.st_uid != os.geteuid():
        raise Unsafe(f"it belongs to user {opened.st_uid}", movable=False)
    also = other_names(spool, path, opened) if opened.st_nlink > 1 else ()
    if len(also) < opened.st_nlink - 1:
        foreign = foreign_names(spool, opened, spot.name)
        # A power cut brought back a name whose inode had since become that of another file with its own name.
        back = foreign if _is_message(fd, spot.name) else [path] if foreign else []
        for other in back:
            os.unlink(other, dir_fd=spool.root)
        if path in back:
            raise Gone(spot.path)
        if len(also) + len(back) == opened.st_nlink - 1:
            return opened.st_size, also
        raise Unsafe(
            f"it has {opened.st_nlink} links: a path outside of the spool names the same file", movable=False
        )
    return opened.st_size, also


def _is_message(fd: int, name: str) -> bool:
    """Return whether a file begins like the message with this id."""
    return f"\r\nSpool-Id: {name}\r\n".encode() in os.pread(fd, 256, 0)


def quarantine(spool: Spool, spot: Spot) -> None:
    """Move a file that cannot be locked to `corrupt/` by its name, without opening it.

    Raises:
        OSError: as rename(2); the file is where it was.
    """
    place = target(Move.QUARANTINE, spot.place)
    assert place is not None
    rename_exclusive(spool.root, spot.path, Spot(place, spot.name).path)


def remove_quarantined(spool: Spool, spot: Spot) -> None:
    """Remove by name what `quarantine` moved: a link but not its target, a directory only if empty.

    Raises:
        OSError: as unlink(2) or rmdir(2), such as ENOTEMPTY; the entry is where it was.
    """
    try:
        os.unlink(spot.path, dir_fd=spool.root)
    except IsADirectoryError:
        os.rmdir(spot.path, dir_fd=spool.root)
