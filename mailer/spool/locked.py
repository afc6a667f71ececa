"""Locks on spool files: the program that holds the lock owns the message."""

import errno
import os
import stat
from contextlib import suppress
from typing import Self

from mailer.spool import journal
from mailer.spool.entry import Entry, check_message, read_beginning, read_entry
from mailer.spool.journal import Event
from mailer.spool.layout import BUCKETED, Spool, Spot
from mailer.spool.lock import lock
from mailer.spool.names import foreign_names, other_names
from mailer.spool.renaming import rename_whole
from mailer.spool.syscalls import begin_writing, read_at, rename_exclusive, reserve, write_all
from mailer.spool.transitions import Move, target

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Missed(Exception):
    """The message could not be taken; nothing is wrong with it."""


class Gone(Missed):
    """It is not there any more: another program moved it on."""


class Busy(Missed):
    """Somebody else holds its lock."""


class Unsafe(Exception):
    """The entry is not a spool file of ours: a link, a directory, a FIFO, a socket, another's file."""

    def __init__(self, reason: str, *, movable: bool) -> None:
        super().__init__(reason)
        self.movable = movable
        """It can be quarantined by name; False for a file that another path or owner may be using."""


class LockedMessage:
    """A spool file whose lock we hold, and the spot that is known to name it.

    The lock is given up by `release`, or by whatever ends the process.
    """

    def __init__(self, spool: Spool, spot: Spot, fd: int, size: int, also: tuple[str, ...] = ()) -> None:
        self.spool = spool
        self.spot = spot
        self.id = spot.name
        self.fd = fd
        self.also = also
        """Other paths of ours that name the same file: where it was before a move that is not durable yet, or
        what a power cut brought back. See `leave`."""
        self._durable = "" if also else spot.path
        """The only name that the file had. Of several, one that a dead process gave it may not be durable."""
        self.lost: OSError | None = None
        """The sync that failed: no later one can be believed."""
        self.is_synced = False
        """Its journal was made durable together with those of others."""
        self._torn: bool | None = None
        self._end: int | None = size
        """The file's size, unless a write failed: nobody else changes it."""
        self._promised = 0
        """Bytes of journal behind the end that are reserved and not yet written."""
        self._whole = b""
        """The file as it was read, if that was all of it: its message is not read again."""

    @classmethod
    def take(cls, spool: Spool, spot: Spot) -> Self:
        """Lock the file at a spot, without waiting.

        Raises:
            Gone: it has moved on.
            Busy: another process, or another part of this one, holds it.
            Unsafe: it is nothing that the spool would have written.
            OSError: as open(2), such as EMFILE.
        """
        try:
            fd = os.open(spot.path, _FLAGS, dir_fd=spool.root)
        except FileNotFoundError as error:
            raise Gone(spot.path) from error
        except OSError as error:
            raise _unsafe(error) from error
        try:
            size, also = _lock_and_check(spool, spot, fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(spool, spot, fd, size, also)

    @property
    def size(self) -> int:
        """The file's size, in octets; raises OSError."""
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
        """Return up to `length` bytes of the message from `offset`, fewer only at its end, where it is empty.

        Raises:
            OSError: it cannot be read, or the file is shorter than it was: the message is damaged.
        """
        start, length = entry.offset + offset, max(0, min(length, entry.length - offset))
        if self._whole:
            return self._whole[start : start + length]
        data = read_at(self.fd, length, start)
        if len(data) < length:
            raise OSError(errno.EIO, "the file has become shorter than its message", self.spot.path)
        return data

    def append(self, *events: Event, of_promise: int = 0) -> None:
        """Append lines to the journal, in one write; they survive a crash of ours, not yet a power cut.

        Args:
            events: the lines.
            of_promise: as many of the bytes that `reserve` promised are for these lines, and are given back.
                What others were promised is not touched: other lines must find room beside it.

        Raises:
            OSError: some of the lines may be missing, or torn; they do not count then.
        """
        lines = journal.encode(*events)
        if self._torn is None:
            size = self.size
            self._torn = size > 0 and os.pread(self.fd, 1, size - 1) != b"\n"
        if self._torn:
            lines = b"\n" + lines
        end = self.size
        self._promised -= of_promise
        if self._promised and len(lines) > of_promise:
            reserve(self.fd, end, self._promised + len(lines))
        self._torn, self._end, self.is_synced = True, None, False
        write_all(self.fd, lines)
        self._torn, self._end = False, end + len(lines)

    def reserve(self, length: int) -> None:
        """Promise that `length` bytes of journal will find room, whatever else was promised.

        Raises:
            OSError: as `syscalls.reserve`; nothing is promised.
        """
        reserve(self.fd, self.size, self._promised + length)
        self._promised += length

    def give_back(self, length: int) -> None:
        """Promise `length` bytes fewer: they are not needed, or the caller is about to write them."""
        self._promised -= length

    def begin_sync(self) -> None:
        """Have the disk begin to write the journal; `sync` is still needed."""
        begin_writing(self.fd)

    def sync(self) -> None:
        """Make the journal durable.

        Raises:
            OSError: it is not, or was not once before: the kernel tells of a failed write once, and drops its
                data.
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
        """Rename, or unlink, the file as the table of transitions says; not yet durable.

        Where a power cut may tear a rename, the file keeps its old name as well, until `leave` or `settle`.

        Returns:
            Where it is now; None when it was unlinked.

        Raises:
            ValueError: the table has no such move from here, its bucket is missing, or the lock was given up;
                nothing changed.
            OSError: as rename(2), unlink(2), mkdir(2); the file is where it was.
        """
        place = target(move, self.spot.place)
        if self.fd < 0 or (place in BUCKETED) != bool(bucket):
            raise ValueError(f"no {move} of {self.spot.path}: no lock, or no bucket where one is needed")
        if place is None:
            self.leave()
            os.unlink(self.spot.path, dir_fd=self.spool.root)
            return None
        spot = Spot(place, self.id, bucket)
        if self.also:
            # It may have been moved there before, by a runner that died, or that is about to give it back.
            stays = spot.path in self.also or self._rename(spot)
            others = tuple(path for path in self.also if path != spot.path)
        else:
            stays, others = self._rename(spot), ()
        self.also = (*others, self.spot.path) if stays else others
        self.spot = spot
        return spot

    def _rename(self, spot: Spot) -> bool:
        try:
            return rename_whole(self.spool, self.spot.path, spot.path)
        except FileNotFoundError:
            # The bucket is not there yet, or a sweep found it empty a moment ago and removed it; or somebody
            # removed one of the spool's own directories.
            self.spool.make_directory(spot.place)
            if spot.bucket:
                self.spool.make_directory(spot.directory)
            return rename_whole(self.spool, self.spot.path, spot.path)

    def leave(self) -> tuple[str, ...]:
        """Remove the file's other names, once the one that stays is durable.

        Returns:
            Their directories, to be synced.

        Raises:
            OSError: as unlink(2); those that are left are found, and removed, with the next move.
        """
        left = self.also
        for path in left:
            with suppress(FileNotFoundError):
                os.unlink(path, dir_fd=self.spool.root)
        self.also = ()
        self._durable = self.spot.path
        return tuple([path.rpartition("/")[0] for path in left])

    def settle(self) -> None:
        """Remove the file's other names now, after a move that is not made durable together with others.

        Raises:
            OSError: the new name is not durable, or another cannot be removed; both are found later.
        """
        if self.also:
            if self.spot.path != self._durable:
                self.spool.sync_directory(self.spot.directory)
            self.leave()

    def release(self) -> None:
        """Give the lock up; a second call does nothing.

        It must not: the descriptor's number is soon another file's, whose lock a second close would free.
        """
        if (fd := self.surrender()) >= 0:
            os.close(fd)

    def surrender(self) -> int:
        """Give the descriptor, and the lock with it, to the caller, to be closed. Negative: there is none."""
        fd, self.fd = self.fd, -1
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _unsafe(error: OSError) -> Exception:
    """Tell what cannot be opened because of what it is from what cannot be opened just now."""
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


def _lock_and_check(spool: Spool, spot: Spot, fd: int) -> tuple[int, tuple[str, ...]]:
    """Lock, then look: does the path still name this inode, and is it what we would have written?

    Returns:
        The file's size, and its other names in the spool.
    """
    if not lock(fd):
        raise Busy(spot.path)
    opened = os.fstat(fd)
    try:
        named = os.stat(spot.path, dir_fd=spool.root, follow_symlinks=False)
    except FileNotFoundError as error:
        raise Gone(spot.path) from error
    if (opened.st_ino, opened.st_dev) != (named.st_ino, named.st_dev) or opened.st_nlink == 0:
        raise Gone(spot.path)
    if not stat.S_ISREG(opened.st_mode):
        raise Unsafe("it is not a regular file", movable=True)
    if opened.st_uid != os.geteuid():
        raise Unsafe(f"it belongs to user {opened.st_uid}", movable=False)
    also = other_names(spool, spot.path, opened) if opened.st_nlink > 1 else ()
    if len(also) < opened.st_nlink - 1:
        foreign = foreign_names(spool, opened, spot.name)
        # A power cut brought a name back when its inode had become another file's, which has its own.
        back = foreign if _is_message(fd, spot.name) else [spot.path] if foreign else []
        for path in back:
            os.unlink(path, dir_fd=spool.root)
        if spot.path in back:
            raise Gone(spot.path)
        if len(also) + len(back) == opened.st_nlink - 1:
            return opened.st_size, also
        raise Unsafe(
            f"it has {opened.st_nlink} links: a path outside of the spool names the same file", movable=False
        )
    return opened.st_size, also


def _is_message(fd: int, name: str) -> bool:
    """Tell whether a file begins as that of the message with this id does."""
    return f"\r\nSpool-Id: {name}\r\n".encode() in os.pread(fd, 256, 0)


def quarantine(spool: Spool, spot: Spot) -> None:
    """Move something that could not even be locked out of the way, by name; it is not opened.

    Raises:
        OSError: as rename(2); it is where it was.
    """
    place = target(Move.QUARANTINE, spot.place)
    assert place is not None
    rename_exclusive(spool.root, spot.path, Spot(place, spot.name).path)


def remove_quarantined(spool: Spool, spot: Spot) -> None:
    """Remove by name what `quarantine` put away: a link and not what it names, a directory if empty.

    Raises:
        OSError: as unlink(2) or rmdir(2), such as ENOTEMPTY; it is where it was.
    """
    try:
        os.unlink(spot.path, dir_fd=spool.root)
    except IsADirectoryError:
        os.rmdir(spot.path, dir_fd=spool.root)
