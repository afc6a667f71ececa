"""The journal: the lines behind a message that tell its life, and the state they fold to.

Lines are only ever appended, one JSON object each, CRLF at the end. A line that does not parse as an object
(torn by a crash, or damaged) is ignored wherever it stands. The state of a message is the fold of its
lines over its envelope and nothing else: the directory it lies in is only a hint.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from mailer.mail import clock
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import FINAL, Status
from mailer.spool.ids import is_id


class Kind(StrEnum):
    """What a line says happened."""

    ACCEPTED = "accepted"
    """Received whole: the client may get its 250. It has the digests; a file without it is incomplete."""
    COMMITTING = "committing"
    """About to send the final dot for `to` at `hop`: until their outcome they are uncertain."""
    SENT = "sent"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    UNCERTAIN = "uncertain"
    """The final reply was lost; `next` says when it is tried again."""
    AS_BEFORE = "as-before"
    """Deferred once more with nothing new to say: those in `to`, or else all who were last tried in an
    earlier attempt and deferred. Only `attempt` and `next` change."""
    TROUBLE = "trouble"
    """A next hop could not be used for `to`; the same attempt went on to another."""
    RECOVERED = "recovered"
    """A runner died with the claim; this boot's runner took it over."""
    ALONE = "alone"
    """Recovered repeatedly: from here on it is tried with nothing else in the runner's hands."""
    ACCOMPANIED = "accompanied"
    """From here on others may be in the runner's hands beside it: what was `alone` only waits, or what was
    `returned` is tried again."""
    RETURNED = "returned"
    """The runner gave it back in order and lives on: stopped, out of room, or unable to move this file."""
    HELD = "held"
    RELEASED = "released"
    REQUEUED = "requeued"
    """The operator wants it tried now. Those in `to` become due, nothing else changes; without `to` it begins
    anew, refused and expired recipients are tried again too."""
    DATED = "dated"
    """It came by a wall clock that was wrong; its age counts from `since`."""
    THROTTLED = "throttled"
    """In its runner's hands, it waits for its turn at `hop`, which comes about `next`; `reason` says why."""
    NOTIFIED = "notified"
    """The notification `notice`, in this spool, tells the sender how `to` stand (RFC 3464)."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. Unknown fields are ignored, so that an older runner can read a newer journal."""

    at: str
    event: str
    to: tuple[str, ...] = ()
    hop: str = ""
    reply: str = ""
    scope: str = ""
    attempt: int = 0
    next: str = ""
    """When `to` are tried again; with `accepted`: when the message is tried first, as its sender wants it."""
    tls: str = ""
    unclear: bool = False
    """Of a deferral: it was refused for good, not clearly why, and bounces when it is refused so again."""
    reason: str = ""
    by: str = ""
    boot: str = ""
    sha256: str = ""
    envelope: str = ""
    action: str = ""
    """Of a sent recipient whose sender wants to hear of it from us: `relayed` or `delivered`."""
    notice: str = ""
    uptime: float = 0.0
    """With `accepted`: what the boot clock of `boot` showed; 0: not known."""
    since: str = ""
    about: str = ""
    """With `accepted`: this message is a notification of ours, about the message with this id."""
    expires: str = ""
    """With `accepted`: after this time its sender does not want it delivered any more."""
    once: str = ""
    """With `accepted`: the files in `once/` of its idempotency key and its drop, with a blank between."""


OUTCOMES: dict[str, Status] = {
    Kind.SENT: Status.SENT,
    Kind.DEFERRED: Status.DEFERRED,
    Kind.BOUNCED: Status.BOUNCED,
    Kind.EXPIRED: Status.EXPIRED,
    Kind.UNCERTAIN: Status.UNCERTAIN,
    Kind.COMMITTING: Status.UNCERTAIN,
}

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding damaged bytes raises; the last two are msgspec's for bad UTF-8 and deep nesting."""


def encode(*events: Event) -> bytes:
    """Write lines, each with its CRLF."""
    if len(events) == 1:
        return _encoder.encode(events[0]) + b"\r\n"
    return b"".join([_encoder.encode(event) + b"\r\n" for event in events])


def decode(journal: bytes) -> Iterator[Event]:
    """Read the lines that count."""
    for line in journal.split(b"\n"):
        if line.startswith(b"{"):
            try:
                yield _decoder.decode(line)
            except _UNREADABLE:
                continue


