"""Mail that is queued once however often it is submitted: the files of `once/`, one for each idempotency key.

A key's file is named by a digest of its user and the key. It is a journal, which begins anew only while it
names no message that was accepted:

    {"at":"...","event":"begun","id":"01JD...","content":"..."}
    {"at":"...","event":"accepted","id":"01JD..."}

The receiver that has a message under a key locks the key's file, as it does a message's, and does in this
order:

1. `begun` names the message's id, durably, before the message is renamed into `new/`;
2. the message is durable in `new/`;
3. `accepted` is written and made durable, while the message's lock is still held;
4. the client gets its 250, and both locks are given up.

After a death between 1 and 3 the file says `begun`. Then the message was accepted if and only if it is in the
spool. The runner that claims it does step 3 for it (`confirm`) before it tries the message. Before the key
names another message, it is made durable that this one is not there (`settle`).
"""

import errno
import os
import stat
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from typing import Self

import msgspec

from mailer.mail import clock
from mailer.spool.due import SWEEP_EVERY, SWEPT, is_older
from mailer.spool.layout import FILE_MODE, ONCE, Place, Spool, is_scheduled
from mailer.spool.lock import lock
from mailer.spool.locked import LockedMessage
from mailer.spool.scan import QUEUE, buckets, find
from mailer.spool.syscalls import read_at, sync_filesystem, write_all

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST = 64 * 1024
"""Octets of a key's file that are read; it has some 500 at most."""
_TRIES = 100
"""How often a key's file may be removed, as too old, between being opened and locked."""
_ABSENT = {errno.ENOENT, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO}
"""The key has no file: it was too old, or the entry is not ours. No mail waits for it."""
_NAME = frozenset("0123456789abcdef")
_OF_DROP = "drop-"
_DROP_KEPT = 30 * 86_400.0
"""Seconds for which a drop is known to have been taken in, if nobody could remove it since; the window that
is configured is for keys."""
_FEW = 8
"""Directories that are synced one by one. For more the whole filesystem is."""
_AT_ONCE = 1000
"""Keys that one sweep forgets, at most; the next one goes on. Mail must not wait for it."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a key's file."""

    at: str
    event: str
    id: str
    content: str = ""
    """With `begun`: the digest by which the same mail is known again."""


BEGUN, ACCEPTED, DROPPED = "begun", "accepted", "dropped"
"""`dropped`: after `accepted`, which could not be made durable; the message is about to be removed."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)


class InUse(Exception):
    """Another session is taking a message under this key at this moment."""


class Known(msgspec.Struct, frozen=True):
    """What a key's file says."""

    id: str = ""
    """Of its message; empty: it has none."""
    content: str = ""
    accepted: bool = False
    """Else the message was begun, and its receiver may have died before or after it was queued."""


def name_of(user: str, peer: str, key: str) -> str:
    """Name the file of a key: each user has keys of its own; without a login, each address."""
    whose = f"user\0{user}" if user else f"peer\0{peer}"
    return sha256(f"{whose}\0{key}".encode()).hexdigest()


def name_of_drop(uid: int, name: str) -> str:
    """Name the file of mail that is taken in from `drop/`, which is its own key."""
    return _OF_DROP + sha256(f"{uid}\0{name}".encode()).hexdigest()


def name_of_import(queue: str, name: str, content: bytes) -> str:
    """Name the file of mail that is imported from another relay's queue, which is its own key."""
    digest = sha256(content).hexdigest()
    return (
        _OF_DROP + sha256(f"import\0{queue}\0{name}\0{digest}".encode("utf-8", "surrogateescape")).hexdigest()
    )


