"""Time as the rest of the house passes it around: seconds since the epoch in, RFC 3339 text out.

Nobody below `cli` reads a clock: functions that need the time take a `Clock`, so that tests can
turn it back a year (a host whose battery died does).
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

Clock = Callable[[], float]
"""Returns seconds since the epoch, as `time.time` does; it may jump."""


class Reading(msgspec.Struct, frozen=True):
    """One look at this host's clocks."""

    wall: float
    """Seconds since the epoch; may be wrong, and jump."""
    boot: str
    """This boot's id; empty where the kernel does not tell."""
    uptime: float
    """Seconds since this boot, suspended time included (CLOCK_BOOTTIME): never set, never jumps."""
    awake: float | None = None
    """Seconds of these without suspended time (CLOCK_MONOTONIC); None: not known."""


class Clocks(msgspec.Struct, frozen=True):
    """Where readings come from."""

    wall: Clock
    uptime: Clock
    boot: str
    synchronized: Callable[[], bool] = lambda: False
    """Whether a time server has told the kernel, since the wall clock was last set, that it keeps it."""
    awake: Clock | None = None
    """As `Reading.awake`."""

    def read(self) -> Reading:
        return Reading(self.wall(), self.boot, self.uptime(), self.awake and self.awake())


def rfc3339(seconds: float) -> str:
    """Write a time as the spool and the ledger do: UTC, microseconds, `Z`."""
    whole, micro = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_to_the_second(whole)}.{micro:06d}Z"


# Every message has a handful of times within one second, and strftime takes longer than all else about them.
@lru_cache(maxsize=16)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def seconds(text: str) -> float:
    """Read what `rfc3339` wrote.

    Raises:
        ValueError: the text is not such a time, or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time without a zone: {text!r}")
    return moment.timestamp()
