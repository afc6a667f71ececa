"""Claiming messages: what a runner may hold, and what happens to what it may not.

`Claims` is the runner's view of the spool. Whatever it returns is locked, readable and verified against its
digests; whatever it meets on the way that is not goes where it belongs.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.spool.entry import Corrupt, Entry
from mailer.spool.held import Held, Missed, Unsafe, quarantine
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import SPOOL_WIDE, Place, Spool, Spot
from mailer.spool.names import is_met_earlier
from mailer.spool.notice import finish
from mailer.spool.transitions import Move, target

SUSPECT_AFTER = 2
"""A message that was recovered this often is tried alone: innocents beside it must not be blamed."""
POISON_AFTER = 3
"""Runners that died alone with a message before it is held."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A message in a runner's hands."""

    held: Held
    entry: Entry
    recovered: bool = False

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def suspect(self) -> bool:
        """It was in hand when runners died: try it with nothing beside it."""
        return self.entry.state.recoveries >= SUSPECT_AFTER

    @property
    def poison(self) -> bool:
        """Runners died of it alone: hold it."""
        return self.entry.state.deaths_alone >= POISON_AFTER


Report = Callable[[Spot, str], None]


class Claims:
    """Takes messages out of `new/`, and over from dead runners."""

    def __init__(self, spool: Spool, clock: Clock, boot: str, on_quarantine: Report, on_skip: Report) -> None:
        """Look at a spool as one runner.

        Args:
            spool: where the messages are.
            clock: what time it is.
            boot: this boot's id (`boot_id`).
            on_quarantine: told about each file that was moved to `corrupt/`, and why.
            on_skip: told about each file that was left alone because it may be in another's use.
        """
        self._spool = spool
        self._clock = clock
        self._boot = boot
        self._on_quarantine = on_quarantine
        self._on_skip = on_skip

    def take(self, name: str) -> Claim | None:
        """Claim a message from `new/`; None when it is not to be had, or not to be sent.

        Raises:
            OSError: the spool cannot be worked with (read-only, full, out of descriptors); the message is in
                `new/`, or in `cur/` for the next recovery.
        """
        spot = Spot(Place.NEW, name)
        held = self._lock(spot)
        if held is None:
            return None
        try:
            if self._move(held, Move.CLAIM):
                return self._read(held, recovered=False)
        except BaseException:
            held.release()
            raise
        held.release()
        return None

    def recover(self, name: str) -> Claim | None:
        """Take over a message in `cur/` whose runner died; None when its runner lives.

        Raises:
            OSError: as `take`.
        """
        held = self._lock(Spot(Place.CUR, name))
        if held is None:
            return None
        try:
            # Before anything is parsed: if the parsing kills us, the next one must know that we tried.
            held.append(Event(at=self._now(), event=Kind.RECOVERED, boot=self._boot))
            return self._read(held, recovered=True)
        except BaseException:
            held.release()
            raise

    def mark_alone(self, claim: Claim) -> None:
        """Record that from here on this message is the only one in hand; raises OSError."""
        claim.held.append(Event(at=self._now(), event=Kind.ALONE, boot=self._boot))

    def requeue_due(self, spot: Spot) -> bool:
        """Move a message from a due bucket to `new/`; tell whether it was moved.

        Trouble with this file alone is reported, and it stays where it was.

        Raises:
            OSError: the spool cannot be worked with.
        """
        try:
            held = self._lock(spot)
            if held is None:
                return False
            with held:
                return self._move(held, Move.REQUEUE)
        except OSError as error:
            if error.errno in SPOOL_WIDE:
                raise
            self._on_skip(spot, f"it cannot be moved to new/: {error.strerror}")
            return False

    def quarantine(self, claim: Claim, reason: str) -> None:
        """Put a claimed message away as unreadable; raises OSError."""
        self._put_away(claim.held, reason)

    def _now(self) -> str:
        return clock.rfc3339(self._clock())

    def _lock(self, spot: Spot) -> Held | None:
        try:
            held = Held.take(self._spool, spot)
        except Missed:
            return None
        except Unsafe as unsafe:
            if unsafe.movable:
                self._quarantine_by_name(spot, str(unsafe))
            else:
                self._on_skip(spot, str(unsafe))
            return None
        if is_met_earlier(spot.place, held.also):
            held.release()
            return None
        return held

    def _move(self, held: Held, move: Move) -> bool:
        """Move a file; False: it stays, for a reason that is its own and says nothing about the spool."""
        spot = held.spot
        try:
            held.move(move)
        except FileExistsError:
            # Somebody's cp: whichever of the two is the message, the other must not be sent as well.
            self._on_skip(spot, f"the same id is already in {target(move, spot.place)}/")
            return False
        return True

    def _quarantine_by_name(self, spot: Spot, reason: str) -> None:
        try:
            quarantine(self._spool, spot)
        except (FileNotFoundError, FileExistsError) as error:
            self._on_skip(spot, f"{reason}; it cannot be moved to corrupt/: {error.strerror}")
        else:
            self._on_quarantine(spot, reason)

    def _read(self, held: Held, *, recovered: bool) -> Claim | None:
        try:
            entry = held.read(boot=self._boot)
            held.check(entry)
            finish(held, entry.state, recovered=recovered)
        except Corrupt as corrupt:
            self._put_away(held, str(corrupt))
            return None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # A bad sector under one message must not stop the others.
            self._on_skip(held.spot, f"it cannot be read: {error.strerror}")
            held.release()
            return None
        return Claim(held, entry, recovered)

    def _put_away(self, held: Held, reason: str) -> None:
        spot = held.spot
        with held:
            moved = self._move(held, Move.QUARANTINE)
        if moved:
            self._on_quarantine(spot, reason)


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return this boot's id; empty where the kernel tells none."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
