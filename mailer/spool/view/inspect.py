"""Reading messages without locking them, for listings, `show` and `why`.

Because the reader takes no lock, a journal line that is being written looks torn, and does not count. What
was read may be out of date when it is printed. Nothing is changed by reading.
"""

import errno
import os
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Self, TypeVar

import msgspec

from mailer.mail.outcome import Status
from mailer.spool import journal
from mailer.spool.directory import SPOOL_WIDE, Spool
from mailer.spool.entry import Corrupt, Entry, check_message, read_entry
from mailer.spool.journal import Event
from mailer.spool.layout import BUCKETED, Place, Spot
from mailer.spool.names import other_names
from mailer.spool.scan import QUEUE, batches, buckets, find, names
from mailer.spool.syscalls import read_at

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 256 * 1024

NOT_PERMITTED = "it cannot be opened: Permission denied"
"""Why a file is not read that is not damaged: it belongs to another user, or has no mode for its owner."""
_UNOPENABLE = {
    errno.ELOOP: "it is a symbolic link",
    errno.ENXIO: "it is a socket or a device",
    errno.ENODEV: "it is a socket or a device",
    errno.EACCES: NOT_PERMITTED,
}

_MAX_TRIES = 10
"""How often to search again for a message that is moved before its file can be opened."""

_SLACK = 1.0
"""Seconds before a listing began in which a change may count as later: file times lag the clock a little."""


class View:
    """A spool file opened for reading. Use as a context manager."""

    def __init__(self, spot: Spot, fd: int, status: os.stat_result) -> None:
        self.spot = spot
        self.fd = fd
        self.status = status
        """The file's status when it was opened."""

    @classmethod
    def open(cls, spool: Spool, spot: Spot) -> Self:
        """Open the file at a spot, without blocking and without following a link.

        Raises:
            FileNotFoundError: it was moved on.
            Corrupt: it is not a regular file, or we may not open it.
            OSError: as open(2), such as EMFILE.
        """
        try:
            fd = os.open(spot.path, _FLAGS, dir_fd=spool.root)
        except OSError as error:
            if error.errno in _UNOPENABLE:
                raise Corrupt(_UNOPENABLE[error.errno]) from error
            raise
        view = cls(spot, fd, os.fstat(fd))
        if not stat.S_ISREG(view.status.st_mode):
            view.close()
            raise Corrupt("it is not a regular file")
        return view

    @classmethod
    def find(cls, spool: Spool, message_id: str) -> Self | None:
        """Open a message wherever it is, even if it is moved meanwhile; None: it is not in the spool.

        Raises:
            TimeoutError: it was moved each time before it could be opened.
            Corrupt, OSError: as `open`.
        """
        for _ in range(_MAX_TRIES):
            if not (spots := find(spool, message_id, (*QUEUE, Place.SENT))):
                return None
            with suppress(FileNotFoundError):
                return cls.open(spool, spots[0])
        raise TimeoutError(f"{message_id} was moved each time before it could be opened")

    def entry(self) -> Entry:
        """Read the envelope and fold the journal; raises as `read_entry`."""
        return read_entry(self.fd, self.spot.name)

    def check(self, entry: Entry) -> None:
        """Compare the message with its digest; raises as `check_message`."""
        check_message(self.fd, entry)

    def events(self, entry: Entry) -> list[Event]:
        """Return the journal's events."""
        start = entry.offset + entry.length
        return list(journal.decode(read_at(self.fd, max(0, entry.size - start), start)))

    def message(self, entry: Entry) -> Iterator[bytes]:
        """Yield exactly the message's bytes; raises OSError if they cannot be read, or are gone."""
        position, end = entry.offset, entry.offset + entry.length
        while position < end:
            chunk = read_at(self.fd, min(_CHUNK, end - position), position)
            if not chunk:
                raise OSError(errno.EIO, "the file has become shorter than its message", self.spot.path)
            yield chunk
            position += len(chunk)

    def read(self, entry: Entry, offset: int, length: int) -> bytes:
        """Return at most `length` of the message's bytes from `offset`; raises OSError."""
        return read_at(self.fd, max(0, min(length, entry.length - offset)), entry.offset + offset)

    def claimed(self) -> bool:
        """Return whether a program holds the file's lock.

        It tries the lock and gives it up immediately. A runner that comes in that instant finds the message
        busy, and takes it in its next pass. The kernel's list of locks cannot be used, since it does not show
        the processes of other containers.
        """
        from mailer.spool.flock import lock  # noqa: PLC0415 - listings find few messages in `cur/`, mostly none

        again = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return not lock(again)
        finally:
            os.close(again)

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Seen(msgspec.Struct, frozen=True):
    """A message as it was read."""

    spot: Spot
    entry: Entry | None
    """None if it cannot be read."""
    reason: str = ""
    """What is wrong with it; empty if nothing is."""
    changed: float = 0.0
    """When the file was last written or moved, in seconds since the epoch."""
    claimed: bool = False
    """Whether a runner holds it in `cur/`; if none does, the next run takes it over."""

    @property
    def id(self) -> str:
        return self.spot.name


def linked_outside(spool: Spool, view: View) -> str:
    """Return why no run takes a message whose file has a name outside of the spool; empty: it has none."""
    links = view.status.st_nlink
    if links < 2 or len(other_names(spool, view.spot.path, view.status)) >= links - 1:
        return ""
    if os.fstat(view.fd).st_nlink != links:
        return ""  # It was just moved on.
    return f"it has {links} links: a path outside of the spool names the same file"


