"""What was used of budgets, in `state/budget-*.json`: one file for each provider's account, or for domains.

A run reserves before it sends: the reservation is durable (file, then directory) before the first transaction
that it is for begins. What a run has used, and gives back, is written later, together with its next
reservation or within some seconds. So

- a run that is killed leaves a reservation, and a lock that is free (`state/budget-run-*`, held for as long
  as the run lasts). Others who run short find it, and count all of it as used at that instant;
- a power cut loses at most what was written last of what is used and given back. That stands there as
  reserved, and counts as used when the next boot began. It errs to the side of sending less: by what one run
  reserves at once (a hundredth of an allowance), for one window;
- a file whose content makes no sense counts as a budget that was used up a moment ago, and is replaced. One
  that the system does not let us read (permissions, a bad sector, no descriptors) stays, and nothing is
  reserved until it can be read. One that was removed counts as unused: `rm` is how to begin anew.

The file is only read and replaced under the lock `budget-*.lock`. A program that was stopped (SIGSTOP) with
it in hand keeps others from reserving: their mail waits.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from time import sleep

import msgspec
from msgspec.structs import replace

from mailer.mail import budget
from mailer.mail.budget import Room, Terms, Use
from mailer.mail.clock import Reading
from mailer.spool.layout import FILE_MODE, STATE, Spool
from mailer.spool.state import small_files

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_RUN = "budget-run-"
_STEP, _STEPS = 0.01, 500
"""Seconds between two looks at a lock that another program holds, and how often: it is held for one fsync."""
_ALL = 1_000_000_000


class Unavailable(OSError):
    """The record of a budget cannot be used now: nothing may be sent, and it is not replaced."""


def file_name(of: str) -> str:
    """Name the file of a budget, without what comes behind the point."""
    return f"budget-{sha256(of.encode()).hexdigest()[:16]}"


class Holder:
    """A run, as budgets know it: a name, and a lock that is free once the run is dead."""

    def __init__(self, spool: Spool) -> None:
        """Make its lock, and remove those of dead runs; raises OSError."""
        self._spool = spool
        self.name = f"{_RUN}{os.urandom(8).hex()}"
        with spool.directory(STATE) as directory:
            with os.scandir(directory) as entries:
                known = [entry.name for entry in entries if entry.name.startswith(_RUN)]
            for name in known:
                _is_dead(directory, name)
            # Under a name that starts with a dot nobody takes it for a dead one before it is locked.
            temporary = f".{self.name}"
            self._fd = os.open(temporary, _FLAGS | os.O_CREAT | os.O_EXCL, FILE_MODE, dir_fd=directory)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            os.rename(temporary, self.name, src_dir_fd=directory, dst_dir_fd=directory)

    def close(self) -> None:
        """End it; what it still holds counts as used."""
        with contextlib.suppress(OSError), self._spool.directory(STATE) as directory:
            os.unlink(self.name, dir_fd=directory)
        os.close(self._fd)


def _is_dead(directory: int, holder: str) -> bool:
    """Tell whether a run is dead; its lock is removed then."""
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
    """One budget's record. Its methods may be called in any thread, by one at a time."""

    def __init__(
        self, spool: Spool, of: str, terms: Terms, read: Callable[[], Reading], trusts: Callable[[], bool]
    ) -> None:
        """Prepare.

        Args:
            spool: where it is.
            of: the provider's account, or the domains.
            terms: what is allowed.
            read: reads the clocks.
            trusts: tells whether the wall clock is believed.
        """
        self.of = of
        self.terms = terms
        self._spool = spool
        self._name = file_name(of)
        self._read = read
        self._trusts = trusts

    def look(self) -> Room:
        """Tell what is left, without the lock.

        What dead runs hold is not given back here, and a record that makes no sense is not replaced. If
        nothing is left for such a reason the answer is to ask again at once, with `take`, which does both;
        else mail would wait for as long as the record stands.
        """
        reading = self._read()
        try:
            use, makes_sense = _read(self._spool, self.of, reading, trusted=self._trusts())
        except OSError:
            use, makes_sense = _all_used(self.of, reading), True
        left_over = budget.room(self.terms, use, reading.uptime)
        if left_over.free or (makes_sense and not self._any_dead(use)):
            return left_over
        return replace(left_over, at=reading.uptime)

    def _any_dead(self, use: Use) -> bool:
        with contextlib.suppress(OSError), self._spool.directory(STATE) as directory:
            return any(_is_dead(directory, name) for name in use.held)
        return False

    def take(self, holder: str, want: int, used: Sequence[tuple[float, int]], left: int) -> tuple[int, Room]:
        """Reserve as many as there are, durably, and record what was used.

        Args:
            holder: the run.
            want: how many, at most.
            used: how many it has used, and when.
            left: how many it holds beside these.

        Returns:
            How many are reserved in addition, and what was left before.

        Raises:
            OSError: nothing is reserved or recorded.
        """
        with self._locked() as directory:
            reading = self._read()
            now = reading.uptime
            before = self._load(reading)
            use = budget.settled(before, holder, used, left)
            left_over = budget.room(self.terms, use, now)
            if left_over.free < want:
                dead = [name for name in use.held if name != holder and _is_dead(directory, name)]
                use = budget.forfeited(use, dead, now)
                left_over = budget.room(self.terms, use, now) if dead else left_over
            granted = min(want, left_over.free)
            if granted:
                use = budget.reserved(self.terms, use, holder, granted, now)
            if (use.held, use.used) != (before.held, before.used):
                self._write(use)
                if granted:
                    os.fsync(directory)
        return granted, left_over

    def put(self, holder: str, used: Sequence[tuple[float, int]], left: int) -> None:
        """Record what a run has used, and that it holds so many from here on; raises OSError."""
        with self._locked():
            self._write(budget.settled(self._load(self._read()), holder, used, left))

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
    """Read what was used of a budget, as of a reading of the clocks; all, if it cannot be read."""
    try:
        return _read(spool, of, reading, trusted=trusted)[0]
    except OSError:
        return _all_used(of, reading)


def _read(spool: Spool, of: str, reading: Reading, *, trusted: bool) -> tuple[Use, bool]:
    """Return what was used, and whether the record makes sense; raises OSError: it cannot be read."""
    data = small_files.read_last(spool, f"{file_name(of)}.json")
    try:
        use = Use() if data is None else msgspec.json.decode(data, type=Use)
        return replace(budget.brought_forward(use, reading, trusted=trusted), of=of), True
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors.
        return _all_used(of, reading), False


def _all_used(of: str, reading: Reading) -> Use:
    return budget.brought_forward(Use(of=of, used=((reading.uptime, _ALL),)), reading, trusted=False)
