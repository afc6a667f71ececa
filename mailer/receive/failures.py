"""Failed logins: how long the answer to one is held back, and which distant hosts are turned away.

The right password is never held back: guessing from this host must not lock its own applications out, nor
guessing a user's password that user. So a delay only ever follows a failure.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW = 600.0
"""Seconds after which a series of failures is forgotten."""
MAX_DELAY = 1.0
MAX_FROM_AFAR = 30
"""Failures of one distant address in a series; then it is turned away until the series is forgotten."""
_FIRST_DELAY = 0.05
_MOST_KEPT = 10_000


@dataclass(slots=True)
class _Series:
    count: int = 0
    until: float = 0.0


@dataclass(slots=True)
class Failures:
    """Counts by source and by user name."""

    now: Callable[[], float]
    """Monotonic seconds."""
    _series: dict[str, _Series] = field(default_factory=dict)

    def note(self, peer: str, user: str) -> float:
        """Count one; return for how many seconds to hold its answer back."""
        count = max(self._add(f"peer {peer}"), self._add(f"user {user[:255]}"))
        return min(MAX_DELAY, _FIRST_DELAY * 2.0 ** min(count - 1, 10))

    def turned_away(self, peer: str, *, local: bool) -> bool:
        """Tell whether this source has guessed too often; never one on this host."""
        series = self._series.get(f"peer {peer}")
        return (
            not local and series is not None and series.count >= MAX_FROM_AFAR and series.until > self.now()
        )

    def _add(self, key: str) -> int:
        now = self.now()
        if len(self._series) >= _MOST_KEPT:
            self._series = {key: series for key, series in self._series.items() if series.until > now}
        if len(self._series) >= _MOST_KEPT:
            self._series.clear()
        series = self._series.setdefault(key, _Series())
        if series.until <= now:
            series.count = 0
        series.count += 1
        series.until = now + WINDOW
        return series.count
