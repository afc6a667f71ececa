"""Every move that a message can make, in one table.

A message's file is in exactly one place at any instant, and every move is one rename(2) (or one unlink(2)),
so a crash leaves it in the old place or in the new one, never in both and never in neither. (Where a power
cut may tear a rename, it has both names until the new one is durable: see `renaming` and `names`.) The
program that moves a file holds its lock, has checked that the path names the locked inode, and has folded the
journal after that. The journal is written before the move, and is made durable before any move out of `cur/`
that depends on it; recovery reads it, decides again, and finishes the same move.
"""

from enum import StrEnum

from mailer.spool.layout import Place


class Move(StrEnum):
    """The names of the moves."""

    COMMIT = "commit"
    """It is received and durable."""
    SCHEDULE = "schedule"
    """It is received and durable, and its sender wants it tried later."""
    CLAIM = "claim"
    """A runner claims it."""
    UNCLAIM = "unclaim"
    """The runner stops, or its disk is full, before any attempt: the message waits as if never claimed."""
    FINISH = "finish"
    """Every recipient was sent."""
    ARCHIVE = "archive"
    """Every recipient was sent, and a copy is kept."""
    DEFER = "defer"
    """Some recipient will be tried again."""
    FAIL = "fail"
    """No recipient is left to try, and at least one bounced or expired."""
    REQUEUE = "requeue"
    """The sweep moves it when it is due, or the operator wants it tried now."""
    HOLD = "hold"
    """The operator, a rule of `routes` or the poison rule holds it, or it is handed over to another spool."""
    ARRIVE = "arrive"
    """Another spool hands it over; nothing is sent until that spool has given it up."""
    ARRIVE_FAILED = "arrive-failed"
    """As `ARRIVE`, and it was given up there."""
    RESUME = "resume"
    """It was parked for a handover, and waits for its next attempt."""
    PRUNE = "prune"
    """A kept copy is older than `archiveMaxAge`."""
    REMOVE = "remove"
    """The operator deletes it."""
    QUARANTINE = "quarantine"
    """It is unreadable: kept, never sent."""


_LIVE = frozenset({Place.NEW, Place.CUR, Place.RETRY})
_KEPT = frozenset({Place.HOLD, Place.FAILED})

TRANSITIONS: dict[Move, tuple[frozenset[Place], Place | None]] = {
    Move.COMMIT: (frozenset({Place.TMP}), Place.NEW),
    Move.SCHEDULE: (frozenset({Place.TMP}), Place.RETRY),
    Move.CLAIM: (frozenset({Place.NEW}), Place.CUR),
    Move.UNCLAIM: (frozenset({Place.CUR}), Place.NEW),
    Move.FINISH: (frozenset({Place.CUR}), None),
    Move.ARCHIVE: (frozenset({Place.CUR}), Place.SENT),
    Move.DEFER: (frozenset({Place.CUR}), Place.RETRY),
    Move.FAIL: (frozenset({Place.CUR}), Place.FAILED),
    Move.REQUEUE: (frozenset({Place.RETRY}) | _KEPT, Place.NEW),
    Move.HOLD: (_LIVE | {Place.FAILED}, Place.HOLD),
    Move.ARRIVE: (frozenset({Place.TMP}), Place.HOLD),
    Move.ARRIVE_FAILED: (frozenset({Place.TMP}), Place.FAILED),
    Move.RESUME: (frozenset({Place.HOLD}), Place.RETRY),
    Move.PRUNE: (frozenset({Place.SENT}), None),
    Move.REMOVE: (_LIVE | _KEPT | {Place.CORRUPT}, None),
    Move.QUARANTINE: (_LIVE | _KEPT, Place.CORRUPT),
}
"""The allowed sources and the destination of each move; None means that the file is unlinked. Taking over a
dead runner's claim is not a move: the runner that gets the lock of a file in `cur/` owns it."""


def target(move: Move, place: Place) -> Place | None:
    """Return the place that a move leads to from `place`; None if the file is unlinked.

    Raises:
        ValueError: the table has no such move.
    """
    sources, destination = TRANSITIONS[move]
    if place not in sources:
        raise ValueError(f"no move {move} from {place}/")
    return destination
