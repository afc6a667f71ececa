"""Used and reserved amounts of budgets: `state/budget-*.json`, one for each account or group of domains.

A run reserves before it sends: the reservation is durable (file, then directory) before its first transaction
begins. What a run has used, and what it returns, is written later, with its next reservation or within some
seconds. This has the following consequences:

- A run that is killed leaves a reservation, and a lock that is free (`state/budget-run-*`, held for as long
as
  the run lasts). Another run that finds too little left detects it, and counts the whole reservation as used
  at that instant.
- A power cut loses at most the last update of what was used and returned. That amount is still recorded as
  reserved, and counts as used when the next boot began. The error is toward sending less: by what one run
  reserves (a hundredth of an allowance), for one window.
- A file whose content makes no sense counts as a budget that was used up a moment ago, and is replaced. A
file
  that the system does not let us read (permissions, a bad sector, no descriptors) stays, and nothing is
  reserved until it can be read. A missing file counts as unused, so that `rm` resets the budget.

Where several hosts share a directory, each has a record of its own, and reads those of the others before it
reserves. Two hosts that reserve at the same moment do not see each other yet: so all together may exceed an
allowance by what one run reserves, for each host but one.

The file is read for a change, and replaced, only under the lock `budget-*.lock`. A program that is stopped
(SIGSTOP) while it holds the lock keeps others from reserving: their mail waits.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from time import sleep

import msgspec
from msgspec.structs import replace

from mailer.mail import budget
from mailer.mail.budget import Allowance, Room, Use
from mailer.mail.clock import Reading
from mailer.spool.directory import Spool
from mailer.spool.layout import FILE_MODE, STATE
from mailer.spool.state import small_files

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_RUN = "budget-run-"
_STEP, _STEPS = 0.01, 500
"""Seconds between two attempts to get a lock, which is held for one fsync; and the number of attempts."""


class Unavailable(OSError):
    """The record of a budget cannot be used now: nothing may be sent, and the record is not replaced."""


def file_name(of: str) -> str:
    """Return the name of a budget's file, without its suffix."""
    from hashlib import sha256  # noqa: PLC0415 - loads OpenSSL, 4 ms, and many hosts have no budget

    return f"budget-{sha256(of.encode()).hexdigest()[:16]}"


class Holder:
    """A run as budgets know it: a name, and a lock that becomes free when the run dies."""

    def __init__(self, spool: Spool) -> None:
        """Create the lock, and remove those of dead runs; raises OSError."""
        self._spool = spool
        self.name = f"{_RUN}{os.urandom(8).hex()}"
        with spool.directory(STATE) as directory:
            with os.scandir(directory) as entries:
                known = [entry.name for entry in entries if entry.name.startswith(_RUN)]
            for name in known:
                _is_dead(directory, name)
            # Made under a dotted name, so that no run takes it for a dead one before it is locked.
            temporary = f".{self.name}"
            self._fd = os.open(temporary, _FLAGS | os.O_CREAT | os.O_EXCL, FILE_MODE, dir_fd=directory)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            os.rename(temporary, self.name, src_dir_fd=directory, dst_dir_fd=directory)

    def close(self) -> None:
        """End the run; what it still has reserved counts as used."""
        with contextlib.suppress(OSError), self._spool.directory(STATE) as directory:
            os.unlink(self.name, dir_fd=directory)
        os.close(self._fd)


def _is_dead(directory: int, holder: str) -> bool:
    """Return whether a run is dead, and remove its lock if so."""
    if not holder.startswith(_RUN) or "/" in holder:
        return True
    try:
        fd = os.open(holder, _FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(holder, dir_fd=directory)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)