def look(spool: Spool, spot: Spot) -> Seen | None:
    """Read the message at a spot; None if it was moved on.

    Raises:
        OSError: it cannot be read just now (EMFILE, EIO).
    """
    try:
        with View.open(spool, spot) as view:
            changed = view.status.st_ctime
            claimed = spot.place is Place.CUR and view.claimed()
            try:
                entry = view.entry()
                if spot.place is Place.CORRUPT:
                    # The envelope is readable, so the message itself was damaged: this raises the reason.
                    view.check(entry)
            except Corrupt as corrupt:
                return Seen(spot, None, str(corrupt), changed, claimed)
            reason = "it can be read now" if spot.place is Place.CORRUPT else linked_outside(spool, view)
            return Seen(spot, entry, reason, changed, claimed)
    except FileNotFoundError:
        return None
    except Corrupt as corrupt:
        return Seen(spot, None, str(corrupt))


def recipients_of(spool: Spool, spot: Spot, *, waiting: bool = False) -> tuple[str, ...]:
    """Return whom it concerns, for the log, that something happens to a message; empty: it cannot be read.

    These are the recipients that do not have the mail, or all if all have it.

    With `waiting` only those that are still to be tried are returned, if there are any.
    """
    try:
        seen = look(spool, spot)
    except OSError:
        return ()
    if seen is None or seen.entry is None:
        return ()
    state = seen.entry.state
    left = tuple(each.address for each in state.standings if each.status is not Status.SENT)
    to_try = tuple(each.address for each in state.open) if waiting else ()
    return to_try or left or tuple(state.by_address)


class Share(msgspec.Struct, frozen=True):
    """The messages that one of several processes lists."""

    number: int = 0
    of: int = 1
    """How many processes list one spool."""

    def among(self, names: Iterable[str]) -> Iterable[str]:
        """Yield the ids that are in the share, by their last character."""
        of, number = self.of, self.number
        return names if of == 1 else (name for name in names if ord(name[-1]) % of == number)


EVERYTHING = Share()


def listing(
    spool: Spool, now: float, places: Iterable[Place] = QUEUE, mine: Share = EVERYTHING
) -> Iterator[Seen]:
    """Yield every message in some places once, in no order; arguments and errors as for `join_scans`."""
    return join_scans(spool, now, places, lambda *_: None, mine)


_Peeked = TypeVar("_Peeked")

Peek = Callable[[int, Place, str], _Peeked | None]
"""Takes an open directory, its place and a file name in it; returns the file's data, without `look`."""


def join_scans(
    spool: Spool, now: float, places: Iterable[Place], peek: Peek[_Peeked], mine: Share
) -> Iterator[Seen | _Peeked]:
    """Yield every message in some places, each once, in no order.

    A single scan would miss messages that move from a place not yet scanned to one that was. So the first
    scan skips what was moved or written since it began, and a second one, of the directories that have
    changed, lists that. A message at rest costs eight bytes of memory, and one that moved its spot; nothing
    else is kept.

    A directory that has not changed since the scan began holds only messages that were in it all the time and
    were seen nowhere else. For these, `peek` need not report the time of change.

    Args:
        spool: the spool.
        now: seconds since the epoch.
        places: the places to list.
        peek: tried before `look` in directories at rest; if it returns None, `look` is used.
        mine: selects the messages to list.

    Raises:
        OSError: a directory cannot be read, or the error is one that every message would have (EMFILE).
    """
    places = tuple(places)
    began = now - _SLACK
    listed = array("q")
    moved: dict[int, Spot] = {}
    for place, bucket, directory, found in batches(spool, places):
        at_rest = os.fstat(directory).st_ctime < began
        for name in mine.among(found):
            if at_rest and (peeked := peek(directory, place, name)) is not None:
                listed.append(hash(name))
                yield peeked
                continue
            spot = Spot(place, name, bucket)
            seen = _look_all_the_same(spool, spot)
            if seen is None:
                continue
            if seen.changed >= began:
                moved[hash(name)] = spot
                continue
            listed.append(hash(name))
            yield seen
    moved |= {hash(spot.name): spot for spot in _moved_since(spool, places, began, mine)}
    for known in listed:
        moved.pop(known, None)
    for spot in moved.values():
        if seen := _look_all_the_same(spool, spot):
            yield seen


def _look_all_the_same(spool: Spool, spot: Spot) -> Seen | None:
    """Read a message as `look` does, but report an unreadable one (a bad sector) instead of raising."""
    try:
        return look(spool, spot)
    except OSError as error:
        if error.errno in SPOOL_WIDE:
            raise
        return Seen(spot, None, f"it cannot be read: {error.strerror}")


def _moved_since(spool: Spool, places: Iterable[Place], began: float, mine: Share) -> Iterator[Spot]:
    for place in places:
        for bucket in buckets(spool, place) if place in BUCKETED else [""]:
            directory = f"{place}/{bucket}" if bucket else place.value
            # A rename changes both directories. (*Measured: without this check of the directories, the
            # listing of a spool at rest takes a third longer.*)
            if _changed(spool, directory) >= began:
                for name in mine.among(names(spool, directory)):
                    spot = Spot(place, name, bucket)
                    if _changed(spool, spot.path) >= began:
                        yield spot


def _changed(spool: Spool, path: str) -> float:
    try:
        return os.stat(path, dir_fd=spool.root, follow_symlinks=False).st_ctime
    except FileNotFoundError:
        return 0.0
