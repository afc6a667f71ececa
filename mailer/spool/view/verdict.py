"""The state of a message in words for the operator: what keeps it, until when, and what to do first.

The advice about a reply (`Outlook.advise`) comes from the caller, which can interpret replies; this module
interprets the journal.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence

import msgspec

from mailer.mail import clock
from mailer.mail.duration import duration
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.spool import words
from mailer.spool.entry import Entry
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import LOCAL, Place
from mailer.spool.message_state import OUTCOMES, Standing
from mailer.spool.view.inspect import NOT_PERMITTED, Seen
from mailer.spool.view.obstacles import Obstacle, next_attempt, sentences
from mailer.spool.view.story import outcome, turn

NOTHING_TO_DO = "nothing to do, wait for the next attempt."
"""The end of the advice for ordinary situations; it is left out while the next attempt is overdue."""
_ADVICE = 3
"""The most pieces of advice; recipients of one message mostly meet the same trouble."""
_HOPS = 8
"""The most hops of the last attempt to name."""


def _no_advice(_: Standing) -> str:
    return ""


def _not_known(_: str) -> Standing | None:
    return None


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What decides how a message continues, in addition to the message itself."""

    now: float
    """Seconds since the epoch."""
    obstacles: tuple[Obstacle, ...] = ()
    """What keeps back all mail that could be tried."""
    max_age: float = 0.0
    """Seconds until a message is given up, `retry.maxAge`; 0 if not known."""
    fate: Callable[[str], Standing | None] = _not_known
    """Returns the status of the notification with this id; None if it is not known."""
    name: Callable[[str], str] = str
    """Formats a hop with the name that the operator gave it."""
    advise: Callable[[Standing], str] = _no_advice
    """Returns what to do about a recipient's status; empty if nothing is known."""


def verdict(seen: Seen, events: Sequence[Event], outlook: Outlook) -> list[str]:
    """Describe the state of a message in the spool and what the operator can do; most important first.

    Args:
        seen: the message.
        events: its journal's events.
        outlook: what else decides.
    """
    if seen.entry is None and seen.reason == NOT_PERMITTED:
        return [_not_permitted(seen.spot.path)]
    if seen.entry is None:
        what = f"Unreadable: {seen.reason}. It is never sent; the file is {seen.spot.path} in the spool."
        return [f"{what} Have its application submit it again; find what damages files (disk, program)."]
    entry = seen.entry
    state = entry.state
    told = [
        _stands(seen, entry, events, outlook),
        *([is_about(state.about)] if state.about else []),
        *([is_copy(state.replays)] if state.replays else []),
        *(_standing(standing, seen, outlook) for standing in state.standings),
        *_other_hops(entry, events, outlook),
        *_deaths(events, seen.spot.place),
        *_timely(
            advice((*_told_of(state.standings, seen), *_elsewhere(entry, events)), outlook, seen.id),
            entry,
            outlook,
        ),
    ]
    return [printable(line, 4000) for line in told]


def gist(seen: Seen, events: Sequence[Event], outlook: Outlook, whom: Callable[[str], bool]) -> list[str]:
    """Say what keeps a message from these recipients and what to do, without `verdict`'s list of them."""
    if seen.entry is None:
        return verdict(seen, events, outlook)
    asked = asked_about(seen.entry.state.standings, whom)
    settled = seen.spot.place in _LIVE and all(each.status.final for each in asked)
    stands = (
        [f"{outcome(asked[0])}; others of the same message still wait."]
        if settled
        else [
            _stands(seen, seen.entry, events, outlook),
            *_other_hops(seen.entry, events, outlook),
            *_deaths(events, seen.spot.place),
        ]
    )
    others = [] if settled else _elsewhere(seen.entry, events)
    told = _timely(advice((*_told_of(asked, seen), *others), outlook, seen.id), seen.entry, outlook)
    return [printable(line, 4000) for line in (*stands, *told)]


def asked_about(standings: Sequence[Standing], whom: Callable[[str], bool]) -> Sequence[Standing]:
    """Return the recipients that were asked about; all if the envelope has none (`redirectAllTo`)."""
    return [each for each in standings if whom(each.address)] or standings


