"""Makes events from lines of the ledger: one for each recipient.

An event's id is the same whenever it is told, and also when a runner tells again what a dead one may have
told: what is final for a recipient is known by the message, the attempt and the address; what happens more
than once in an attempt, by its time as well.
"""

import hashlib
from collections.abc import Collection, Iterator

import msgspec

from mailer.config.on_event import EventField, EventKind
from mailer.mail.outcome import SUPPRESSION_LIST
from mailer.maillog.ledger import LOST, Line

_KINDS = {
    "sent": EventKind.SENT,
    "bounced": EventKind.BOUNCED,
    "expired": EventKind.EXPIRED,
    "deferred": EventKind.DELAYED,
    "uncertain": EventKind.DELAYED,
    "held": EventKind.HELD,
}
_FINAL = {EventKind.SENT, EventKind.BOUNCED, EventKind.EXPIRED, EventKind.SUPPRESSED}
GAP, TEST = "gap", "test"
"""Events that are not about a message: some were lost before they were told; a trial."""
_LONGEST_REPLY = 1000
"""Characters, as in the message's journal."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What is told of one recipient. Times and words are the ledger's; what is empty is left out."""

    id: str
    event: str
    at: str
    queue_id: str = ""
    """The message's, as its client was told it ("queued as")."""
    sender: str | None = msgspec.field(name="from", default=None)
    """Empty: the null sender."""
    to: str = ""
    relay: str = ""
    dsn: str = ""
    reply: str = ""
    attempt: int = 0
    next: str = ""
    delay: float | None = None
    reason: str = ""
    since: str = ""
    """Of a gap: the events after this time, and up to `until`, are lost."""
    until: str = ""


def is_told(line: Line, kinds: Collection[EventKind]) -> bool:
    """Tell whether a line makes events, where these kinds are chosen; a gap is always told."""
    return line.event == LOST or kind_of(line) in kinds


def kind_of(line: Line) -> EventKind | None:
    """Return what kind of event a line is; None: it is none."""
    if line.event == "bounced" and line.relay == SUPPRESSION_LIST:
        return EventKind.SUPPRESSED
    return _KINDS.get(line.event)


def events_of(line: Line, fields: Collection[EventField]) -> Iterator[Event]:
    """Make the events of a line that has some, in the order of its recipients.

    Args:
        line: of the ledger.
        fields: those that are told.
    """
    if line.event == LOST:
        yield gap(line.since, line.at, line.at)
        return
    kind = kind_of(line)
    assert kind is not None
    told = {field.value: _value(line, field) for field in fields if field is not EventField.RECIPIENT}
    if EventField.SENDER in fields:
        told["sender"] = told.pop(EventField.SENDER.value)
    for address in line.to:
        to = address if EventField.RECIPIENT in fields else ""
        yield Event(id=_id(line, kind, address), event=kind, at=line.at, queue_id=line.id, to=to, **told)  # type: ignore[arg-type]  # as the fields are declared


def gap(since: str, until: str, at: str) -> Event:
    """Make the event that others are lost, those after one time and up to another."""
    return Event(id=unique(GAP, since, until), event=GAP, at=at, since=since, until=until)


def unique(*parts: object) -> str:
    """Make an id of what distinguishes an event."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def _id(line: Line, kind: EventKind, address: str) -> str:
    when = "" if kind in _FINAL else line.at
    return unique(line.id, kind, line.attempt, address, when)


def _value(line: Line, field: EventField) -> object:
    if field is EventField.SENDER:
        return line.sender
    value: object = getattr(line, field.value)
    return value[:_LONGEST_REPLY] if isinstance(value, str) else value
