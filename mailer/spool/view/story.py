"""The history of a message: each line of its journal, or of the ledger, in plain words.

`verdict` summarizes it.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import groupby

import msgspec

from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.spool import words
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import Place, full_minute
from mailer.spool.message_state import OUTCOMES, Standing
from mailer.spool.view.inspect import Seen
from mailer.spool.view.obstacles import Obstacle, next_attempt
from mailer.spool.view.summary import Summary


def tell(step: "Step") -> str:
    """Format a step as one line: when and what happened."""
    return f"{words.moment_of(step.event.at)}  {what(step.event, step)}"


class Step(msgspec.Struct, frozen=True):
    """One line of the history: an event, or several in a row that differ only in time and attempt."""

    event: Event
    """The last of them."""
    times: int = 1
    first_attempt: int = 0
    since: str = ""
    """When the first of them happened; empty if there is only one."""


def chronicle(events: Sequence[Event]) -> list[Step]:
    """Return the history in order; a series of attempts with the same result is one step.

    A `committing` line is left out if its outcome follows.
    """
    settled = {(e.attempt, e.hop) for e in events if e.event in OUTCOMES and e.event != Kind.COMMITTING}
    kept = [e for e in events if e.event != Kind.COMMITTING or (e.attempt, e.hop) not in settled]
    told: list[Step] = []
    before: tuple[tuple[object, ...], ...] = ()
    for attempt, group in groupby(kept, key=lambda event: event.attempt):
        steps = list(map(Step, group))
        alike = tuple(_likeness(step.event) for step in steps)
        if attempt and alike == before:
            told[-len(steps) :] = map(_again, told[-len(steps) :], steps)
        else:
            told += steps
        before = alike if attempt else ()
    return told


def _likeness(event: Event) -> tuple[object, ...]:
    kind = Kind.DEFERRED if event.event == Kind.AS_BEFORE else event.event
    return (kind, event.to, event.hop, event.reply, event.tls, event.reason)


def _again(before: Step, now: Step) -> Step:
    first = before.first_attempt or before.event.attempt
    return Step(now.event, before.times + 1, first, before.since or before.event.at)


def what(event: Event, step: Step | None = None) -> str:
    """Say in one line what happened; replies and system errors are quoted verbatim."""
    text = _happening(event)
    if step and step.since:
        since = words.moment_of(step.since)
        several = f" (attempts {step.first_attempt} to {event.attempt}, alike, since {since})"
        text = text.replace(f" (attempt {event.attempt})", several)
    if event.by:
        text += f", by {event.by}"
    if event.reply:
        text += f": {event.reply}"
    if event.reason and event.event not in _OUTCOMES:
        text += f": {event.reason}"
    if event.expires:
        text += f"; not to be delivered after {words.moment_of(event.expires)}"
    if event.next and event.event == Kind.THROTTLED:
        text += f"; that comes about {words.moment_of(event.next)}"
    elif event.next:
        when = "scheduled for" if event.event == Kind.ACCEPTED else "next attempt"
        text += f"; {when} {words.tried_at(event.next)}"
    return printable(text, 4000)


_OUTCOMES = frozenset(status.value for status in Status)

_TROUBLE = "trouble{to}{at}{attempt}, going on to another next hop"
_PHRASES = {
    Kind.ACCEPTED: "accepted{to}",
    Kind.COMMITTING: "handing it over{to}{at}{attempt}; without an outcome below this is uncertain",
    Kind.UNCERTAIN: "uncertain{to}{at}{attempt}, the final reply was lost",
    Kind.TROUBLE: _TROUBLE,
    Kind.AS_BEFORE: "deferred{to}{attempt}, as before",
    Kind.DATED: "its age was corrected, since a wrong clock had dated it",
    Kind.RECOVERED: "recovered: its runner had died, and another one took it over",
    Kind.ALONE: "tried while its runner holds nothing else, because runners died with it",
    Kind.ACCOMPANIED: "its runner may hold other messages too from here on",
    Kind.RETURNED: "given back by a runner that could not continue with it",
    Kind.HELD: "held",
    Kind.RELEASED: "released",
    Kind.REQUEUED: "requeued{to}, to be tried at the next run",
    Kind.MOVING: "began to move to another spool",
    Kind.MOVED: "handed over to another spool",
    Kind.ARRIVING: "stored here, and kept back until the other spool has given it up",
    Kind.ARRIVED: "arrived from another spool",
    Kind.STAYED: "not moved",
    "taken": "taken, on the operator's word that the other spool never sends it",
    "attempt": _TROUBLE,
    Kind.THROTTLED: "waiting for its turn{at}",
    Kind.NOTIFIED: "wrote to the sender{about_whom}, in notification {notice}",
    "replayed": "sent again{to}",
    "viewed": "its content was shown",
    "removed": "removed from the spool",
    "quarantined": "quarantined as unreadable, and never sent",
}
"""The phrases for the journal's events, and for those that occur only in the ledger."""
_OUTCOME_PHRASE = "{event}{to}{at}{attempt}{tls}"


