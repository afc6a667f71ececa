"""A message's life in plain words: what each line of its journal, or of the ledger, says, and the verdict."""

from collections.abc import Collection, Sequence

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.spool import words
from mailer.spool.entry import Entry
from mailer.spool.glance import Glance
from mailer.spool.inspect import Seen
from mailer.spool.journal import Event, Kind, Standing
from mailer.spool.layout import LOCAL, Place
from mailer.spool.pause import Pause, describe


def tell(event: Event) -> str:
    """Say in one line when and what happened."""
    return f"{words.moment_of(event.at)}  {what(event)}"


def what(event: Event) -> str:
    """Say in one line what happened; replies and system errors are quoted as they came."""
    text = _happening(event)
    if event.by:
        text += f", by {event.by}"
    if event.reply:
        text += f": {event.reply}"
    if event.reason and event.event not in _OUTCOMES:
        text += f": {event.reason}"
    if event.next:
        text += f"; next attempt {words.moment_of(event.next)}"
    return printable(text, 4000)


_OUTCOMES = frozenset(status.value for status in Status)

_TROUBLE = "trouble{to}{at}{attempt}, going on to another next hop"
_PHRASES = {
    Kind.ACCEPTED: "accepted{to}",
    Kind.COMMITTING: "handing it over{to}{at}{attempt}; without an outcome below this is uncertain",
    Kind.UNCERTAIN: "uncertain{to}{at}{attempt}, the final reply was lost",
    Kind.TROUBLE: _TROUBLE,
    Kind.RECOVERED: "recovered: its runner had died, and another one took it over",
    Kind.ALONE: "tried with nothing else in the runner's hands, since runners died with it",
    Kind.ACCOMPANIED: "in the runner's hands with others beside it from here on",
    Kind.RETURNED: "given back by a runner that could not go on with it",
    Kind.HELD: "held",
    Kind.RELEASED: "released",
    Kind.REQUEUED: "requeued{to}, to be tried at the next run",
    "attempt": _TROUBLE,
    Kind.NOTIFIED: "told the sender{about_whom}, in notification {notice}",
    "removed": "removed from the spool",
    "quarantined": "put away as unreadable, never to be sent",
}
"""What the journal's events, and those that only the ledger has, are called."""
_OUTCOME_PHRASE = "{event}{to}{at}{attempt}{tls}"


def _happening(event: Event) -> str:
    phrase = _PHRASES.get(event.event) or (_OUTCOME_PHRASE if event.event in _OUTCOMES else "{event}")
    if event.event == Kind.ACCEPTED and event.about:
        phrase = "written here, to tell the sender of {about} what became of it"
    to = ", ".join(map(words.address, event.to))
    return phrase.format(
        event=event.event,
        to=f" for {to}" if to else "",
        about_whom=f" about {to}" if to else "",
        notice=event.notice,
        about=event.about,
        at=f" at {event.hop}" if event.hop else "",
        attempt=f" (attempt {event.attempt})" if event.attempt else "",
        tls=f" over {event.tls}" if event.tls else "",
    )


def unreadable(seen: Seen) -> str:
    """Say what is wrong with a message that cannot be read."""
    return f"unreadable: {printable(seen.reason)}"


def situation(glance: Glance, now: float) -> str:
    """Say what a message's state alone does not: by whom, until when, why."""
    match glance.place:
        case Place.NEW | Place.RETRY if glance.attempts or glance.next is not None:
            due = "at the next run" if glance.next is None else words.until(glance.next, now)
            return f"next {due}, {words.count(glance.attempts, 'attempt')}"
        case Place.CUR:
            return "in a runner's hands" if glance.in_hand else "its runner died; the next run takes it over"
        case Place.HOLD:
            return printable(glance.held) or "not held by its journal"
        case Place.CORRUPT:
            return printable(glance.reason)
        case Place.FAILED:
            return words.count(glance.attempts, "attempt")
    return ""


def verdict(seen: Seen, now: float, paused: Pause | None = None) -> list[str]:
    """Say how a message in the spool stands, and what the operator can do; the most important first.

    Args:
        seen: the message.
        now: seconds since the epoch.
        paused: the operator's pause, which keeps a message that could be tried from being so.
    """
    if seen.entry is None:
        return [f"Unreadable: {seen.reason}. It is never sent; the file is {seen.spot.path} in the spool."]
    entry = seen.entry
    about = [_is_about(entry.state.about)] if entry.state.about else []
    standings = [_standing(standing, entry.envelope.sender) for standing in entry.state.standings]
    told = [_stands(seen, entry, now, paused), *about, *standings]
    return [printable(line, 4000) for line in told]


def _is_about(message_id: str) -> str:
    return f"It is a notification of ours, about message {message_id}: `mailer spool why {message_id}`."


_LIVE = {Place.NEW, Place.CUR, Place.RETRY}


