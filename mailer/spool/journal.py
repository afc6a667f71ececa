"""The journal: the lines after a message that record its history.

Lines are only ever appended: one JSON object each, ending in CRLF. A line that does not parse as an object
(torn by a crash, or damaged) is ignored, wherever it stands. `message_state` folds them to a state.
"""

from collections.abc import Container, Iterator
from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """The event that a line records."""

    ACCEPTED = "accepted"
    """The message was received whole, and the client may get its 250. The line has the digests; a file
    without it is incomplete."""
    COMMITTING = "committing"
    """The final dot is about to be sent for `to` at `hop`; until their outcome, these are uncertain."""
    SENT = "sent"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    UNCERTAIN = "uncertain"
    """The final reply was lost; `next` is the time of the next attempt."""
    AS_BEFORE = "as-before"
    """Deferred once more with the same replies: the recipients in `to`, or, without `to`, all that an earlier
    attempt deferred. Only `attempt` and `next` change."""
    TROUBLE = "trouble"
    """A next hop could not be used for `to`; the same attempt continued with another hop."""
    RECOVERED = "recovered"
    """A runner died while it held the claim; a runner of the boot in `boot` took the message over."""
    ALONE = "alone"
    """Recovered repeatedly: from here on the runner tries it while it holds no other message."""
    ACCOMPANIED = "accompanied"
    """From here on the runner may hold other messages too: an `alone` message was found to be merely waiting,
    or a `returned` message is tried again."""
    RETURNED = "returned"
    """The runner gave it back without dying: it was stopped, had no room, or could not move this file."""
    HELD = "held"
    RELEASED = "released"
    REQUEUED = "requeued"
    """The operator wants it tried now. Recipients in `to` become due and nothing else changes. Without `to`
    the message starts over, and refused and expired recipients are tried again too."""
    DATED = "dated"
    """It was accepted by a wall clock that was wrong; its age counts from `since`."""
    THROTTLED = "throttled"
    """Its runner holds it until its turn at `hop`, which comes at about `next`; `reason` says why."""
    NOTIFIED = "notified"
    """The notification with the id `notice`, in this spool, reports `to` to the sender (RFC 3464)."""
    MOVING = "moving"
    """It is being handed over to another spool by the handover `move`, and is not sent from here meanwhile:
    see `mailer.spool.handover`."""
    MOVED = "moved"
    """It belongs to the other spool, and is never sent from this one."""
    ARRIVING = "arriving"
    """This is the copy in the other spool, which is not sent until the first one has given it up."""
    ARRIVED = "arrived"
    """The first spool has given it up, so that it is sent from here."""
    STAYED = "stayed"
    """The handover ended without effect: it is sent from here."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One line. Unknown fields are ignored, so that an older runner can read a newer journal."""

    at: str
    event: str
    to: tuple[str, ...] = ()
    hop: str = ""
    reply: str = ""
    scope: str = ""
    attempt: int = 0
    next: str = ""
    """When `to` are tried again; in `accepted`: the time before which the sender wants no attempt."""
    tls: str = ""
    unclear: bool = False
    """In a deferral: the permanent refusal was ambiguous, so the next one like it bounces."""
    batch: int = 0
    """In a deferral: the session broke at one of several recipients, so the next transaction has at most so
    many of them."""
    reason: str = ""
    by: str = ""
    boot: str = ""
    sha256: str = ""
    envelope: str = ""
    action: str = ""
    """In `sent`, when the sender asked us for a notification of success: `relayed` or `delivered`."""
    notice: str = ""
    uptime: float = 0.0
    """In `accepted`: seconds on the boot clock of `boot`; 0 if unknown."""
    since: str = ""
    about: str = ""
    """In `accepted`: this message is a notification that we wrote, about the message with this id."""
    replays: str = ""
    """In `accepted`: this message is a copy of the one with this id, which an operator (`by`) sent again."""
    expires: str = ""
    """In `accepted`: the time after which the sender does not want it delivered."""
    once: str = ""
    """In `accepted`: the files in `once/` of its idempotency key and its drop, separated by a space."""
    move: str = ""
    """In the five lines of a handover: names it."""
    spool: str = ""
    """In `moving` and `moved`: the other spool, by the word in its mark."""


OVERDUE = "overdue"
"""The `reason` of a deferral that found the message older than its maximum age."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors of decoding damaged bytes; the last two are msgspec's for bad UTF-8 and deep nesting."""


def encode(*events: Event) -> bytes:
    """Return the lines for these events, each with its CRLF."""
    if len(events) == 1:
        return _encoder.encode(events[0]) + b"\r\n"
    return b"".join([_encoder.encode(event) + b"\r\n" for event in events])


def decode(journal: bytes) -> Iterator[Event]:
    """Yield the events of the lines that parse."""
    for line in journal.split(b"\n"):
        if line.lstrip(b" \t\r").startswith(b"{"):
            try:
                yield _decoder.decode(line)
            except _UNREADABLE:
                continue


def decode_whole(journal: bytes) -> list[Event]:
    """Decode a journal in which every line parses, in half the time of `decode`; otherwise return nothing.

    A torn line leaves a brace open, even after the next writer ended it, so the whole does not parse.
    """
    try:
        events = _decoder.decode_lines(journal)
    except _UNREADABLE:
        return []
    return events if journal.count(b"\n") == len(events) else []


def last_kind(tail: bytes, ignoring: Container[str]) -> str:
    """Return the kind of a journal's last line, without those to ignore; empty if none can be read.

    Args:
        tail: the last bytes of a message's file, damaged or not.
        ignoring: the kinds to skip.
    """
    for line in reversed(tail.split(b"\n")):
        for event in decode(line):
            if event.event not in ignoring:
                return event.event
    return ""
