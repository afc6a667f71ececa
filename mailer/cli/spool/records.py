"""The JSON record of a message, in the form that `ls`, `show` and programs that read their output share."""

from collections.abc import Collection
from typing import Any

from mailer.mail import clock
from mailer.spool.layout import Place, full_minute
from mailer.spool.message_state import Standing
from mailer.spool.view.inspect import Seen
from mailer.spool.view.obstacles import Obstacle, next_attempt

_WAIT = {Place.NEW, Place.RETRY}
_AT_REST = {Place.HOLD, Place.FAILED, Place.CORRUPT, Place.SENT}

Record = dict[str, Any]


def record(seen: Seen, keeps: Collection[Obstacle] = ()) -> Record:
    """Describe a message; the null sender is the empty string.

    For an unreadable message only `id` and `state` are known; the other fields are null or empty, and
    `reason` says why. For a message that an obstacle in `keeps` holds back, `keptBy` and `notBefore` say
    which obstacle, and until when.
    """
    entry = seen.entry
    if entry is None:
        return {
            "id": seen.id,
            "state": seen.spot.place.value,
            "sender": None,
            "recipients": [],
            "size": None,
            "received": None,
            "attempts": None,
            "next": None,
            "reason": seen.reason,
        }
    described: Record = {
        "id": seen.id,
        "state": seen.spot.place.value,
        "sender": entry.envelope.sender,
        "recipients": [
            {"address": s.address, "status": s.status.value, "reply": s.reply} for s in entry.state.standings
        ],
        "size": entry.length,
        "received": clock.rfc3339(entry.block.received),
        "attempts": entry.state.attempts,
        "next": time_or_none(due(seen)),
    }
    kept = next_attempt(entry.state.next, keeps).obstacle if seen.spot.place in _WAIT else None
    if kept:
        described |= {"keptBy": kept.brief, "notBefore": time_or_none(kept.until)}
    return described | {"reason": seen.reason} if seen.reason else described


def due(seen: Seen) -> float | None:
    """Return when a message is tried next, a full minute as in all displays.

    None if that is now, or if it is in a place from which nothing is tried.
    """
    if seen.entry is None or seen.spot.place in _AT_REST:
        return None
    return _minute(seen.entry.state.next)


def _minute(next_due: float | None) -> float | None:
    return None if next_due is None else full_minute(next_due)


def recipient_detail(standing: Standing) -> Record:
    """Describe a recipient with all known details."""
    return {
        "address": standing.address,
        "status": standing.status.value,
        "reply": standing.reply,
        "hop": standing.hop,
        "attempt": standing.attempt,
        "next": None if standing.status.final else time_or_none(_minute(standing.next)),
        "notice": standing.notice or standing.warned or None,
    }


def time_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else clock.rfc3339(seconds)