def _told_of(standings: Sequence[Standing], seen: Seen) -> list[Standing]:
    """Leave out the recipients to whom the message is being sent now: nothing is to be done for them."""
    return [each for each in standings if not _is_being_sent(each, seen)]


def _timely(lines: list[str], entry: Entry, outlook: Outlook) -> list[str]:
    late = words.is_late(entry.state.next, outlook.now)
    return [line for line in lines if not (late and line.endswith(NOTHING_TO_DO))]


def advice(standings: Collection[Standing], outlook: Outlook, message_id: str) -> list[str]:
    """Return what to do first; recipients still waiting come before those that have the mail.

    If there is more than one piece of advice, each begins with the addresses that it is about.
    """
    about: dict[str, list[str]] = {}
    for standing in sorted(standings, key=lambda standing: standing.status is Status.SENT):
        if said := outlook.advise(standing):
            about.setdefault(said, []).append(standing.address)
    return [
        (_whom(whom) if len(about) > 1 else "") + said.replace("{id}", message_id)
        for said, whom in list(about.items())[:_ADVICE]
    ]


def _whom(addresses: Sequence[str]) -> str:
    """Return the beginning of a line about some recipients; trouble that concerns all mail has no address."""
    named = [words.address(address) for address in addresses if address]
    more = f" and {len(named) - 1} more" if len(named) > 1 else ""
    return f"For {named[0]}{more}: " if named else ""


def _not_permitted(path: str) -> str:
    return (
        f"No run can open it: Permission denied. The file, {path} in the spool, belongs to another user (as "
        "after a restore by root) or has another mode, and need not be damaged. Before it is submitted "
        "again, type as root, in the spool's directory: "
        f"`chown --reference=. {path}; chmod 600 {path}`. Then the next run goes on with it."
    )


def is_about(message_id: str) -> str:
    return f"It is a notification by mailer about message {message_id}: `mailer spool why {message_id}`."


def is_copy(message_id: str) -> str:
    return f"It is a copy for other recipients of message {message_id}: `mailer spool why {message_id}`."


_LIVE = {Place.NEW, Place.CUR, Place.RETRY}


def _stands(seen: Seen, entry: Entry, events: Sequence[Event], outlook: Outlook) -> str:
    state = entry.state
    attempts = words.count(state.attempts, "attempt")
    if (
        any(each.until is None for each in outlook.obstacles)
        and seen.spot.place in _LIVE
        and not seen.claimed
    ):
        attempted = f"after {attempts}" if state.attempts else "not tried yet"
        return f"Waiting, {attempted}; sending is {sentences(outlook.obstacles)}"
    if seen.reason and seen.spot.place in _LIVE and not seen.claimed:
        return (
            f"No run takes it: {seen.reason}, as a copy by hard links (cp -al) leaves it. Type, in the "
            f"spool's directory, `find / -xdev -samefile {seen.spot.path}`, and remove the name outside."
        )
    if state.move:
        since = words.moment_of(state.move.at)
        return f"Not sent by any spool since {since}, because it is {state.held}."
    if seen.spot.place in {Place.NEW, Place.RETRY}:
        return _waiting(entry, events, outlook)
    ended = "Its runner ended before it was finished (it died, or had to give it back); the next run goes on."
    held = state.held or "its journal does not say why"
    return {
        Place.CUR: _claimed(seen, state.throttled, outlook.now) if seen.claimed else ended,
        Place.HOLD: f"{_kept_back(held)}. `mailer spool release {seen.id}` lets it go on.",
        Place.FAILED: f"Failed: given up after {attempts}. `mailer spool retry {seen.id}` tries it again.",
        Place.SENT: sent_words(
            {s.hop for s in state.standings}, f"after {attempts}; this is the copy that is kept"
        ),
        Place.CORRUPT: f"Quarantined as unreadable, and never sent: {seen.reason}.",
    }[seen.spot.place]