def decode_whole(journal: bytes) -> list[Event]:
    """Read a journal of which every line counts, in half the time; return nothing where some line may not.

    A torn line, though ended by the writer of the next, leaves a brace open: the whole does not parse.
    """
    try:
        events = _decoder.decode_lines(journal)
    except _UNREADABLE:
        return []
    return events if journal.count(b"\n") == len(events) else []


class Standing(msgspec.Struct, frozen=True):
    """How one recipient stands."""

    recipient: Recipient
    status: Status = Status.PENDING
    reply: str = ""
    hop: str = ""
    next: float | None = None
    """When it is due again, in seconds since the epoch; None: now. If pending, as its sender wants it."""
    attempt: int = 0
    """The attempt that this is the outcome of."""
    allowed: bool = False
    """It is uncertain, and the operator wants it handed over once more all the same."""
    let_go: bool = False
    """It is uncertain, and the operator let it go after it was held: another hop may have it, too."""
    handovers: int = 0
    """If uncertain: the attempts that handed it over since the doubt began, also those that were deferred."""
    unclear: bool = False
    """It was refused for good once, and not clearly why: as `Event.unclear`."""
    action: str = ""
    """Sent, and the sender asked to hear of it from us: as `Event.action`."""
    notice: str = ""
    """The notification that told the sender of its final status, or of the failure before the operator had it
    tried again; empty: none did."""
    warned: str = ""
    """The one that reported its delay, which happens once."""
    doubted: str = ""
    """The hop that it was handed to without an answer, when it expired."""

    @property
    def address(self) -> str:
        return self.recipient.address

    @property
    def scheduled(self) -> bool:
        """It waits for the time that its sender has named."""
        return self.status is Status.PENDING and self.next is not None

    def is_due(self, now: float, horizon: float) -> bool:
        """As `State.due` says."""
        if self.next is None or self.next <= now:
            return True
        return self.next > now + horizon and not self.scheduled

    @property
    def doubted_twice(self) -> bool:
        """It was handed over once more when it was in doubt, is so still, and the operator allows no more."""
        return self.status is Status.UNCERTAIN and not self.allowed and self.handovers > 1

    @property
    def handed_to(self) -> str:
        """The hop that may have delivered it, for all that is known; empty: none."""
        if self.status is Status.EXPIRED:
            return self.doubted
        return self.hop if self.status is Status.UNCERTAIN else ""


class Disposition(StrEnum):
    """What is to be done with a message, as its journal has it."""

    ATTEMPT = "attempt"
    """Some recipient is due."""
    WAIT = "wait"
    """Some recipient will be tried again, none is due."""
    FINISH = "finish"
    """All recipients were sent."""
    FAIL = "fail"
    """None is left to try, and at least one was not sent."""
    HOLD = "hold"
    """The operator, or the poison rule, keeps it."""


