"""The summary of a message: the columns of a listing, for a third of the cost of `look`.

An operator may list a hundred thousand messages to find one. Nearly all of them are ordinary files: the block
is as we write it, no address is quoted, every line of the journal parses. For such a file the few columns are
taken directly from its bytes. Anything else (damage, a link, a dead runner's message, an operator's requeue)
is left to `look`, which handles all cases: a summary may give up, but is never wrong.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256

import msgspec

from mailer.mail import clock
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.outcome import Status
from mailer.spool import journal
from mailer.spool.entry import BEFORE_LENGTH, FORMAT, LENGTH_WIDTH
from mailer.spool.journal import OUTCOMES, Event, Kind
from mailer.spool.layout import Place, Spool
from mailer.spool.scan import QUEUE
from mailer.spool.view.inspect import Mine, Seen, everything, join_scans

_READ = 8 * 1024
"""Octets read of a file's beginning, and of its journal if that begins later: enough for ordinary files."""

_PAGE = 4096
"""Octets. The page size, or a divisor of it: a read may end early at the beginning of a bad page."""

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOATIME
"""Without updating the access time: otherwise a first listing would write a hundred thousand inodes. Only the
file's owner may open it like this; for another user's file we give up."""

_ORDINARY = {Place.NEW, Place.RETRY, Place.HOLD, Place.FAILED, Place.SENT}
"""The places in which a message's file has everything that its line in a listing shows."""

_BLOCK = compile_late(
    rf"Spool-Format: {FORMAT}\r\n"
    r"Spool-Id: ([0-9A-Z]{26})\r\n"
    r"Spool-Received: ([-0-9T:.]{26}Z)\r\n"
    r"Spool-User: [^\r\n]*+\r\n"
    r"Spool-Peer: [^\r\n]*+\r\n"
    r"Spool-Options: [^\r\n]*+\r\n"
    r'Spool-Sender: <([^<>"\r\n]*+)>\r\n'
    r'Spool-Recipient: <([^<>"\r\n]++)>(?: [^\r\n]*+)?\r\n'
    r'((?:Spool-Recipient: <[^<>"\r\n]++>(?: [^\r\n]*+)?\r\n)*)'
    r"Spool-Length: ([0-9]{10})\r\n"
)
_ADDRESS = compile_late(r"^Spool-Recipient: <([^>]+)>", re.MULTILINE)


class Summary(msgspec.Struct, frozen=True, gc=False):
    """The columns of a message that can be read."""

    id: str
    place: Place
    received: float
    """Seconds since the epoch."""
    length: int
    sender: str
    recipients: Sequence[str]
    statuses: Sequence[Status]
    """The status of each recipient."""
    attempts: int
    next: float | None
    """As `State.next`."""
    held: str
    """As `State.held`."""
    reply: str
    """The reply for the first recipient that still waits, or else for the first that was given up."""
    in_hand: bool = False
    reason: str = ""
    """This and `in_hand` as in `Seen`."""
    throttled: Event | None = None
    """As `State.throttled`, if a runner holds the message."""


def summaries(
    spool: Spool, now: float, places: Iterable[Place] = QUEUE, mine: Mine = everything
) -> Iterator[Seen | Summary]:
    """Yield what `inspect.listing` does, as summaries where possible; arguments and errors are the same."""
    return join_scans(spool, now, places, _at_a_glance, mine)


def _at_a_glance(directory: int, place: Place, name: str) -> Summary | None:
    if place not in _ORDINARY:
        return None
    try:
        fd = os.open(name, _FLAGS, dir_fd=directory)
    except OSError:
        return None
    try:
        return _columns(fd, place, name)
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)


def _columns(fd: int, place: Place, name: str) -> Summary | None:
    """Take the columns from an open file; if it is not ordinary, return None or raise ValueError."""
    head = os.pread(fd, _READ, 0)
    if len(head) < _READ and len(head) % _PAGE == 0:
        return None  # It may continue after a bad sector.
    offset = head.find(BEFORE_LENGTH) + len(BEFORE_LENGTH) + LENGTH_WIDTH
    block = head[:offset]
    found = _BLOCK.fullmatch(block.decode())
    if found is None:
        return None
    called, received, sender, first, others, digits = found.groups()
    length = int(digits)
    lines = head[offset + length :] if len(head) < _READ else _read(fd, offset + length)
    events = journal.decode_whole(lines) if len(lines) < _READ else None
    if (
        not events
        or called != name
        or events[0].event != _ACCEPTED
        or events[0].envelope != sha256(block).hexdigest()
    ):
        return None
    addresses = [first, *_ADDRESS.findall(others)] if others else [first]
    if (folded := _fold(addresses, events)) is None:
        return None
    return Summary(name, place, _seconds(received), length, sender, *folded)


