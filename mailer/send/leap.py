"""Whether the clock may be believed when something is to be deleted for its age: it does not come back.

A host whose battery is empty, or whose time server is mad, may be ten years ahead for a minute or an hour.
"""

from mailer.mail import clock
from mailer.spool.last_run import LastRun

_FARTHEST = 90 * 86_400.0
"""Seconds between two looks at the clock that are believed at once: few hosts send nothing for a season."""
_DOUBT = 86_400.0
"""Seconds that a clock must have gone on from where it leapt to, before it is believed."""


class Leap:
    """The last leap that was seen, by this run or the ones before it."""

    def __init__(self, last: LastRun | None) -> None:
        """Args: last: the run before this one, with its reading of the clock."""
        self._seen = _seconds(last.at) if last else None
        self._to = _seconds(last.leapt) if last else None

    def believes(self, now: float) -> bool:
        """Take a reading, in seconds since the epoch, and tell whether it is one to delete by."""
        if self._seen is not None and now - self._seen > _FARTHEST:
            self._to = now
        self._seen = now
        return not self.doubts(now)

    def doubts(self, now: float) -> bool:
        return self._to is not None and self._to <= now < self._to + _DOUBT

    def mark(self, now: float) -> str:
        """Return what the next run is to know, as `LastRun.leapt`."""
        return clock.rfc3339(self._to) if self._to is not None and self.doubts(now) else ""


def _seconds(text: str) -> float | None:
    try:
        return clock.seconds(text) if text else None
    except ValueError:
        return None
