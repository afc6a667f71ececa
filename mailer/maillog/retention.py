"""Retention of the ledger and of traces: delete what was kept long enough."""

import contextlib
import os
from collections.abc import Iterable
from datetime import UTC, datetime

from mailer.maillog.files import days, file_of
from mailer.maillog.ledger import OpenDirectory

_DAY = 86_400.0
_AT_LEAST = 2 * _DAY
"""Seconds that a day is kept after its end, even if less is configured: a program may have a late line to
write, and the rate limits are counted from the last day."""


def remove_old_days(
    directory: OpenDirectory, now: float, keep: float, *, traces: OpenDirectory | None = None
) -> list[str]:
    """Delete the days that ended more than `keep` seconds, and more than two days, ago; and such traces.

    It reads names and opens no file. Files with other names stay. `directory` opens that of the ledger, and
    `traces` that of the traces, if there are any to delete.

    Returns:
        The days that were deleted.

    Raises:
        OSError: the directory cannot be read. A file that cannot be deleted stays, and does not stop others.
    """
    before = now - max(keep, _AT_LEAST)
    removed = []
    with directory() as fd:
        for day in _old(days(fd), before):
            with contextlib.suppress(OSError):
                os.unlink(file_of(day), dir_fd=fd)
                removed.append(day)
    if traces:
        with contextlib.suppress(OSError), traces() as fd:
            from mailer.maillog.traces import forget  # noqa: PLC0415 - many spools have had no trace yet

            forget(fd, before)
    return removed


def _old(days: Iterable[str], before: float) -> list[str]:
    return [day for day in days if (end := _end(day)) is not None and end < before]


def _end(day: str) -> float | None:
    try:
        return datetime(int(day[:4]), int(day[4:6]), int(day[6:]), tzinfo=UTC).timestamp() + _DAY
    except ValueError:
        return None
