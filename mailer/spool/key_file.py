"""The file of an idempotency key, in `once/`: which message was queued under the key.

It is named by a digest of its user and the key. It is a journal, which is started anew only while it names no
message that was accepted:

    {"at":"...","event":"begun","id":"01JD...","content":"..."}
    {"at":"...","event":"accepted","id":"01JD..."}

`idempotency` has the order in which these lines and the message are made durable.
"""

import errno
import os
import stat
from contextlib import suppress
from hashlib import sha256
from typing import Self

import msgspec

from mailer.mail import clock
from mailer.spool.directory import Spool
from mailer.spool.flock import lock
from mailer.spool.layout import FILE_MODE, ONCE, Place, is_scheduled
from mailer.spool.scan import QUEUE, buckets, find
from mailer.spool.syscalls import read_at, sync_filesystem, write_all

FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST = 64 * 1024
"""Octets of a key's file that are read; such a file has about 500 at most."""
_TRIES = 100
"""How often in a row a key's file may be removed, as too old, between being opened and locked."""
ABSENT = {errno.ENOENT, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO}
"""Errors that mean that the key has no file (it was too old, or the entry is not ours): no mail waits for
it."""
_NAME = frozenset("0123456789abcdef")
OF_DROP = "drop-"
_FEW = 8
"""Directories up to this number are synced one by one; for more, the whole filesystem is synced."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a key's file."""

    at: str
    event: str
    id: str
    content: str = ""
    """In `begun`: the digest that identifies the same mail when it is submitted again."""


BEGUN, ACCEPTED, DROPPED = "begun", "accepted", "dropped"
"""`dropped` follows an `accepted` that could not be made durable; the message is about to be removed."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)


class InUse(Exception):
    """Another session is receiving a message under this key."""


class Known(msgspec.Struct, frozen=True):
    """The state that a key's file folds to."""

    id: str = ""
    """The id of its message; empty if there is none."""
    content: str = ""
    accepted: bool = False
    """If false, the message was begun, and its receiver may have died before or after it was queued."""


def name_of(user: str, peer: str, key: str) -> str:
    """Return the name of a key's file: each user, or without a login each address, has its own keys."""
    whose = f"user\0{user}" if user else f"peer\0{peer}"
    return sha256(f"{whose}\0{key}".encode()).hexdigest()


def name_of_drop(uid: int, name: str) -> str:
    """Return the file name for mail from `drop/`; the drop itself is the key."""
    return OF_DROP + sha256(f"{uid}\0{name}".encode()).hexdigest()


def name_of_import(queue: str, name: str, content: bytes) -> str:
    """Return the file name for mail imported from another relay's queue; the mail itself is the key."""
    digest = sha256(content).hexdigest()
    return (
        OF_DROP + sha256(f"import\0{queue}\0{name}\0{digest}".encode("utf-8", "surrogateescape")).hexdigest()
    )


def name_of_replay(key: str) -> str:
    """Return the file name for a message that is sent again by a request that may come twice."""
    return OF_DROP + sha256(f"replay\0{key}".encode("utf-8", "surrogateescape")).hexdigest()


def name_of_move(move: str) -> str:
    """Return the file name for a message that another spool has handed over; the handover is the key."""
    return OF_DROP + sha256(f"move\0{move}".encode()).hexdigest()