def forget(spool: Spool, name: str) -> None:
    """Remove a key's file, after what it is the key of cannot come again; raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(f"{ONCE}/{name}", dir_fd=spool.root)


class KeyFile:
    """A key's file, locked."""

    def __init__(self, spool: Spool, name: str, fd: int) -> None:
        """Take over a descriptor; raises OSError, and then it is closed."""
        self._spool = spool
        self.name = name
        self._fd = fd
        try:
            self.known = _fold(read_at(fd, _MOST, 0))
        except OSError:
            self.release()
            raise

    @classmethod
    def take(cls, spool: Spool, name: str) -> Self:
        """Lock the file of a key, which is made if it is not there.

        Raises:
            InUse: somebody else holds it.
            OSError: it cannot be had.
        """
        for _ in range(_TRIES):
            fd = _open(spool, name, create=True)
            locked = lock(fd)
            if locked and os.fstat(fd).st_nlink:
                return cls(spool, name, fd)
            os.close(fd)
            if not locked:
                raise InUse(name)
        raise OSError(errno.EAGAIN, "it is removed as often as it is made", f"{ONCE}/{name}")

    def settle(self) -> None:
        """Find out whether a message that was begun was queued, if a receiver has died with it.

        Raises:
            OSError: it cannot be found out, or not be made durable, also that it was not.
        """
        if self.known.id and not self.known.accepted:
            if spots := find(self._spool, self.known.id, (*QUEUE, Place.SENT)):
                self.confirm(spots[0].directory)
                return
            # A runner that took it meanwhile has recorded it before it left.
            self.known = _fold(read_at(self._fd, _MOST, 0))
            if not self.known.accepted:
                self._keep_out()
                self.known = Known()

    def _keep_out(self) -> None:
        """Make durable that the message is not in the spool; raises OSError.

        Its receiver may have removed it a moment ago, for a commit that failed. A power cut would bring it
        back, beside the one that is queued in its place.
        """
        spool = self._spool
        scheduled = [f"{Place.RETRY}/{name}" for name in buckets(spool, Place.RETRY) if is_scheduled(name)]
        if len(scheduled) > _FEW and sync_filesystem(spool.root):
            return
        # retry/ last: a bucket that a sweep has removed is durably gone then.
        for directory in (Place.NEW, *scheduled, Place.RETRY):
            spool.sync_directory(directory)

    def confirm(self, directory: str) -> None:
        """Do what the receiver of a message that was begun has left undone; raises OSError.

        Args:
            directory: where its message is. That may be in memory only.
        """
        self._spool.sync_directory(directory)
        if parent := directory.rpartition("/")[0]:
            self._spool.sync_directory(parent)
        self.accept(self.known.id, at=clock.rfc3339(os.fstat(self._fd).st_mtime))
        self._spool.sync_directory(ONCE)

    def begin(self, id: str, content: str, *, at: float) -> None:
        """Name the message that is about to be queued; no other is known. Raises OSError."""
        # However often this fails, the file stays short.
        os.ftruncate(self._fd, 0)
        self._append(Line(clock.rfc3339(at), BEGUN, id, content))
        self.known = Known(id, content)

    def sync(self) -> None:
        """Make durable what `begin` wrote, before the message is; raises OSError."""
        os.fsync(self._fd)
        self._spool.sync_directory(ONCE)

    def accept(self, id: str, *, at: str) -> None:
        """Record that the message is durable in the spool, and make that durable; raises OSError.

        The file's name is durable when `once/` was synced.
        """
        # A write that fails may have written the whole line, but for its end.
        self.known = msgspec.structs.replace(self.known, accepted=True)
        self._append(Line(at, ACCEPTED, id))
        os.fsync(self._fd)

    def drop(self, *, at: str) -> None:
        """Take `accept` back, before the message is removed; raises OSError, and then it stands."""
        if self.known.accepted:
            self._append(Line(at, DROPPED, self.known.id))
            os.fsync(self._fd)
            self.known = msgspec.structs.replace(self.known, accepted=False)

    def _append(self, line: Line) -> None:
        torn = (size := os.fstat(self._fd).st_size) and os.pread(self._fd, 1, size - 1) != b"\n"
        write_all(self._fd, b"\n" * bool(torn) + _encoder.encode(line) + b"\n")

    def release(self) -> None:
        """Give the lock up; a second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def confirm(locked: LockedMessage, names: str) -> None:
    """Make sure that its keys' files say that a message was accepted, before that can leave the spool.

    Args:
        locked: the message; its lock is ours, so its receiver has done so, or is dead.
        names: of the files, as the message's journal has them; empty: it came without a key.

    Raises:
        OSError: it cannot be recorded; the message must stay in the spool.
    """
    for name in names.split():
        if _is_name(name):
            _confirm(locked, name)


def _confirm(locked: LockedMessage, name: str) -> None:
    try:
        fd = _open(locked.spool, name, create=False)
    except OSError as error:
        if error.errno in _ABSENT:
            return
        raise
    file = KeyFile(locked.spool, name, fd)
    try:
        if file.known.id == locked.id and not file.known.accepted:
            file.confirm(locked.spot.directory)
    finally:
        file.release()


def forget_old(spool: Spool, now: float, window: float) -> int:
    """Remove the files of keys that are more than `window` seconds old; look once an hour.

    Args:
        spool: where.
        now: seconds since the epoch, by a clock that is believed.
        window: seconds.

    Returns:
        How many were removed.

    Raises:
        OSError: the spool cannot be worked with.
    """
    try:
        with spool.directory(ONCE) as directory:
            if not is_older(directory, SWEPT, now, SWEEP_EVERY):
                return 0
            with os.scandir(directory) as entries:
                old = (
                    e.name for e in entries if _is_name(e.name) and _forget(directory, e.name, now, window)
                )
                count = sum(1 for _ in islice(old, _AT_ONCE))
            if count < _AT_ONCE:
                _touch(directory, now)
            return count
    except FileNotFoundError:
        return 0


def _forget(directory: int, name: str, now: float, window: float) -> bool:
    """Remove a key's file if it is old; what cannot be removed stays, and stops no other."""
    if name.startswith(_OF_DROP):
        window = max(window, _DROP_KEPT)
    try:
        if not is_older(directory, name, now, window):
            return False
        fd = os.open(name, _FLAGS, dir_fd=directory)
    except OSError:
        return False
    try:
        # A receiver that has just opened it sees, once it has the lock, that it has no name any more.
        if not lock(fd) or not is_older(directory, name, now, window):
            return False
        os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _touch(directory: int, now: float) -> None:
    """Note that all was looked at; where that cannot be noted, all is looked at again."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(OSError):
        fd = os.open(SWEPT, flags, FILE_MODE, dir_fd=directory)
        try:
            os.utime(fd, (now, now))
        finally:
            os.close(fd)


def _is_name(name: str) -> bool:
    digest = name.removeprefix(_OF_DROP)
    return len(digest) == sha256().digest_size * 2 and _NAME.issuperset(digest)


def _open(spool: Spool, name: str, *, create: bool) -> int:
    flags, path = _FLAGS | (os.O_CREAT if create else 0), f"{ONCE}/{name}"
    try:
        fd = os.open(path, flags, FILE_MODE, dir_fd=spool.root)
    except FileNotFoundError:
        if not create:
            raise
        # The first key that this spool has seen.
        if spool.make_directory(ONCE):
            os.fsync(spool.root)
        fd = os.open(path, flags, FILE_MODE, dir_fd=spool.root)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
        os.close(fd)
        raise OSError(errno.EPERM, "it is not a file of ours: move it away", path)
    return fd


def _fold(data: bytes) -> Known:
    known = Known()
    for text in data.splitlines():
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            line = _decoder.decode(text)
            if line.event == BEGUN:
                known = Known(line.id, line.content)
            elif line.event == ACCEPTED and line.id == known.id:
                known = msgspec.structs.replace(known, accepted=True)
            elif line.event == DROPPED and line.id == known.id:
                # As after `begun`: its receiver may have died before it removed the message.
                known = msgspec.structs.replace(known, accepted=False)
    return known
