"""Rate limits in use. Counting them reads a day of the ledger, so the last count serves for a while."""

from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic
from typing import NamedTuple

_EVERY = 30.0
"""Seconds that a count serves, at least."""
_SHARE = 50
"""A count that took a second is repeated after this many, at the earliest."""


class Use(NamedTuple):
    """What one sender, one user, or everybody has used of their limits."""

    who: str
    hour: int
    per_hour: int
    """0: any number."""
    day: int
    per_day: int
    wait: int
    """Seconds until one more message is taken; 0: now."""

    @property
    def share(self) -> float:
        """How much of the tighter limit is used; 1 is all of it."""
        pairs = ((self.hour, self.per_hour), (self.day, self.per_day))
        return max((used / most for used, most in pairs if most), default=0.0)


class LimitsView:
    """Limits in use, those nearest to their end first. Any thread may ask."""

    def __init__(self, count: Callable[[], Sequence[Use] | None]) -> None:
        """Args: count: reads the ledger; may raise OSError, ValueError, LookupError (no secret)."""
        self._count = count
        self._uses: tuple[Use, ...] = ()
        self._next = float("-inf")
        self._lock = Lock()

    def uses(self) -> tuple[Use, ...]:
        """Return what was counted lately; what cannot be counted counts as nothing.

        One caller counts, the others get the last count.
        """
        if monotonic() < self._next or not self._lock.acquire(blocking=False):
            return self._uses
        try:
            began = monotonic()
            try:
                counted = self._count() or ()
            except (OSError, LookupError, ValueError):
                counted = ()
            self._uses = tuple(sorted(counted, key=lambda use: use.share, reverse=True))
            ended = monotonic()
            self._next = ended + max(_EVERY, (ended - began) * _SHARE)
        finally:
            self._lock.release()
        return self._uses