class KeyFile:
    """A key's file, locked."""

    def __init__(self, spool: Spool, name: str, fd: int) -> None:
        """Take over a descriptor; after an OSError it is closed."""
        self._spool = spool
        self.name = name
        self._fd = fd
        try:
            self.known = read_key(fd)
        except OSError:
            self.release()
            raise

    @classmethod
    def lock(cls, spool: Spool, name: str) -> Self:
        """Lock the file of a key, and create it if it does not exist.

        Raises:
            InUse: another session holds it.
            OSError: it cannot be opened, created or locked.
        """
        for _ in range(_TRIES):
            fd = open_key(spool, name, create=True)
            locked = lock(fd)
            if locked and os.fstat(fd).st_nlink:
                return cls(spool, name, fd)
            os.close(fd)
            if not locked:
                raise InUse(name)
        raise OSError(errno.EAGAIN, "it was removed each time it was created", f"{ONCE}/{name}")

    def settle(self) -> None:
        """Determine whether a begun message was queued, in case its receiver died.

        Raises:
            OSError: this cannot be determined, or the result (queued or not) cannot be made durable.
        """
        if self.known.id and not self.known.accepted:
            if spots := find(self._spool, self.known.id, (*QUEUE, Place.SENT)):
                self.confirm(spots[0].directory)
                return
            # A runner that took the message meanwhile recorded `accepted` before the message left the spool.
            self.known = read_key(self._fd)
            if not self.known.accepted:
                self._keep_out()
                self.known = Known()

    def _keep_out(self) -> None:
        """Make durable that the message is not in the spool; raises OSError.

        Its receiver may have just removed it after a failed commit. Unless the removal is durable, a power
        cut could bring it back, in addition to the message that is queued in its place.
        """
        spool = self._spool
        scheduled = [f"{Place.RETRY}/{name}" for name in buckets(spool, Place.RETRY) if is_scheduled(name)]
        if len(scheduled) > _FEW and sync_filesystem(spool.root):
            return
        # retry/ last, which makes the removal of a bucket by a sweep durable, too.
        for directory in (Place.NEW, *scheduled, Place.RETRY):
            spool.sync_directory(directory)

    def confirm(self, directory: str) -> None:
        """Do what the receiver of a begun message left undone; raises OSError.

        Args:
            directory: where its message is; that name may not be durable yet.
        """
        self._spool.sync_directory(directory)
        if parent := directory.rpartition("/")[0]:
            self._spool.sync_directory(parent)
        self.accept(self.known.id, at=clock.rfc3339(os.fstat(self._fd).st_mtime))
        self._spool.sync_directory(ONCE)

    def begin(self, id: str, content: str, *, at: float) -> None:
        """Record the message that is about to be queued, in place of any other; raises OSError."""
        # Truncated, so that the file stays short however often this fails.
        os.ftruncate(self._fd, 0)
        self._append(Line(clock.rfc3339(at), BEGUN, id, content))
        self.known = Known(id, content)

    def sync(self) -> None:
        """Make the line of `begin` durable before the message is; raises OSError."""
        os.fsync(self._fd)
        self._spool.sync_directory(ONCE)

    def accept(self, id: str, *, at: str) -> None:
        """Record that the message is durable in the spool, and make that durable; raises OSError.

        The file's name is durable when `once/` was synced.
        """
        # Set first: a write that fails may have written the whole line except for its end.
        self.known = msgspec.structs.replace(self.known, accepted=True)
        self._append(Line(at, ACCEPTED, id))
        os.fsync(self._fd)

    def drop(self, *, at: str) -> None:
        """Revoke `accept` before the message is removed; after an OSError `accepted` stands."""
        if self.known.accepted:
            self._append(Line(at, DROPPED, self.known.id))
            os.fsync(self._fd)
            self.known = msgspec.structs.replace(self.known, accepted=False)

    def _append(self, line: Line) -> None:
        torn = (size := os.fstat(self._fd).st_size) and os.pread(self._fd, 1, size - 1) != b"\n"
        write_all(self._fd, b"\n" * bool(torn) + _encoder.encode(line) + b"\n")

    def release(self) -> None:
        """Give up the lock; a second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def is_name(name: str) -> bool:
    digest = name.removeprefix(OF_DROP)
    return len(digest) == sha256().digest_size * 2 and _NAME.issuperset(digest)


def open_key(spool: Spool, name: str, *, create: bool) -> int:
    flags, path = FLAGS | (os.O_CREAT if create else 0), f"{ONCE}/{name}"
    try:
        fd = os.open(path, flags, FILE_MODE, dir_fd=spool.root)
    except FileNotFoundError:
        if not create:
            raise
        # This is the spool's first key.
        if spool.make_directory(ONCE):
            os.fsync(spool.root)
        fd = os.open(path, flags, FILE_MODE, dir_fd=spool.root)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
        os.close(fd)
        raise OSError(errno.EPERM, "it is not a file of this user, or has several names: move it away", path)
    return fd


def read_key(fd: int) -> Known:
    """Fold the lines of an open key's file; raises OSError."""
    known = Known()
    for text in read_at(fd, _MOST, 0).splitlines():
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            line = _decoder.decode(text)
            if line.event == BEGUN:
                known = Known(line.id, line.content)
            elif line.event == ACCEPTED and line.id == known.id:
                known = msgspec.structs.replace(known, accepted=True)
            elif line.event == DROPPED and line.id == known.id:
                # As with `begun`, the receiver may have died before it removed the message.
                known = msgspec.structs.replace(known, accepted=False)
    return known
