"""Whether the clock may be believed when something is deleted or given up for its age: that is for good.

A host whose battery is empty, or whose time server is mad, may be ten years ahead for a minute or an hour.
"""

from collections.abc import Iterable

from mailer.mail import clock
from mailer.spool.last_run import LastRun

_FARTHEST = 90 * 86_400.0
"""Seconds between two looks at the clock that are believed at once: few hosts send nothing for a season."""
_DOUBT = 86_400.0
"""Seconds that a clock must have gone on from where it leapt to, before it is believed."""
_GAP = 7 * 86_400.0
"""Seconds without any sign of life in the spool, after which a clock that no run vouches for is doubted."""


def begun_after_gap(moments: Iterable[float], now: float) -> float | None:
    """Tell when the newest run of moments began, if it is apart from older ones; all in epoch seconds.

    Args:
        moments: when something happened, by the clock of then. Those that are later than now say nothing.
        now: counts as one of them.
    """
    newest = now
    for moment in sorted((moment for moment in moments if moment <= now), reverse=True):
        if newest - moment > _GAP:
            return newest
        newest = moment
    return None


class Leap:
    """The last leap that was seen, by this run or the ones before it."""

    def __init__(self, last: LastRun | None, moments: Iterable[float] = ()) -> None:
        """Begin with what is known.

        Args:
            last: the run before this one, with its reading of the clock.
            moments: what there is to go by without it, see `begun_after_gap`.
        """
        self._moments = tuple(moments) if last is None else ()
        self._seen = _seconds(last.at) if last else None
        self._to = _seconds(last.leapt) if last else None

    def believes(self, now: float) -> bool:
        """Take a reading, in seconds since the epoch, and tell whether it is one to delete by."""
        if self._seen is None:
            self._to = begun_after_gap(self._moments, now)
        elif now - self._seen > _FARTHEST:
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