def _stands(seen: Seen, entry: Entry, now: float, paused: Pause | None) -> str:
    state = entry.state
    attempts = words.count(state.attempts, "attempt")
    if paused and seen.spot.place in _LIVE and not seen.in_hand:
        attempted = f"after {attempts}" if state.attempts else "not tried yet"
        return f"Waiting, {attempted}; sending is {describe(paused)}."
    if seen.spot.place in {Place.NEW, Place.RETRY}:
        return _waiting(entry, now)
    died = "Its runner died with it; the next run takes it over at once."
    held = state.held or "its journal does not say why"
    return {
        Place.CUR: "In a runner's hands at this moment." if seen.in_hand else died,
        Place.HOLD: f"Held: {held}. `mailer spool release {seen.id}` lets it go on.",
        Place.FAILED: f"Failed: given up after {attempts}. `mailer spool retry {seen.id}` tries it again.",
        Place.SENT: _sent(
            {s.hop for s in state.standings}, f"after {attempts}; this is the copy that is kept"
        ),
        Place.CORRUPT: f"Put away as unreadable, never to be sent: {seen.reason}.",
    }[seen.spot.place]


def _sent(hops: Collection[str], rest: str) -> str:
    """Say where a message is that all its recipients have: what never left this host reached nobody."""
    if set(hops) == {LOCAL}:
        return f"Kept in the local Maildir; it has not left this host; {rest}."
    besides = ", of whom some have it in the local Maildir only" if LOCAL in hops else ""
    return f"Sent to every recipient{besides}; {rest}."


def _waiting(entry: Entry, now: float) -> str:
    state = entry.state
    if not state.attempts and state.next is not None:
        return f"Not tried yet; it will be {words.until(state.next, now)}."
    if not state.attempts:
        waited = words.duration(now - entry.block.received)
        return (
            f"Waiting for its first attempt, for {waited}: no runner has taken it yet (mailer-send --once)."
        )
    when = "at the next run" if state.next is None else words.until(state.next, now)
    return f"Waiting to be tried again {when}, after {words.count(state.attempts, 'attempt')}."


_MEANINGS = {
    Status.PENDING: "not tried yet",
    Status.SENT: "the next hop took responsibility",
    Status.DEFERRED: "tried, and not delivered yet",
    Status.BOUNCED: "refused for good",
    Status.EXPIRED: "not delivered within the maximum age",
    Status.UNCERTAIN: "handed over whole, and no final reply: delivered or not, nobody knows",
}


def _standing(standing: Standing, sender: str) -> str:
    meaning = _MEANINGS[standing.status]
    if standing.status is Status.SENT and standing.hop == LOCAL:
        meaning = "kept in the local Maildir"
    elif standing.status is Status.EXPIRED and standing.handed_to:
        meaning = _in_doubt(standing)
    return f"{outcome(standing)} ({meaning}{_telling(standing, sender)})"


def _telling(standing: Standing, sender: str) -> str:
    """Say whether the sender knows."""
    if standing.notice:
        of_what = "" if standing.status.final else " that it had failed"
        return f"; the sender is told{of_what} in {standing.notice}"
    if standing.status in {Status.BOUNCED, Status.EXPIRED}:
        if not sender:
            return "; nobody is told: it is from <>"
        return "" if standing.recipient.wants("FAILURE") else "; the sender wanted not to be told"
    return f"; the sender was told of the delay in {standing.warned}" if standing.warned else ""


def outcome(standing: Standing) -> str:
    """Say how one recipient stands, where, and what was said of it."""
    at = f" at {standing.hop}" if standing.hop else ""
    reply = f": {standing.reply}" if standing.reply else ""
    return f"{words.address(standing.address)}: {standing.status}{at}{reply}"


def verdict_of_ledger(events: Sequence[Event]) -> list[str]:
    """Say what became of a message whose file is gone, from its ledger lines in order."""
    last: dict[str, Standing] = {}
    for event in events:
        if event.event in _OUTCOMES | {Kind.ACCEPTED}:
            last |= {address: _stood(address, event, last.get(address)) for address in event.to}
    removed = next((event for event in reversed(events) if event.event == "removed"), None)
    about = [_is_about(event.about) for event in events if event.about][:1]
    if removed:
        by = f" by {removed.by}" if removed.by else ""
        lines = [f"Removed{by} at {words.moment_of(removed.at)}; no file is left in the spool."]
    elif last and all(standing.status is Status.SENT for standing in last.values()):
        lines = [_sent({standing.hop for standing in last.values()}, "no file is left in the spool")]
    else:
        lines = [
            "Its file is no longer in the spool, and the ledger does not say why; it knows only what follows."
        ]
    return [printable(line, 4000) for line in (*lines, *about, *map(_last_word, last.values()))]


def _stood(address: str, event: Event, before: Standing | None) -> Standing:
    status = Status(event.event) if event.event in _OUTCOMES else Status.PENDING
    in_doubt = status is Status.EXPIRED and before is not None and before.status is Status.UNCERTAIN
    doubted = before.hop if before and in_doubt else ""
    return Standing(Recipient(address), status, event.reply, event.hop, doubted=doubted)


def _last_word(standing: Standing) -> str:
    doubt = f" ({_in_doubt(standing)})" if standing.doubted else ""
    return f"{outcome(standing)}{doubt}"


def _in_doubt(standing: Standing) -> str:
    return f"given up; was handed to {standing.handed_to}, whose answer was lost; it may have been delivered"
