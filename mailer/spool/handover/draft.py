"""A file that the target of a handover is receiving."""

import os
from contextlib import suppress

from mailer.spool.directory import Spool
from mailer.spool.flock import lock
from mailer.spool.handover.wire import Offer
from mailer.spool.ids import new_id
from mailer.spool.layout import Place, Spot
from mailer.spool.syscalls import begin_writing, rename_exclusive, write_all
from mailer.spool.transitions import Move, target

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Draft:
    """A file that is being received: a `Change` that gives it its name in the queue."""

    def __init__(self, spool: Spool, offer: Offer, now: float) -> None:
        """Create the file in `tmp/`, locked; raises OSError."""
        self._spool = spool
        self._spot = Spot(Place.TMP, new_id(now))
        self.offer = offer
        self.trouble: OSError | None = None
        """The first error; the source learns of it in the answer to the batch."""
        self.is_undone = False
        self.size = 0
        self.fd = spool.create(self._spot, _FLAGS)
        if not lock(self.fd):
            self.discard()
            raise BlockingIOError("locked by a sweep")

    def write(self, data: bytes) -> None:
        """Append data. After an error, or beyond the size in the offer, data is discarded."""
        self.size += len(data)
        if self.trouble is None and self.size <= self.offer.size:
            try:
                write_all(self.fd, data)
            except OSError as error:
                self.trouble = error

    def begin_sync(self) -> None:
        begin_writing(self.fd)

    def sync(self) -> None:
        os.fsync(self.fd)

    def move(self) -> None:
        place = target(Move.ARRIVE_FAILED if self.offer.failed else Move.ARRIVE, self._spot.place)
        assert place is not None
        spot = Spot(place, self.offer.id)
        # No program relies on the name in tmp/, so a plain rename is enough.
        rename_exclusive(self._spool.root, self._spot.path, spot.path)
        self._spot = spot

    def directories(self) -> tuple[str, ...]:
        return (self._spot.directory,)

    def sources(self) -> tuple[str, ...]:
        return (Place.TMP.value,)

    def undo(self) -> None:
        """Remove the file durably; raises OSError if it may still be there."""
        os.unlink(self._spot.path, dir_fd=self._spool.root)
        self._spool.sync_directory(self._spot.directory)
        self.is_undone = True
        os.ftruncate(self.fd, 0)  # Frees its blocks for the rest of the batch at once.

    def discard(self) -> None:
        """Remove the file, if that is possible, and close it."""
        with suppress(OSError):
            os.unlink(self._spot.path, dir_fd=self._spool.root)
        self.close()

    def close(self) -> None:
        os.close(self.fd)
