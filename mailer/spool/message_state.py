"""The state of a message: what `fold` makes of its journal's lines and its envelope, and nothing else.

The directory that holds the file is only a hint.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import FINAL, Status
from mailer.spool.journal import Event, Kind

OUTCOMES: dict[str, Status] = {
    Kind.SENT: Status.SENT,
    Kind.DEFERRED: Status.DEFERRED,
    Kind.BOUNCED: Status.BOUNCED,
    Kind.EXPIRED: Status.EXPIRED,
    Kind.UNCERTAIN: Status.UNCERTAIN,
    Kind.COMMITTING: Status.UNCERTAIN,
}

MOVES: dict[str, str] = {
    Kind.MOVING: "being moved {0}; `mailer spool move --resume` continues",
    Kind.MOVED: "moved {0}, and to be removed here; `mailer spool move --resume` does so",
    Kind.ARRIVING: "being moved here {0}; `mailer spool move --resume` continues there",
}
"""Why a message is not sent during a handover; the spool at the other end is put in."""

_SENT = Status.SENT  # As a global, since Python 3.11 takes 15 times as long to look up a member.


class Standing(msgspec.Struct, frozen=True):
    """The status of one recipient."""

    recipient: Recipient
    status: Status = Status.PENDING
    reply: str = ""
    hop: str = ""
    next: float | None = None
    """When it is due again, in seconds since the epoch; None if now. Of a pending recipient, the time before
    which its sender wants no attempt."""
    attempt: int = 0
    """The number of the attempt that had this outcome."""
    allowed: bool = False
    """It is uncertain, and the operator wants it sent once more all the same."""
    let_go: bool = False
    """It is uncertain, and the operator released it from hold: another hop may be tried, too."""
    handovers: int = 0
    """If uncertain: attempts that sent it whole since the first doubtful one, deferred ones included."""
    unclear: bool = False
    """It was once refused permanently but ambiguously: see `Event.unclear`."""
    batch: int = 0
    """The most recipients of its next transaction, because sessions broke (`Event.batch`); 0 for no limit."""
    action: str = ""
    """Set if it was sent and the sender asked us for a notification of success: see `Event.action`."""
    notice: str = ""
    """The id of the notification that reported its final status, or its failure before the operator requeued
    it; empty if none did."""
    warned: str = ""
    """The id of the notification that reported its delay, which happens once."""
    doubted: str = ""
    """If it expired while uncertain: the hop that never confirmed it."""

    @property
    def address(self) -> str:
        return self.recipient.address

    @property
    def scheduled(self) -> bool:
        """Whether it waits for the time that its sender requested."""
        return self.status is Status.PENDING and self.next is not None

    def is_due(self, now: float, horizon: float) -> bool:
        """Return whether it is to be tried now; see `State.due`."""
        if self.next is None or self.next <= now:
            return True
        return self.next > now + horizon and not self.scheduled

    @property
    def doubted_twice(self) -> bool:
        """Whether it was sent again while uncertain, is so again, and the operator allows no third time."""
        return self.status is Status.UNCERTAIN and not self.allowed and self.handovers > 1

    @property
    def handed_to(self) -> str:
        """The hop that may have delivered it without confirming; empty if none."""
        if self.status is Status.EXPIRED:
            return self.doubted
        return self.hop if self.status is Status.UNCERTAIN else ""


class Disposition(StrEnum):
    """What to do next with a message, according to its journal."""

    ATTEMPT = "attempt"
    """Some recipient is due."""
    WAIT = "wait"
    """Some recipient will be tried again, but none is due."""
    FINISH = "finish"
    """All recipients were sent."""
    FAIL = "fail"
    """No recipient is left to try, and at least one was not sent."""
    HOLD = "hold"
    """The operator, a rule of `routes` or the poison rule keeps it, or it is being handed over."""


class State(msgspec.Struct, frozen=True):
    """The state that a journal folds to."""

    by_address: Mapping[str, Standing]
    """The status of each recipient, in the order of the envelope."""
    accepted: Event | None = None
    since: float = 0.0
    """When its age began to count, in seconds since the epoch: when it was accepted, when its first attempt
    was scheduled for, or when the operator requeued it."""
    attempts: int = 0
    kept: str = ""
    """Why the operator, a rule or the poison rule holds it; empty if none of them does."""
    move: Event | None = None
    """The last line of a handover that has not ended; None if there is none."""
    arrived_by: str = ""
    """The last handover that brought it, or is bringing it, into this spool; empty if none did."""
    released: bool = False
    """The operator released it from hold: no rule of `routes` holds it again."""
    recoveries: int = 0
    """Runners of this boot that died with it since its last outcome."""
    deaths_alone: int = 0
    """How many of them held no other message: only these deaths count against the message."""
    hand: str = ""
    """How its last runner held it or gave it back: ALONE (in this boot), ACCOMPANIED or RETURNED."""
    expires: float | None = None
    """The time after which its sender does not want it delivered; None for no limit."""
    overdue: bool = False
    """It was already too old when it was last deferred. A message expires only when this is found twice, so
    that a single wrong clock reading expires nothing."""
    throttled: Event | None = None
    """The last `throttled` line since its last outcome: what it waits for in its runner; None if not
    known."""
    notices: tuple[str, ...] = ()
    """The ids of the notifications about it, the earliest first."""

    @property
    def held(self) -> str:
        """Why it is held; empty if it is not."""
        return MOVES[self.move.event].format(self.move.reason) if self.move else self.kept

    @property
    def about(self) -> str:
        """The id of the message that this one is a notification about; empty if we did not write it."""
        return self.accepted.about if self.accepted else ""

    @property
    def replays(self) -> str:
        """The id of the message that this one is a copy of, for other recipients; empty if it is none."""
        return self.accepted.replays if self.accepted else ""

    @property
    def standings(self) -> tuple[Standing, ...]:
        return tuple(self.by_address.values())

    @property
    def open(self) -> tuple[Standing, ...]:
        """The recipients that still have no final status."""
        return tuple([s for s in self.by_address.values() if s.status not in FINAL])

    @property
    def next(self) -> float | None:
        """When the first open recipient is due; None if now, or if none is open."""
        times = [s.next for s in self.open]
        known = [t for t in times if t is not None]
        return min(known) if known and len(known) == len(times) else None

    @property
    def scheduled(self) -> float | None:
        """The scheduled time of the first attempt, while it is still to come; None if there is none."""
        return next((s.next for s in self.open if s.scheduled), None)

    @property
    def is_sent(self) -> bool:
        """Whether all recipients were sent."""
        for standing in self.by_address.values():  # noqa: SIM110 - a generator takes twice the time for one
            if standing.status is not _SENT:
                return False
        return True

    def due(self, now: float, horizon: float) -> tuple[Standing, ...]:
        """Return the open recipients that are to be tried now.

        Args:
            now: seconds since the epoch.
            horizon: the longest backoff in seconds. A later due time was written by a clock that was wrong
                then, or is read by one that is wrong now, and counts as due, unless the sender scheduled it.
        """
        # Nearly every recipient is due immediately, and this is called twice for each message.
        return tuple(
            [
                s
                for s in self.by_address.values()
                if s.status not in FINAL and (s.next is None or s.is_due(now, horizon))
            ]
        )

    def disposition(self, now: float, horizon: float) -> Disposition:
        """Return what to do next; arguments as for `due`."""
        if self.held:
            return Disposition.HOLD
        if self.is_sent:
            return Disposition.FINISH
        if not self.open:
            return Disposition.FAIL
        return Disposition.ATTEMPT if self.due(now, horizon) else Disposition.WAIT