def _kept_back(reason: str) -> str:
    """Say why a message is held; if an operator gave no reason, the journal says "held by" and a name."""
    return f"H{reason[1:]}" if reason.startswith("held by ") else f"Held: {reason}"


_HANGS = 3600.0
"""Seconds after which a runner that has recorded nothing is more likely stopped than waiting for a server."""


def _claimed(seen: Seen, throttled: Event | None, now: float) -> str:
    since = max(seen.changed, _time(throttled.next) if throttled else 0.0)
    if now - since > _HANGS:
        return (
            f"Claimed by a runner, and nothing has happened since {words.moment(since)}: check whether its "
            "mailer-send is stopped (ps -C mailer-send -o pid,stat,lstart), and end it; nothing is lost, the "
            "next run takes the message over."
        )
    if throttled:
        return f"Claimed by a runner; it {turn(throttled)}."
    return "Claimed by a runner, which is delivering it now."


def _time(text: str) -> float:
    try:
        return clock.seconds(text)
    except ValueError:
        return 0.0


def sent_words(hops: Collection[str], rest: str) -> str:
    """Say where a message is that was sent to all recipients; in the local Maildir it has reached none."""
    if set(hops) == {LOCAL}:
        return f"Kept in the local Maildir; it has not left this host; {rest}."
    besides = ", of whom some have it in the local Maildir only" if LOCAL in hops else ""
    return f"Sent to every recipient{besides}; {rest}."


_START = "start one (mailer-send --watch, or mailer-send --once by cron)"


def _waiting(entry: Entry, events: Sequence[Event], outlook: Outlook) -> str:
    state, now = entry.state, outlook.now
    tried = state.attempts > 0 or any(event.event == Kind.COMMITTING for event in events)
    rests = f" {sentences(outlook.obstacles)}" if outlook.obstacles else ""
    if words.is_late(state.next, now) and not rests:
        rests = f" No runner has claimed it since: {_START}."
    expected = next_attempt(state.next, outlook.obstacles).words(now)
    if state.scheduled is not None and state.scheduled > now:
        return (
            f"Not tried yet; {words.scheduled(state.scheduled, now)}, as its sender wants it. "
            f"`mailer spool retry {entry.id}` sends it now.{rests}"
        )
    if not tried and state.next is not None:
        return f"Not tried yet; {expected}.{rests}"
    if not tried:
        waited = duration(now - entry.block.received)
        why = rests or f" no runner has claimed it yet: {_START}."
        return f"Waiting for its first attempt, for {waited}:{why}"
    end = min(state.since + outlook.max_age, state.expires or math.inf)
    until = f"; given up on {words.moment(end)} unless sent before"
    if end <= now:
        until = f"; given up then unless sent, because its time ended on {words.moment(end)}"
    # A recipient that was refused ambiguously is asked once more and then given up: the advice says so.
    lasts = outlook.max_age and not all(each.unclear and each.reply.startswith("5") for each in state.open)
    return (
        f"Waiting to be tried again, after {words.count(state.attempts, 'attempt')}; "
        f"{expected}{until if lasts else ''}.{rests}"
    )


_MEANINGS = {
    Status.PENDING: "not tried yet",
    Status.SENT: "the next hop took responsibility",
    Status.DEFERRED: "not delivered yet",
    Status.BOUNCED: "permanently refused",
    Status.EXPIRED: "not delivered in time",
    Status.UNCERTAIN: "sent whole, but the final reply was lost: it may or may not have been delivered",
}


def _standing(standing: Standing, seen: Seen, outlook: Outlook) -> str:
    assert seen.entry is not None
    entry, meaning = seen.entry, _MEANINGS[standing.status]
    if _is_being_sent(standing, seen):
        return f"{words.address(standing.address)}: being sent at {standing.hop} (no final reply yet)"
    if standing.status is Status.SENT and standing.hop == LOCAL:
        meaning = "kept in the local Maildir"
    elif standing.status is Status.EXPIRED and standing.handed_to:
        meaning = in_doubt_words(standing)
    elif standing.status is Status.PENDING and (standing.reply or entry.state.attempts):
        meaning = "to be tried again"
    return f"{outcome(standing)} ({meaning}{_telling(standing, entry.envelope.sender, outlook)})"


