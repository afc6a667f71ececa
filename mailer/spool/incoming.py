"""A message being received: a file in `tmp/`, locked from its creation until it is durable in `new/`."""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Self

from mailer.mail import clock
from mailer.mail.envelope import Envelope
from mailer.spool import journal
from mailer.spool.changes import NotUndone
from mailer.spool.directory import Spool
from mailer.spool.entry import LARGEST_BLOCK, LENGTH_WIDTH, Block, encode_block, with_length
from mailer.spool.flock import lock
from mailer.spool.ids import new_id
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import ONCE, Place, Spot, scheduled_bucket_for
from mailer.spool.renaming import rename_whole
from mailer.spool.syscalls import begin_writing, rename_exclusive, write_all
from mailer.spool.transitions import Move, target

if TYPE_CHECKING:
    from mailer.spool.key_file import KeyFile

_BUFFER = 128 * 1024
"""Bytes. A message up to this size reaches the kernel in one write; a longer one in pieces of it."""

# Without O_APPEND: with it, Linux would put the length at the end instead of in its place (pwrite(2), BUGS).
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Incoming:
    """Writes a message as it arrives, to be handed to the committer and then to `release` or `discard`.

    It is a `Change`, which the committer makes durable.
    """

    def __init__(self, spool: Spool, id: str, head: bytes) -> None:
        """Create the file for an encoded block; if this raises OSError, nothing was created."""
        self._spool = spool
        self._head = head
        self.id = id
        self._spot: Spot | None = (spot := Spot(Place.TMP, id))
        self._also = ""
        self._fd = _open_locked(spool, spot)
        self._digest = sha256()
        self._buffer = bytearray()
        self._flushed = False
        self._scheduled = 0.0
        self._at = ""
        """When the message was complete, as its journal says."""
        self.keys: list[KeyFile] = []
        """The locked files of its idempotency key and its drop, released together with the message."""
        self.size = 0
        """Bytes of the message so far."""

    @classmethod
    def create(cls, spool: Spool, *, received: float, user: str, peer: str, envelope: Envelope) -> Self:
        """Open a new file in `tmp/` under a fresh id.

        Args:
            spool: the spool to write to.
            received: the time of arrival, in seconds since the epoch.
            user: the authenticated user; empty if there was no login.
            peer: the client's address, for the operator.
            envelope: with each recipient once.

        Raises:
            OSError: as open(2), or E2BIG if readers would refuse the envelope; nothing was created.
            ValueError: a value has a control character; nothing was created.
        """
        block = Block(new_id(received), received, user, peer, envelope)
        head = encode_block(block)
        if len(head) > LARGEST_BLOCK:
            raise OSError(errno.E2BIG, "the envelope is too large", block.id)
        return cls(spool, block.id, head)

    def write(self, chunk: bytes | bytearray) -> None:
        """Append to the message; after an OSError only `discard` is allowed."""
        self._digest.update(chunk)
        self.size += len(chunk)
        if self._flushed and len(chunk) >= _BUFFER:
            self._flush()
            write_all(self._fd, chunk)
            return
        self._buffer += chunk
        if len(self._buffer) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        data = self._buffer if self._flushed else self._head + self._buffer
        self._buffer, self._flushed = bytearray(), True
        write_all(self._fd, data)

    def seal(  # noqa: PLR0913 - one for each field of the line
        self,
        at: float,
        about: str = "",
        *,
        scheduled: float = 0.0,
        expires: float = 0.0,
        boot: str = "",
        uptime: float = 0.0,
        replays: str = "",
        by: str = "",
    ) -> None:
        """Complete the file with its length and the `accepted` line; it is not durable yet.

        Args:
            at: now, in seconds since the epoch.
            about: the id of the message that this one is about, if we wrote it as a notification.
            scheduled: the time of the first attempt, in seconds since the epoch; 0 for immediately.
            expires: the time after which it is not to be delivered; 0 for no limit.
            boot: this boot's id; empty if not known.
            uptime: seconds on that boot's clock, which date the message if `at` is wrong.
            replays: the id of the message that this one is a copy of, for other recipients; empty if none.
            by: the operator that requested the copy.

        Raises:
            OSError: the file is incomplete; only `discard` is allowed.
        """
        head = with_length(self._head, self.size)
        self._at, self._scheduled = clock.rfc3339(at), scheduled
        accepted = Event(
            at=self._at,
            event=Kind.ACCEPTED,
            sha256=self._digest.hexdigest(),
            envelope=sha256(head).hexdigest(),
            boot=boot,
            uptime=round(uptime, 1),
            about=about,
            next=clock.rfc3339(scheduled) if scheduled else "",
            expires=clock.rfc3339(expires) if expires else "",
            once=" ".join(key.name for key in self.keys),
            replays=replays,
            by=by,
        )
        self._buffer += journal.encode(accepted)
        if self._flushed:
            written = os.pwrite(self._fd, head[-LENGTH_WIDTH:], len(head) - LENGTH_WIDTH)
            if written != LENGTH_WIDTH:
                raise OSError(errno.EIO, "the length was written in part", self.id)
        self._head = head
        self._flush()

    def begin_again(self) -> "Draft":
        """Return what was written so far, for reading, and start an empty message under the same id.

        The old file is unlinked first, so that no other program ever finds it.

        Returns:
            What was written; the caller closes it.

        Raises:
            OSError: only `discard` is allowed.
        """
        self._flush()
        os.unlink(Spot(Place.TMP, self.id).path, dir_fd=self._spool.root)
        fd = _open_locked(self._spool, Spot(Place.TMP, self.id))
        draft = Draft(self._fd, start=len(self._head), size=self.size, sha256=self._digest.digest())
        self._fd, self._digest, self._flushed, self.size = fd, sha256(), False, 0
        return draft

    def begin_sync(self) -> None:
        begin_writing(self._fd)

    def sync(self) -> None:
        os.fsync(self._fd)
        for key in self.keys:
            key.sync()

    def move(self) -> None:
        spot, moved = self._commit()
        # No program relies on the name in tmp/, so a plain rename is enough.
        try:
            rename_exclusive(self._spool.root, spot.path, moved.path)
        except FileNotFoundError:
            # The bucket does not exist yet, or a sweep has just found it empty and removed it.
            self._spool.make_directory(moved.directory)
            rename_exclusive(self._spool.root, spot.path, moved.path)
        self._spot = moved

    def move_whole(self) -> None:
        """Do as `move`, but keep the name in `tmp/`; call `leave` when the new name is durable."""
        spot, moved = self._commit()
        if rename_whole(self._spool, spot.path, moved.path):
            self._also = spot.path
        self._spot = moved

    def _commit(self) -> tuple[Spot, Spot]:
        spot = self._spot
        assert spot is not None
        place = target(Move.SCHEDULE if self._scheduled else Move.COMMIT, spot.place)
        assert place is not None
        return spot, Spot(place, spot.name, scheduled_bucket_for(self._scheduled) if self._scheduled else "")

    def leave(self) -> None:
        """Remove the name that `move_whole` left in `tmp/`; raises OSError."""
        if self._also:
            os.unlink(self._also, dir_fd=self._spool.root)
            self._also = ""

    def directories(self) -> tuple[str, ...]:
        spot = self._spot
        assert spot is not None
        # The bucket may be new, so its own name is synced first. Otherwise fsck could, after a power cut, put
        # the nameless bucket into lost+found, with an unexplained second name of the message in it.
        return (spot.place.value, spot.directory) if spot.bucket else (spot.directory,)

    def sources(self) -> tuple[str, ...]:
        """Record in the key files that it is durable; `tmp/` is synced within a second: see `Upload`."""
        for key in self.keys:
            key.accept(self.id, at=self._at)
        return (ONCE,) if self.keys else ()

    def undo(self) -> None:
        try:
            for key in self.keys:
                key.drop(at=self._at)
        except OSError as error:
            # The key file names the message as queued, and the next client gets that answer. It must stay.
            self.release()
            raise NotUndone(error.errno, error.strerror) from error
        try:
            self.discard()
        except OSError as error:
            raise NotUndone(error.errno, error.strerror) from error

    def discard(self) -> None:
        """Remove the file and give up its lock; a second call does nothing.

        Raises:
            OSError: it could not be removed. The lock is given up all the same; no program reads `tmp/`.
        """
        if self._spot is None:
            return
        spot, self._spot = self._spot, None
        try:
            os.unlink(spot.path, dir_fd=self._spool.root)
        except FileNotFoundError:
            # In tmp/, a missing file is what we want; in new/, a runner may have taken it already.
            if spot.place is not Place.TMP:
                raise
        finally:
            self._close()

    def release(self) -> None:
        """Give up the lock after the commit, so that runners may take it. A second call does nothing."""
        if self._spot is not None:
            self._spot = None
            self._close()

    def _close(self) -> None:
        os.close(self._fd)
        for key in self.keys:
            key.release()