class State(msgspec.Struct, frozen=True):
    """What a journal folds to."""

    by_address: Mapping[str, Standing]
    """How each recipient stands, in the order of the envelope."""
    accepted: Event | None = None
    since: float = 0.0
    """When the clock of its maximum age started: at acceptance, when it was to be tried first, or when the
    operator requeued it."""
    attempts: int = 0
    held: str = ""
    """Why it is held; empty when it is not."""
    released: bool = False
    """The operator has let it go after it was held: no rule of `routes` holds it again."""
    recoveries: int = 0
    """Dead runners since its last outcome, this boot."""
    deaths_alone: int = 0
    """Of these, those that had nothing else in hand: only these speak against the message."""
    hand: str = ""
    """How its last runner has it in hand, or gave it back: ALONE (this boot), ACCOMPANIED or RETURNED."""
    expires: float | None = None
    """After this time its sender does not want it delivered any more; None: whenever it can be."""
    overdue: bool = False
    """It was already too old when it was last deferred: one reading of a clock expires nothing."""
    throttled: Event | None = None
    """What it waits for in its runner's hands, since its last outcome; None: nothing that is known."""
    notices: tuple[str, ...] = ()
    """The notifications about it, the earliest first."""

    @property
    def about(self) -> str:
        """The message that this one is a notification about; empty: it is none of ours."""
        return self.accepted.about if self.accepted else ""

    @property
    def standings(self) -> tuple[Standing, ...]:
        return tuple(self.by_address.values())

    @property
    def open(self) -> tuple[Standing, ...]:
        """The recipients that still wait for their final status."""
        return tuple([s for s in self.by_address.values() if s.status not in FINAL])

    @property
    def next(self) -> float | None:
        """When the first open recipient is due; None: now (or none is open)."""
        times = [s.next for s in self.open]
        known = [t for t in times if t is not None]
        return min(known) if known and len(known) == len(times) else None

    @property
    def scheduled(self) -> float | None:
        """When the message is to be tried first, while that is still to come; None: at once."""
        return next((s.next for s in self.open if s.scheduled), None)

    @property
    def is_sent(self) -> bool:
        """All recipients were sent."""
        return not [s for s in self.by_address.values() if s.status is not Status.SENT]

    def due(self, now: float, horizon: float) -> tuple[Standing, ...]:
        """Return the open recipients to be tried now.

        Args:
            now: seconds since the epoch.
            horizon: the longest back-off in seconds. What lies further ahead was written by a clock that was
                wrong then or is wrong now, and counts as due, unless its sender wants it so.
        """
        # Nearly every recipient is due at once, and this is asked twice for each message.
        return tuple([s for s in self.open if s.next is None or s.is_due(now, horizon)])

    def disposition(self, now: float, horizon: float) -> Disposition:
        """Decide what is to be done; arguments as `due`."""
        if self.held:
            return Disposition.HOLD
        if not self.open:
            return Disposition.FINISH if self.is_sent else Disposition.FAIL
        return Disposition.ATTEMPT if self.due(now, horizon) else Disposition.WAIT


def fold(recipients: Sequence[Recipient], events: Iterable[Event], *, boot: str = "") -> State:
    """Fold a journal over the recipients of its envelope.

    Args:
        recipients: of the envelope, each address once.
        events: the lines in file order.
        boot: this boot's id; deaths in other boots (a power cut) are nobody's fault and do not count.
    """
    return advance(
        State({recipient.address: Standing(recipient) for recipient in recipients}), events, boot=boot
    )


def advance(state: State, events: Iterable[Event], *, boot: str = "") -> State:
    """Fold more lines over a state; arguments as `fold`."""
    # A copy costs what its recipients do, and a message with thousands has as many lines: let it be C's.
    standings = dict(state.by_address)
    for event in events:
        if outcome := OUTCOMES.get(event.event):
            due = _time(event.next) if event.next else None
            for address in event.to:
                # Sent is sent: no later line, however it came there, may mail anybody twice.
                if (known := standings.get(address)) and known.status is not Status.SENT:
                    standings[address] = Standing(
                        recipient=known.recipient,
                        status=outcome,
                        reply=event.reply,
                        hop=event.hop,
                        next=due,
                        attempt=event.attempt,
                        # What the operator allows is one more hand-over, not one more attempt to connect.
                        allowed=known.allowed and event.event == Kind.UNCERTAIN,
                        let_go=known.let_go and (event.event, event.hop) == (Kind.UNCERTAIN, known.hop),
                        handovers=_handovers(known, event) if outcome is Status.UNCERTAIN else 0,
                        unclear=event.unclear or known.unclear,
                        action=event.action,
                        # A failure is reported once; that it was sent after all would be news.
                        notice="" if outcome is Status.SENT else known.notice,
                        warned=known.warned,
                        doubted=known.hop
                        if outcome is Status.EXPIRED and known.status is Status.UNCERTAIN
                        else known.doubted,
                    )
            state = _after_outcome(state, event)
        elif event.event == Kind.TROUBLE:
            _after_trouble(standings, event)
        elif event.event == Kind.AS_BEFORE:
            _defer_again(standings, event)
            state = _after_outcome(state, event)
        else:
            state = _after(state, event, standings, boot)
    return replace(state, by_address=standings)


def _handovers(known: Standing, event: Event) -> int:
    """Count the attempts that may have delivered: a dead runner's last line of one is `committing`."""
    of_this_attempt = known.status is Status.UNCERTAIN and known.attempt == event.attempt
    again = event.event == Kind.COMMITTING and not of_this_attempt
    return max(1, known.handovers + again)