class BudgetFile:
    """One budget's record. Its methods may be called in any thread, but not concurrently."""

    def __init__(
        self,
        spool: Spool,
        of: str,
        allowance: Allowance,
        read: Callable[[], Reading],
        trusts: Callable[[], bool],
    ) -> None:
        """Prepare.

        Args:
            spool: the spool.
            of: the provider's account, or the domains.
            allowance: the budget's limits.
            read: reads the clocks.
            trusts: returns whether the wall clock is believed.
        """
        self.of = of
        self.allowance = allowance
        self._spool = spool
        self._name = file_name(of)
        self._read = read
        self._trusts = trusts

    def look(self) -> Room:
        """Return what is left, without taking the lock.

        Reservations of dead runs are not counted as used here, and a record that makes no sense is not
        replaced. If nothing is left for one of these reasons, the result says to ask again now, with `take`,
        which does both; otherwise mail would wait for as long as the record stays.
        """
        reading = self._read()
        try:
            use, makes_sense = _read(self._spool, self.of, reading, trusted=self._trusts())
        except OSError:
            use, makes_sense = _all_used(self.of, reading), True
        left_over = budget.room(self.allowance, self._of_all_hosts(use, reading), reading.uptime)
        if left_over.free or (makes_sense and not self._any_dead(use)):
            return left_over
        return replace(left_over, at=reading.uptime)

    def _any_dead(self, use: Use) -> bool:
        with contextlib.suppress(OSError), self._spool.directory(STATE) as directory:
            return any(_is_dead(directory, name) for name in use.held)
        return False

    def reserve(
        self, holder: str, want: int, used: Sequence[tuple[float, int]], left: int
    ) -> tuple[int, Room]:
        """Reserve up to `want`, durably, and record what was used.

        Args:
            holder: the run's name.
            want: the most to reserve.
            used: the times and amounts that the run has used.
            left: what it still has reserved.

        Returns:
            How many were reserved in addition, and what was left before.

        Raises:
            OSError: nothing was reserved or recorded.
        """
        with self._locked() as directory:
            reading = self._read()
            now = reading.uptime
            before = self._load(reading)
            use = budget.settled(before, holder, used, left)
            left_over = budget.room(self.allowance, self._of_all_hosts(use, reading), now)
            if left_over.free < want:
                dead = [name for name in use.held if name != holder and _is_dead(directory, name)]
                use = budget.forfeited(use, dead, now)
                if dead:
                    left_over = budget.room(self.allowance, self._of_all_hosts(use, reading), now)
            granted = min(want, left_over.free)
            if granted:
                use = budget.reserved(self.allowance, use, holder, granted, now)
            if (use.held, use.used) != (before.held, before.used):
                self._write(use)
                if granted:
                    os.fsync(directory)
        return granted, left_over

    def put(self, holder: str, used: Sequence[tuple[float, int]], left: int) -> None:
        """Record what a run has used, and that it now has `left` reserved; raises OSError."""
        with self._locked():
            self._write(budget.settled(self._load(self._read()), holder, used, left))

    def _of_all_hosts(self, use: Use, reading: Reading) -> Use:
        return _with_others(self._spool, use, self.of, reading, trusted=self._trusts())

    def _load(self, reading: Reading) -> Use:
        try:
            use, makes_sense = _read(self._spool, self.of, reading, trusted=self._trusts())
        except OSError as error:
            path = self._spool.path / STATE / f"{self._name}.json"
            reason = f"what was used of the budget of {self.of} cannot be read: {path}: {error.strerror}"
            raise Unavailable(reason) from error
        if not makes_sense:
            self._write(use)
        return use

    def _write(self, use: Use) -> None:
        small_files.replace(self._spool, f"{self._name}.json", msgspec.json.encode(use) + b"\n")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        with self._spool.directory(STATE) as directory:
            fd = os.open(f"{self._name}.lock", _FLAGS | os.O_CREAT, FILE_MODE, dir_fd=directory)
            try:
                _lock(fd, self.of)
                yield directory
            finally:
                os.close(fd)


def _lock(fd: int, of: str) -> None:
    for _ in range(_STEPS):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sleep(_STEP)
    raise Unavailable(f"another program keeps the lock of the budget of {of}")


def load(spool: Spool, of: str, reading: Reading, *, trusted: bool) -> Use:
    """Read what all hosts have used of a budget, brought forward to `reading`; if unreadable, all of it."""
    try:
        use = _read(spool, of, reading, trusted=trusted)[0]
    except OSError:
        return _all_used(of, reading)
    return _with_others(spool, use, of, reading, trusted=trusted)


def _with_others(spool: Spool, use: Use, of: str, reading: Reading, *, trusted: bool) -> Use:
    """Add what the other hosts have used, if several share a directory; what is unreadable is left out."""
    if not spool.is_shared:
        return use
    from mailer.spool.hosts.neighbours import states  # noqa: PLC0415 - most hosts share nothing

    found: list[Use] = []
    for data in states(spool, f"{file_name(of)}.json"):
        with contextlib.suppress(ValueError, RecursionError):
            other = msgspec.json.decode(data, type=Use)
            found.append(budget.elsewhere(other, reading, trusted=trusted))
    return budget.together(use, found)


def _read(spool: Spool, of: str, reading: Reading, *, trusted: bool) -> tuple[Use, bool]:
    """Return what was used, and whether the record makes sense; raises OSError if it cannot be read."""
    data = small_files.read_last(spool, f"{file_name(of)}.json")
    try:
        use = Use() if data is None else msgspec.json.decode(data, type=Use)
        return replace(budget.brought_forward(use, reading, trusted=trusted), of=of), True
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors.
        return _all_used(of, reading), False


def _all_used(of: str, reading: Reading) -> Use:
    return budget.brought_forward(
        Use(of=of, used=((reading.uptime, budget.UNKNOWN),)), reading, trusted=False
    )
