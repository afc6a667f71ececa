"""Show the use of rate limits. Counting reads a day of the ledger, so the result is cached for a while."""

from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic
from typing import NamedTuple

_MIN_CACHE = 30.0
"""The least seconds for which a count is cached."""
_CACHE_FACTOR = 50
"""A count is cached for at least this many times its duration."""


class Use(NamedTuple):
    """The use of the limits of one sender, of one user, or of all senders together."""

    who: str
    hour: int
    per_hour: int
    """The limit; 0: none."""
    day: int
    per_day: int
    wait: int
    """Seconds until the next message is accepted; 0: now."""

    @property
    def whom(self) -> str:
        """Whose limits these are, in words: the null sender is `<>`."""
        return {"*": "everybody", "sender ": "sender <>"}.get(self.who, self.who)

    @property
    def share(self) -> float:
        """The used share of the limit that is closer to exhaustion; 1 is all of it."""
        pairs = ((self.hour, self.per_hour), (self.day, self.per_day))
        return max((used / most for used, most in pairs if most), default=0.0)


class LimitsView:
    """Caches the use of limits, the most used first. Thread-safe."""

    def __init__(self, count: Callable[[], Sequence[Use] | None]) -> None:
        """Args: count: reads the ledger; may raise OSError, ValueError, LookupError (no secret)."""
        self._count = count
        self._uses: tuple[Use, ...] = ()
        self._next = float("-inf")
        self._lock = Lock()

    def uses(self) -> tuple[Use, ...]:
        """Return a recent count; empty if counting fails.

        One caller counts, and concurrent callers get the previous count.
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
            self._next = ended + max(_MIN_CACHE, (ended - began) * _CACHE_FACTOR)
        finally:
            self._lock.release()
        return self._uses
