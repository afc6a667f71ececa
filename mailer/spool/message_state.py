"""The state of a message: the fold of its journal's lines over its envelope, and nothing else.

The directory that holds the file is only a hint.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from mailer.mail import clock
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import FINAL, Status
from mailer.spool.ids import is_id
from mailer.spool.journal import OVERDUE, Event, Kind

OUTCOMES: dict[str, Status] = {
    Kind.SENT: Status.SENT,
    Kind.DEFERRED: Status.DEFERRED,
    Kind.BOUNCED: Status.BOUNCED,
    Kind.EXPIRED: Status.EXPIRED,
    Kind.UNCERTAIN: Status.UNCERTAIN,
    Kind.COMMITTING: Status.UNCERTAIN,
}

# As globals, since Python 3.11 takes 15 times as long to look a member up in its enumeration.
_SENT, _UNCERTAIN, _EXPIRED = Status.SENT, Status.UNCERTAIN, Status.EXPIRED
_COMMITTING, _TROUBLE, _AS_BEFORE = Kind.COMMITTING, Kind.TROUBLE, Kind.AS_BEFORE
_ACCEPTED, _IN_DOUBT = Kind.ACCEPTED, Kind.UNCERTAIN


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
        return _MOVES[self.move.event].format(self.move.reason) if self.move else self.kept

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


def fold(recipients: Sequence[Recipient], events: Iterable[Event], *, boot: str = "") -> State:
    """Fold a journal over the recipients of its envelope.

    Args:
        recipients: of the envelope, each address once.
        events: the lines in file order.
        boot: this boot's id; deaths in other boots (a power cut) are nothing to blame and do not count.
    """
    return advance(
        State({recipient.address: Standing(recipient) for recipient in recipients}), events, boot=boot
    )


def advance(state: State, events: Iterable[Event], *, boot: str = "") -> State:
    """Fold more lines over a state; arguments as for `fold`."""
    # A message with thousands of recipients has as many lines, so the dict is copied once, and in C.
    standings = dict(state.by_address)
    for event in events:
        if outcome := OUTCOMES.get(event.event):
            due = _time(event.next) if event.next else None
            for address in event.to:
                # Sent is final: no later line, however it came there, may send the message twice.
                if (known := standings.get(address)) and known.status is not _SENT:
                    standings[address] = Standing(
                        recipient=known.recipient,
                        status=outcome,
                        reply=event.reply,
                        hop=event.hop,
                        next=due,
                        attempt=event.attempt,
                        # The operator allows one more final dot, not just one more attempt to connect.
                        allowed=known.allowed and event.event == _IN_DOUBT,
                        let_go=known.let_go and (event.event, event.hop) == (_IN_DOUBT, known.hop),
                        handovers=_handovers(known, event) if outcome is _UNCERTAIN else 0,
                        unclear=event.unclear or known.unclear,
                        action=event.action,
                        # A failure is reported once; if it is sent after all, that is to be reported, too.
                        notice="" if outcome is _SENT else known.notice,
                        warned=known.warned,
                        doubted=known.hop
                        if outcome is _EXPIRED and known.status is _UNCERTAIN
                        else known.doubted,
                    )
            state = _after_outcome(state, event, standings)
        elif event.event == _TROUBLE:
            _after_trouble(standings, event)
        elif event.event == _AS_BEFORE:
            _defer_again(standings, event)
            state = _after_outcome(state, event, standings)
        elif event.event == _ACCEPTED:
            if state.accepted is None:
                state = _after_acceptance(state, event, standings)
        else:
            state = _after(state, event, standings, boot)
    return state if state.by_address is standings else replace(state, by_address=standings)


def _handovers(known: Standing, event: Event) -> int:
    """Count the attempts that may have delivered; of one whose runner died, the last line is `committing`."""
    of_this_attempt = known.status is _UNCERTAIN and known.attempt == event.attempt
    again = event.event == _COMMITTING and not of_this_attempt
    return max(1, known.handovers + again)


def _defer_again(standings: dict[str, Standing], event: Event) -> None:
    due = _time(event.next)
    among = set(event.to)
    for address, known in standings.items():
        meant = address in among if among else known.attempt < event.attempt
        if meant and known.status is Status.DEFERRED:
            standings[address] = replace(known, next=due, attempt=event.attempt)


def _after_trouble(standings: dict[str, Standing], event: Event) -> None:
    """End the doubt: a hop that got the whole message refused it after all."""
    for address in event.to:
        known = standings.get(address)
        if known and known.status is _UNCERTAIN and (known.hop, known.attempt) == (event.hop, event.attempt):
            standings[address] = Standing(
                known.recipient,
                Status.PENDING,
                event.reply,
                event.hop,
                unclear=known.unclear,
                notice=known.notice,
                warned=known.warned,
            )


def _after_notice(state: State, event: Event, standings: dict[str, Standing]) -> State:
    for address in event.to:
        if known := standings.get(address):
            told = {"notice" if known.status.final else "warned": event.notice}
            standings[address] = replace(known, **told)
    return replace(state, notices=(*state.notices, event.notice))


def _allow_doubt(standings: dict[str, Standing], *, held: bool) -> None:
    for address, known in standings.items():
        if known.status is _UNCERTAIN:
            standings[address] = replace(known, allowed=True, let_go=held or known.let_go)


def _after_outcome(state: State, event: Event, standings: dict[str, Standing]) -> State:
    attempts = max(state.attempts, event.attempt)
    if event.event == _COMMITTING:
        return replace(state, by_address=standings, attempts=attempts, throttled=None)
    return replace(
        state,
        by_address=standings,
        attempts=attempts,
        recoveries=0,
        deaths_alone=0,
        hand="",
        overdue=event.event in _TRIED_AGAIN and event.reason == OVERDUE,
        throttled=None,
    )


def _after(state: State, event: Event, standings: dict[str, Standing], boot: str) -> State:
    match event.event:
        case Kind.RECOVERED:
            state = _after_death(state, event, boot)
        case Kind.ALONE | Kind.ACCOMPANIED | Kind.RETURNED | Kind.THROTTLED:
            state = _in_hand(state, event, boot)
        case Kind.DATED:
            state = replace(state, since=_time(event.since) or state.since, overdue=False)
        case Kind.NOTIFIED if is_id(event.notice):
            state = _after_notice(state, event, standings)
        case Kind.HELD:
            state = replace(state, kept=event.reason or "held")
        case Kind.MOVING | Kind.MOVED | Kind.ARRIVING | Kind.ARRIVED | Kind.STAYED:
            state = _handed_over(state, event)
        case Kind.RELEASED:
            _allow_doubt(standings, held=bool(state.kept))
            state = replace(state, kept="", released=True, recoveries=0, deaths_alone=0, hand="")
        case Kind.REQUEUED:
            state = _after_requeue(state, event, standings)
    return state


_MOVES: dict[str, str] = {
    Kind.MOVING: "being moved {0}; `mailer spool move --resume` continues",
    Kind.MOVED: "moved {0}, and to be removed here; `mailer spool move --resume` does so",
    Kind.ARRIVING: "being moved here {0}; `mailer spool move --resume` continues there",
}
"""Why a message is not sent during a handover; the spool at the other end is put in."""


def _handed_over(state: State, event: Event) -> State:
    if event.event == Kind.ARRIVING:
        return replace(state, move=event, arrived_by=event.move)
    if event.event in _MOVES:
        return replace(state, move=event)
    return replace(state, move=None) if state.move and state.move.move == event.move else state


def _in_hand(state: State, event: Event, boot: str) -> State:
    if event.event == Kind.THROTTLED:
        return replace(state, throttled=event)
    counts = event.event != Kind.ALONE or event.boot == boot
    return replace(state, hand=event.event if counts else "")


def _after_acceptance(state: State, event: Event, standings: dict[str, Standing]) -> State:
    at = _time(event.at) or 0.0
    if event.next and (scheduled := _time(event.next)) is not None:
        for address, known in standings.items():
            standings[address] = replace(known, next=scheduled)
        at = max(at, scheduled)
    expires = _time(event.expires) if event.expires else None
    return replace(state, by_address=standings, accepted=event, since=at, expires=expires)


def _after_death(state: State, event: Event, boot: str) -> State:
    """Count a death against a message only if its last runner held nothing else until it died."""
    if event.boot != boot:
        return replace(state, hand="")
    return replace(
        state,
        recoveries=state.recoveries + 1,
        deaths_alone=state.deaths_alone + (state.hand == Kind.ALONE),
        hand="",
    )


def _after_requeue(state: State, event: Event, standings: dict[str, Standing]) -> State:
    for address, known in standings.items():
        if known.status is _SENT:
            continue
        if not event.to:
            again = Status.PENDING if known.status.final else known.status
            standings[address] = replace(
                known, status=again, next=None, unclear=known.unclear and again is not Status.PENDING
            )
        elif address in event.to and not known.status.final:
            standings[address] = replace(known, next=None)
    _allow_doubt(standings, held=bool(state.kept))
    released = state.released or bool(state.kept)
    state = replace(state, kept="", released=released, recoveries=0, deaths_alone=0, hand="")
    # An operator may have waiting mail tried every hour; it must expire some day all the same.
    return (
        state
        if event.to
        else replace(state, since=_time(event.at) or state.since, overdue=False, expires=None)
    )


_TRIED_AGAIN = {Kind.DEFERRED, Kind.UNCERTAIN, Kind.AS_BEFORE}


def _time(text: str) -> float | None:
    try:
        return clock.seconds(text) if text else None
    except ValueError:
        return None