def _is_being_sent(standing: Standing, seen: Seen) -> bool:
    """Tell whether a live runner is handing it over; if the runner dies, the recipient stays uncertain."""
    return seen.claimed and standing.status is Status.UNCERTAIN and not standing.reply


def _telling(standing: Standing, sender: str, outlook: Outlook) -> str:
    """Say whether the sender was notified."""
    if standing.notice:
        of_what = "" if standing.status.final else " that it had failed"
        return f"; {_heard(standing.notice, outlook.fate(standing.notice), of_what)}"
    if standing.status in {Status.BOUNCED, Status.EXPIRED}:
        if not sender:
            return "; no notification is sent: the sender is <> (if a provider refuses <>, set bounceFrom)"
        return "" if standing.recipient.wants("FAILURE") else "; the sender asked for no notification"
    return f"; the sender was notified of the delay in {standing.warned}" if standing.warned else ""


def _heard(notice: str, stands: Standing | None, of_what: str) -> str:
    """Say what happened to a notification; its own failure is not reported to any sender."""
    if stands is None:
        return f"the sender is notified{of_what} in {notice}"
    reply = f": {stands.reply}" if stands.reply else ""
    match stands.status:
        case Status.SENT:
            return f"the sender is notified{of_what} in {notice}, sent to {words.address(stands.address)}"
        case Status.BOUNCED | Status.EXPIRED:
            return (
                f"the sender was not notified{of_what}: notification {notice} failed at {stands.hop}{reply}"
            )
        case _:
            return f"the sender is to be notified{of_what} in {notice}, not delivered yet{reply}"


def _elsewhere(entry: Entry, events: Sequence[Event]) -> list[Standing]:
    """Return the trouble of the last attempt at hops other than those in the recipients' statuses."""
    attempt = max((event.attempt for event in events if event.event == Kind.TROUBLE), default=0)
    if attempt < entry.state.attempts or not any(s.status is not Status.SENT for s in entry.state.standings):
        return []
    met = {(e.hop, e.reply) for e in events if e.event == Kind.TROUBLE and e.attempt == attempt}
    told = sorted(met - {(standing.hop, standing.reply) for standing in entry.state.standings})
    return [Standing(Recipient(""), Status.DEFERRED, reply, hop) for hop, reply in told]


def _other_hops(entry: Entry, events: Sequence[Event], outlook: Outlook) -> Iterator[str]:
    """Name each hop at which the last attempt met trouble, except those in the recipients' statuses."""
    met = _elsewhere(entry, events)
    for each in met[:_HOPS]:
        name, attempts = outlook.name(each.hop), entry.state.attempts
        yield f"Before that, in attempt {attempts}, at {name}: {each.reply}."
    if len(met) > _HOPS:
        yield f"... and {len(met) - _HOPS} hops more, below."


_UNSENT = "it was read, signed or connected for"


def _deaths(events: Sequence[Event], place: Place) -> Iterator[str]:
    """Say how often runners died with the message since its last outcome, and what they were doing."""
    died: dict[str, int] = {}
    before = _UNSENT
    for event in events:
        if event.event == Kind.RECOVERED:
            died[before] = died.get(before, 0) + 1
        elif event.event == Kind.COMMITTING:
            before = f"it was handed to {event.hop}"
        elif event.event in OUTCOMES or event.event == Kind.RELEASED:
            died, before = {}, _UNSENT
        elif event.event == Kind.TROUBLE:
            before = f"another hop than {event.hop} was tried"
    if died:
        where = "; ".join(f"{words.count(times, 'time')} while {doing}" for doing, times in died.items())
        todo = "find in the log of mailer-send what ended the runs (out of memory, killed, a defect)"
        then = ", then release it" if place is Place.HOLD else ""
        yield f"Runners died while they held it: {where}. Do first: {todo}{then}."


def in_doubt_words(standing: Standing) -> str:
    return f"given up; was handed to {standing.handed_to}, whose answer was lost; it may have been delivered"
