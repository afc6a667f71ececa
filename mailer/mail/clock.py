"""Time as the rest of the house passes it around: seconds since the epoch in, RFC 3339 text out.

Nobody below `cli` reads a clock: functions that need the time take a `Clock`, so that tests can
turn it back a year (a host whose battery died does).
"""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]
"""Returns seconds since the epoch, as `time.time` does; it may jump."""


def rfc3339(seconds: float) -> str:
    """Write a time as the spool and the ledger do: UTC, microseconds, `Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds(text: str) -> float:
    """Read what `rfc3339` wrote.

    Raises:
        ValueError: the text is no such time, or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time without a zone: {text!r}")
    return moment.timestamp()
