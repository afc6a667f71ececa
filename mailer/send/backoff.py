"""Backoff: when a message is tried again, and when it is given up."""

from collections.abc import Callable
from typing import Self

import msgspec

from mailer.config.model import Retry

JITTER = 0.1
"""Fraction of a delay that may be added at random, so that messages that failed together are spread out."""


class Backoff(msgspec.Struct, frozen=True):
    """A schedule of delays; the last one repeats."""

    delays: tuple[float, ...]
    """Seconds after the first, second, ... attempt; at least one."""
    max_age: float
    """Seconds from acceptance until a message that still fails is given up."""

    @classmethod
    def of(cls, retry: Retry) -> Self:
        """Return the schedule of a configuration."""
        return cls(tuple(map(float, retry.schedule)), float(retry.max_age))

    @property
    def horizon(self) -> float:
        """The longest delay between two attempts, in seconds."""
        return max(self.delays) * (1 + JITTER)

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait after an attempt.

        Args:
            attempt: the number of the attempt that just failed, from 1.
            random: returns a number in [0, 1).
        """
        planned = self.delays[min(attempt, len(self.delays)) - 1]
        return planned * (1 + JITTER * random())

    def within(self, seconds: float, random: Callable[[], float]) -> float:
        """Return a delay of about `seconds`, but at least one second and no longer than the longest delay."""
        return min(max(1.0, seconds), max(self.delays)) * (1 + JITTER * random())

    def overdue(self, since: float, now: float) -> bool:
        """Tell whether a message has exceeded its maximum age; both times are in seconds since the epoch."""
        return now - since > self.max_age
