"""Retention of the copies in `sent/`: days that are old enough are deleted."""

from mailer.spool.directory import SPOOL_WIDE, Spool
from mailer.spool.due import days_to_prune
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import LockedMessage, Missed, Unsafe
from mailer.spool.run.claim import Report
from mailer.spool.run.sweep import remove_if_empty
from mailer.spool.scan import names
from mailer.spool.transitions import Move

AT_ONCE = 1000
"""The most copies that one call deletes, so that a day with a million copies does not hold up the mail."""


def prune(spool: Spool, now: float, max_age: float, on_skip: Report = lambda _spot, _reason: None) -> int:
    """Delete the copies of days whose youngest copy is older than `max_age`.

    It reads the names of the days, and opens only the copies to delete. Other entries of `sent/` stay.

    Args:
        spool: the spool.
        now: seconds since the epoch.
        max_age: seconds.
        on_skip: called with each file that cannot be deleted; it does not stop the others.

    Returns:
        How many were deleted; if `AT_ONCE`, the next call continues.

    Raises:
        OSError: the spool is unusable.
    """
    deleted = 0
    for day in days_to_prune(spool, now, max_age):
        for name in names(spool, f"{Place.SENT}/{day}"):
            if deleted >= AT_ONCE:
                return deleted
            deleted += _delete(spool, Spot(Place.SENT, name, day), on_skip)
        remove_if_empty(spool, f"{Place.SENT}/{day}")
    return deleted


def _delete(spool: Spool, spot: Spot, on_skip: Report) -> bool:
    try:
        with LockedMessage.lock(spool, spot) as locked:
            locked.move(Move.PRUNE)
    except Missed:
        return False
    except Unsafe as unsafe:
        on_skip(spot, str(unsafe))
        return False
    except OSError as error:
        if error.errno in SPOOL_WIDE:
            raise
        on_skip(spot, f"it cannot be deleted: {error.strerror}")
        return False
    return True
