"""Time as the rest of the house passes it around: seconds since the epoch in, RFC 3339 text out.

Nobody below `cli` reads a clock: functions that need the time take a `Clock`, so that tests can
turn it back a year (a host whose battery died does).
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

Clock = Callable[[], float]
"""Returns seconds since the epoch, as `time.time` does; it may jump."""


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
        ValueError: the text is no such time, or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time without a zone: {text!r}")
    return moment.timestamp()