def _happening(event: Event) -> str:
    phrase = _PHRASES.get(event.event) or (_OUTCOME_PHRASE if event.event in _OUTCOMES else "{event}")
    if event.event == Kind.ACCEPTED and event.about:
        phrase = "written here, to notify the sender of {about}"
    elif event.event == Kind.ACCEPTED and event.replays:
        phrase = "accepted{to}, as a copy of message {replays}"
    to = ", ".join(map(words.address, event.to))
    return phrase.format(
        event=event.event,
        to=f" for {to}" if to else "",
        about_whom=f" about {to}" if to else "",
        notice=event.notice,
        about=event.about,
        replays=event.replays,
        at=f" at {event.hop}" if event.hop else "",
        attempt=f" (attempt {event.attempt})" if event.attempt else "",
        tls=f" over {event.tls}" if event.tls else "",
    )


def unreadable(seen: Seen) -> str:
    """Say what is wrong with a message that cannot be read."""
    return f"unreadable: {printable(seen.reason)}"


def situation(summary: Summary, now: float, keeps: Collection[Obstacle] = ()) -> str:
    """Say what a message's place alone does not: held by which user or program, until when, why.

    Args:
        summary: the message.
        now: seconds since the epoch.
        keeps: what keeps all mail back.
    """
    if summary.place in _WAITING:
        tried = summary.attempts or summary.next is not None or keeps
        return _waiting(summary, now, tuple(keeps)) if tried else ""
    match summary.place:
        case Place.CUR:
            hand = turn(summary.throttled) if summary.throttled else "claimed by a runner"
            ended = f"its runner ended early; {next_attempt(None, keeps).words(now)}"
            return hand if summary.claimed else ended
        case Place.HOLD:
            return printable(summary.held) or "not held by its journal"
        case Place.CORRUPT:
            return printable(summary.reason)
        case Place.FAILED:
            return printable(summary.held) or words.count(summary.attempts, "attempt")
    return ""


def turn(throttled: Event) -> str:
    """Say what a message waits for in its runner."""
    when = words.moment_of(throttled.next)
    return printable(f"waits for its turn at {throttled.hop}, about {when}: {throttled.reason}", 500)


_WAITING = frozenset({Place.NEW, Place.RETRY})


def _waiting(summary: Summary, now: float, keeps: tuple[Obstacle, ...]) -> str:
    due = summary.next
    if due is None:
        return _expected(None, summary.attempts, now, keeps)
    if due > now and not summary.attempts:
        return words.scheduled(due, now)
    return _expected(full_minute(due), summary.attempts, now, keeps)


# Cached: thousands of messages wait in one bucket, and formatting takes longer than reading a file.
@lru_cache(maxsize=1024)
def _expected(minute: int | None, attempts: int, now: float, keeps: tuple[Obstacle, ...]) -> str:
    """Say when messages due at a full minute, as their bucket says, are tried."""
    return f"{next_attempt(minute, keeps).words(now)}, {words.count(attempts, 'attempt')}"


def outcome(standing: Standing) -> str:
    """Say a recipient's status, at which hop, and with which reply."""
    at = f" at {standing.hop}" if standing.hop else ""
    reply = f": {standing.reply}" if standing.reply else ""
    return f"{words.address(standing.address)}: {standing.status}{at}{reply}"