def _defer_again(standings: dict[str, Standing], event: Event) -> None:
    due = _time(event.next)
    among = set(event.to)
    for address, known in standings.items():
        meant = address in among if among else known.attempt < event.attempt
        if meant and known.status is Status.DEFERRED:
            standings[address] = replace(known, next=due, attempt=event.attempt)


def _after_trouble(standings: dict[str, Standing], event: Event) -> None:
    """A hop that got the whole message refused it after all, which ends the doubt."""
    for address in event.to:
        known = standings.get(address)
        if (
            known
            and known.status is Status.UNCERTAIN
            and (known.hop, known.attempt) == (event.hop, event.attempt)
        ):
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
        if known.status is Status.UNCERTAIN:
            standings[address] = replace(known, allowed=True, let_go=held or known.let_go)


def _after_outcome(state: State, event: Event) -> State:
    attempts = max(state.attempts, event.attempt)
    if event.event == Kind.COMMITTING:
        return replace(state, attempts=attempts, throttled=None)
    overdue = event.event in _TRIED_AGAIN and event.reason == OVERDUE
    return replace(
        state, attempts=attempts, recoveries=0, deaths_alone=0, hand="", overdue=overdue, throttled=None
    )


def _after(state: State, event: Event, standings: dict[str, Standing], boot: str) -> State:
    match event.event:
        case Kind.ACCEPTED if state.accepted is None:
            state = _after_acceptance(state, event, standings)
        case Kind.RECOVERED:
            state = _after_death(state, event, boot)
        case Kind.ALONE | Kind.ACCOMPANIED | Kind.RETURNED | Kind.THROTTLED:
            state = _in_hand(state, event, boot)
        case Kind.DATED:
            state = replace(state, since=_time(event.since) or state.since, overdue=False)
        case Kind.NOTIFIED if is_id(event.notice):
            state = _after_notice(state, event, standings)
        case Kind.HELD:
            state = replace(state, held=event.reason or "held")
        case Kind.RELEASED:
            _allow_doubt(standings, held=bool(state.held))
            state = replace(state, held="", released=True, recoveries=0, deaths_alone=0, hand="")
        case Kind.REQUEUED:
            state = _after_requeue(state, event, standings)
    return state


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
    return replace(state, accepted=event, since=at, expires=expires)


def _after_death(state: State, event: Event, boot: str) -> State:
    """Count a death against a message only if its last runner had nothing else in hand until the end."""
    if event.boot != boot:
        return replace(state, hand="")
    return replace(
        state,
        recoveries=state.recoveries + 1,
        deaths_alone=state.deaths_alone + (state.hand == Kind.ALONE),
        hand="",
    )


def last_kind(tail: bytes, ignoring: Container[str]) -> str:
    """Return what the last line of a journal is, less those to be ignored; empty: none can be read.

    Args:
        tail: the last bytes of a message's file, damaged or not.
        ignoring: kinds.
    """
    for line in reversed(tail.split(b"\n")):
        for event in decode(line):
            if event.event not in ignoring:
                return event.event
    return ""


def _after_requeue(state: State, event: Event, standings: dict[str, Standing]) -> State:
    for address, known in standings.items():
        if known.status is Status.SENT:
            continue
        if not event.to:
            again = Status.PENDING if known.status.final else known.status
            standings[address] = replace(
                known, status=again, next=None, unclear=known.unclear and again is not Status.PENDING
            )
        elif address in event.to and not known.status.final:
            standings[address] = replace(known, next=None)
    _allow_doubt(standings, held=bool(state.held))
    released = state.released or bool(state.held)
    state = replace(state, held="", released=released, recoveries=0, deaths_alone=0, hand="")
    # Whoever has waiting mail tried every hour must still see it given up one day.
    return (
        state
        if event.to
        else replace(state, since=_time(event.at) or state.since, overdue=False, expires=None)
    )


_TRIED_AGAIN = {Kind.DEFERRED, Kind.UNCERTAIN, Kind.AS_BEFORE}

OVERDUE = "overdue"
"""The `reason` of a deferral that found the message older than its maximum age."""


def _time(text: str) -> float | None:
    try:
        return clock.seconds(text) if text else None
    except ValueError:
        return None