def _open_locked(spool: Spool, spot: Spot) -> int:
    """Create a file in `tmp/` and lock it; after an OSError it does not exist."""
    fd = spool.create(spot, _FLAGS)
    try:
        # A sweep of tmp/ may have locked it first, to check its age. Without the lock, the sweep or a runner
        # could take the message before it is durable.
        if not lock(fd):
            raise BlockingIOError(errno.EAGAIN, "locked by a sweep", spot.name)
    except OSError:
        os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(spot.path, dir_fd=spool.root)
        raise
    return fd


class Draft:
    """A message as it was first written, in an unlinked file, to be read from its start."""

    def __init__(self, fd: int, *, start: int, size: int, sha256: bytes) -> None:
        """Take over a descriptor; the message is the `size` octets from `start` on, with this digest."""
        self._fd = fd
        self._start = start
        self._sha256 = sha256
        self.size = size
        self.rewind()

    def rewind(self) -> None:
        self._at = 0
        self._digest = sha256()

    def pieces(self, until: int) -> Iterator[bytes]:
        """Yield the message from where the last call stopped.

        Args:
            until: where to stop, in octets from the message's start.

        Raises:
            OSError: it cannot be read, or, once all of it was read, its digest differs.
        """
        while self._at < until:
            piece = os.pread(self._fd, min(_BUFFER, until - self._at), self._start + self._at)
            self._at += len(piece)
            self._digest.update(piece)
            # A failed write-back drops pages, and a read then returns older data (fsyncgate).
            if not piece or (self._at == self.size and self._digest.digest() != self._sha256):
                raise OSError(errno.EIO, "what was written cannot be read back")
            yield piece

    def close(self) -> None:
        os.close(self._fd)
