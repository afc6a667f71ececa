"""Fold the lines of a journal over the recipients of its envelope, to the state of the message."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from mailer.mail import clock
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Status
from mailer.spool.ids import is_id
from mailer.spool.journal import OVERDUE, Event, Kind
from mailer.spool.message_state import MOVES, OUTCOMES, Standing, State

# As globals, since Python 3.11 takes 15 times as long to look a member up in its enumeration.
_SENT, _UNCERTAIN, _EXPIRED = Status.SENT, Status.UNCERTAIN, Status.EXPIRED
_COMMITTING, _TROUBLE, _AS_BEFORE = Kind.COMMITTING, Kind.TROUBLE, Kind.AS_BEFORE
_ACCEPTED, _IN_DOUBT = Kind.ACCEPTED, Kind.UNCERTAIN
_TRIED_AGAIN = {Kind.DEFERRED, Kind.UNCERTAIN, Kind.AS_BEFORE}


def fold(recipients: Sequence[Recipient], events: Iterable[Event], *, boot: str = "") -> State:
    """Fold a journal over the recipients of its envelope.

    Args:
        recipients: of the envelope, each address once.
        events: the lines in file order.
        boot: this boot's id; deaths in other boots do not count: a power cut says nothing about it.
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
                        batch=event.batch or known.batch,
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
                batch=known.batch,
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
            state = _claimed(state, event, boot)
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


def _handed_over(state: State, event: Event) -> State:
    if event.event == Kind.ARRIVING:
        return replace(state, move=event, arrived_by=event.move)
    if event.event in MOVES:
        return replace(state, move=event)
    return replace(state, move=None) if state.move and state.move.move == event.move else state


def _claimed(state: State, event: Event, boot: str) -> State:
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


def _time(text: str) -> float | None:
    try:
        return clock.seconds(text) if text else None
    except ValueError:
        return None
