"""Types for clocks, and conversion between seconds since the epoch and RFC 3339 text.

Only `cli` reads a clock. Functions elsewhere that need the time take a `Clock`, so that tests can turn it
back a year, as happens on a host whose battery died.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from mailer.mail.lazy_pattern import compile_late

Clock = Callable[[], float]
"""A function that returns seconds since the epoch, as `time.time` does; its values may jump."""


class Reading(msgspec.Struct, frozen=True):
    """One reading of this host's clocks."""

    wall: float
    """Seconds since the epoch; may be wrong, and jump."""
    boot: str
    """This boot's id; empty where the kernel does not provide one."""
    uptime: float
    """Seconds since this boot, including suspended time (CLOCK_BOOTTIME); cannot be set and never jumps."""
    awake: float | None = None
    """Seconds since this boot, excluding suspended time (CLOCK_MONOTONIC); None: not known."""


class Clocks(msgspec.Struct, frozen=True):
    """The clocks that `read` reads."""

    wall: Clock
    uptime: Clock
    boot: str
    synchronized: Callable[[], bool] = lambda: False
    """Whether the kernel considers the wall clock synchronized with a time server since it was last set."""
    awake: Clock | None = None
    """As `Reading.awake`."""

    def read(self) -> Reading:
        return Reading(self.wall(), self.boot, self.uptime(), self.awake and self.awake())


def rfc3339(seconds: float) -> str:
    """Format a time as the spool and the ledger do: UTC, microseconds, `Z`."""
    whole, micro = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_to_the_second(whole)}.{micro:06d}Z"


# Each message has several times within the same second, and strftime is most of the cost of formatting them.
@lru_cache(maxsize=16)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def seconds(text: str) -> float:
    """Parse a time that `rfc3339` formatted.

    Raises:
        ValueError: the text is not such a time, or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time without a zone: {text!r}")
    return moment.timestamp()


_LEAP_SECOND = compile_late(r"(?<=\d\d:\d\d:)60(?!\d)", re.ASCII)


def without_leap_second(text: str) -> tuple[str, int]:
    """Return the text of a time without a second 60, and the seconds to add to the time that it then means.

    RFC 3339 5.7 and RFC 5322 3.3 allow 60 in a leap second, which the clocks of Unix do not count: it is the
    beginning of the next minute.
    """
    named = _LEAP_SECOND.sub("59", text, count=1)
    return named, int(named != text)
