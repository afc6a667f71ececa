"""Build events from ledger lines, one for each recipient.

An event keeps its id when it is delivered again, and when recovery repeats the ledger line of a dead runner.
The id of a final outcome is derived from the message, the attempt and the address. The id of an event that
can occur more than once in an attempt is also derived from its time.
"""

import hashlib
from collections.abc import Collection, Iterator

import msgspec

from mailer.config.calls import EventField, EventKind
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
"""Events that are not about a message: events were lost before delivery; the operator tests the receiver."""
_MAX_REPLY = 1000
"""Characters, the same limit as in the message's journal."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One event about one recipient. Times and texts are those of the ledger; empty fields are omitted."""

    id: str
    event: str
    at: str
    queue_id: str = ""
    """The message's id, as in the reply to its client ("queued as")."""
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
    """For a gap: the events after this time and up to `until` are lost."""
    until: str = ""


def is_told(line: Line, kinds: Collection[EventKind]) -> bool:
    """Return whether a line makes events if these kinds are chosen; a gap always does."""
    return line.event == LOST or kind_of(line) in kinds


def kind_of(line: Line) -> EventKind | None:
    """Return the kind of event that a line makes; None: it makes none."""
    if line.event == "bounced" and line.relay == SUPPRESSION_LIST:
        return EventKind.SUPPRESSED
    return _KINDS.get(line.event)


def events_of(line: Line, fields: Collection[EventField]) -> Iterator[Event]:
    """Yield the events of a line for which `is_told` is true, in the order of its recipients.

    Args:
        line: a ledger line.
        fields: the optional fields that events contain.
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
    """Return the event that reports the loss of the events after `since` and up to `until`."""
    return Event(id=unique(GAP, since, until), event=GAP, at=at, since=since, until=until)


def unique(*parts: object) -> str:
    """Return an id that is a hash of these parts."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def _id(line: Line, kind: EventKind, address: str) -> str:
    when = "" if kind in _FINAL else line.at
    return unique(line.id, kind, line.attempt, address, when)


def _value(line: Line, field: EventField) -> object:
    if field is EventField.SENDER:
        return line.sender
    value: object = getattr(line, field.value)
    return value[:_MAX_REPLY] if isinstance(value, str) else value