def _read(fd: int, offset: int) -> bytes:
    """Read `_READ` octets, or up to the end of the file; raises ValueError if a bad sector may be there."""
    data = os.pread(fd, _READ, offset)
    if len(data) < _READ and (offset + len(data)) % _PAGE == 0:
        raise ValueError("it may go on")
    return data


_Folded = tuple[list[str], list[Status], int, float | None, str, str]


def _fold(addresses: list[str], events: list[Event]) -> _Folded | None:
    """Fold the accepted line and later ones, as `journal.advance` does, into `recipients` to `reply`."""
    last: dict[str, Event | None] = dict.fromkeys(addresses)
    attempts, held = 0, ""
    for event in events[1:]:
        kind = event.event
        if kind in OUTCOMES:
            attempts = max(attempts, event.attempt)
            for address in event.to:
                if address in last and ((known := last[address]) is None or known.event != _SENT):
                    last[address] = event
        elif kind == Kind.HELD:
            held = event.reason or "held"
        elif kind == Kind.RELEASED:
            held = ""
        elif kind not in _SAY_NOTHING_HERE or (kind == Kind.TROUBLE and _in_doubt(last, event.to)):
            return None
    statuses, due, reply = _stand(last.values(), events[0].next)
    return list(last), statuses, attempts, due, held, reply


def _stand(outcomes: Iterable[Event | None], first: str) -> tuple[list[Status], float | None, str]:
    """Return each recipient's status, when the first is due, and the reply, from the last outcomes."""
    statuses: list[Status] = []
    waiting, given_up = "", ""
    times = []
    for event in outcomes:
        if event is None:
            statuses.append(_PENDING)
            times.append(first)
            continue
        status = OUTCOMES[event.event]
        statuses.append(status)
        if status not in _FINAL:
            times.append(event.next)
            waiting = waiting or event.reply
        elif status is not _SENT_STATUS:
            given_up = given_up or event.reply
    due = min(map(_seconds, times)) if times and all(times) else None
    return statuses, due, waiting or given_up


def _telling(statuses: Iterable[Status], replies: Iterable[str]) -> str:
    """Return the reply that explains why a message waits, or else why it was given up; empty if none does."""
    first: dict[bool, str] = {}
    for status, reply in zip(statuses, replies, strict=True):
        if reply and status is not Status.SENT:
            first.setdefault(status in _FINAL, reply)
    return first.get(False) or first.get(True, "")


def _in_doubt(last: dict[str, Event | None], addresses: Iterable[str]) -> bool:
    outcomes = map(last.get, addresses)
    return any(event and OUTCOMES[event.event] is Status.UNCERTAIN for event in outcomes)


_SAY_NOTHING_HERE = {
    Kind.RECOVERED,
    Kind.ALONE,
    Kind.ACCOMPANIED,
    Kind.RETURNED,
    Kind.THROTTLED,
    Kind.NOTIFIED,
    Kind.TROUBLE,
}
"""Lines that change no column; a `trouble` line may, if it ends a doubt."""
_FINAL = {status for status in Status if status.final}
_ACCEPTED, _SENT = Kind.ACCEPTED, Kind.SENT
_PENDING, _SENT_STATUS = Status.PENDING, Status.SENT
"""Module-level names, because Python 3.11 runs Python code to look up a member in its enum class."""


def _seconds(text: str) -> float:
    """Parse a time as `clock.seconds` does, in half the time; raises ValueError."""
    if text[26:] != "Z":
        raise ValueError(text)
    return (_minute(text[:16]) + int(text[17:19] + text[20:26])) / 1_000_000


@lru_cache(maxsize=256)
def _minute(text: str) -> int:
    return round(clock.seconds(text + "Z")) * 1_000_000


def of_seen(seen: Seen | Summary) -> Summary | None:
    """Return the summary of a message that was fully read; None if it cannot be read."""
    if isinstance(seen, Summary):
        return seen
    entry = seen.entry
    if entry is None:
        return None
    state = entry.state
    statuses = [standing.status for standing in state.standings]
    return Summary(
        id=seen.id,
        place=seen.spot.place,
        received=entry.block.received,
        length=entry.length,
        sender=entry.envelope.sender,
        recipients=[standing.address for standing in state.standings],
        statuses=statuses,
        attempts=state.attempts,
        next=state.next,
        held=state.held,
        reply=_telling(statuses, (standing.reply for standing in state.standings)),
        in_hand=seen.in_hand,
        reason=seen.reason,
        throttled=state.throttled if seen.in_hand else None,
    )
