"""The summary of a message: the columns of a listing, for a third of the cost of `look`.

An operator may list a hundred thousand messages to find one. Nearly all of them are ordinary files: the block
is as we write it, no address is quoted, every line of the journal parses. For such a file the few columns are
taken directly from its bytes. Anything else (damage, a link, a dead runner's message, an operator's requeue)
is left to `look`, which handles all cases: a summary may give up, but is never wrong. `inspect.listing` has
the same interface without summaries; a test compares the two on thousands of generated files.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

import msgspec

from mailer.mail import clock
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.outcome import FINAL, Status
from mailer.spool import journal
from mailer.spool.directory import Spool
from mailer.spool.entry import FORMAT
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import Place
from mailer.spool.message_state import OUTCOMES
from mailer.spool.scan import QUEUE
from mailer.spool.view.inspect import EVERYTHING, Seen, Share, join_scans

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
    b"Spool-Format: " + FORMAT.encode() + b"\r\n"
    rb"Spool-Id: (.{26})\r\n"
    rb"Spool-Received: (.{27})\r\n"
    rb"Spool-User: .*\r\n"
    rb"Spool-Peer: .*\r\n"
    rb"Spool-Options: .*\r\n"
    rb'Spool-Sender: <([^>"\r\n]*)>\r\n'
    rb'Spool-Recipient: <([^>"\r\n]+)>((?: .*)?\r\n(?:Spool-Recipient: <[^>"\r\n]+>(?: .*)?\r\n)*)'
    rb"Spool-Length: ([0-9]{10})\r\n"
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
    claimed: bool = False
    reason: str = ""
    """This and `claimed` as in `Seen`."""
    throttled: Event | None = None
    """As `State.throttled`, if a runner holds the message."""


def summaries(
    spool: Spool, now: float, places: Iterable[Place] = QUEUE, mine: Share = EVERYTHING
) -> Iterator[Seen | Summary]:
    """Yield what `inspect.listing` does, as summaries where possible; arguments and errors are the same."""
    return join_scans(spool, now, places, _summary_of, mine)


def _summary_of(directory: int, place: Place, name: str) -> Summary | None:
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
    found = _BLOCK.match(head)
    if found is None:
        return None
    called, received, sender, first, others, digits = found.groups()
    offset = found.end()
    block = head[:offset]
    if not block.isascii():
        block.decode()  # All of it must be UTF-8.
    addresses = [first.decode()]
    if len(others) > len(b"\r\n"):
        addresses += _ADDRESS.findall(others.decode())
    length = int(digits)
    lines = head[offset + length :] if len(head) < _READ else _read(fd, offset + length)
    events = journal.decode_whole(lines) if len(lines) < _READ else None
    if (
        not events
        or called != name.encode()
        or events[0].event != "accepted"
        or events[0].envelope != sha256(block).hexdigest()
        or (folded := _fold(addresses, events)) is None
    ):
        return None
    return Summary(name, place, clock.seconds(received.decode()), length, sender.decode(), *folded)


def _read(fd: int, offset: int) -> bytes:
    """Read `_READ` octets, or up to the end of the file; raises ValueError if a bad sector may be there."""
    data = os.pread(fd, _READ, offset)
    if len(data) < _READ and (offset + len(data)) % _PAGE == 0:
        raise ValueError("it may go on")
    return data


_Standing = tuple[Status, str, str, int]
"""A recipient's status, reply, due time and attempt, as in `message_state.Standing`."""
_Folded = tuple[list[str], list[Status], int, float | None, str, str]


def _fold(addresses: list[str], events: list[Event]) -> _Folded | None:
    """Fold the accepted line and later ones, as `fold.advance`, into `recipients` to `reply`."""
    accepted, *later = events
    last: dict[str, _Standing] = {}
    for address in addresses:
        last[address] = (_PENDING, "", accepted.next, 0)
    attempts, held = 0, ""
    for event in later:
        kind = event.event
        if (outcome := _OUTCOMES.get(kind)) is not None:
            attempts = max(attempts, event.attempt)
            standing = (outcome, event.reply, event.next, event.attempt)
            for address in event.to:
                if address in last and last[address][0] is not _SENT:
                    last[address] = standing
        elif kind == "as-before":
            attempts = max(attempts, event.attempt)
            _defer_again(last, event)
        elif kind in {"held", "released"}:
            held = (event.reason or "held") if kind == "held" else ""
        elif kind not in _SAY_NOTHING_HERE or (kind == "trouble" and _in_doubt(last, event.to)):
            return None
    statuses, due, reply = _stand(last.values())
    return [*last], statuses, attempts, due, held, reply


def _stand(standings: Iterable[_Standing]) -> tuple[list[Status], float | None, str]:
    """Return each recipient's status, when the first is due, and the reply."""
    statuses: list[Status] = []
    times: list[str] = []
    waiting, given_up = "", ""
    for status, reply, due, _ in standings:
        statuses.append(status)
        if status not in FINAL:
            times.append(due)
            waiting = waiting or reply
        elif status is not _SENT:
            given_up = given_up or reply
    return statuses, _first(times) if "" not in times else None, waiting or given_up


def _first(times: list[str]) -> float | None:
    """Return the first of the times at which recipients are due; raises ValueError."""
    if len(times) == 1:
        return clock.seconds(times[0])
    return min(map(clock.seconds, times), default=None)


def _defer_again(last: dict[str, _Standing], event: Event) -> None:
    """Do as `fold.advance` with an `as-before` line."""
    among = set(event.to)
    for address, (status, reply, _, attempt) in last.items():
        if status is _DEFERRED and (address in among if among else attempt < event.attempt):
            last[address] = (status, reply, event.next, event.attempt)


def _in_doubt(last: dict[str, _Standing], addresses: Iterable[str]) -> bool:
    return any(address in last and last[address][0] is Status.UNCERTAIN for address in addresses)


_OUTCOMES = {str(kind): status for kind, status in OUTCOMES.items()}
_SAY_NOTHING_HERE = {
    str(kind)
    for kind in (
        Kind.RECOVERED,
        Kind.ALONE,
        Kind.ACCOMPANIED,
        Kind.RETURNED,
        Kind.THROTTLED,
        Kind.NOTIFIED,
        Kind.TROUBLE,
    )
}
"""Lines that change no column; a `trouble` line may, if it ends a doubt."""
_PENDING, _DEFERRED, _SENT = Status.PENDING, Status.DEFERRED, Status.SENT
"""Module-level names, because Python 3.11 runs Python code to look up a member in its enum class. For the
same reason, and because plain strings are compared faster, kinds are literals here."""


def _telling(statuses: Iterable[Status], replies: Iterable[str]) -> str:
    """Return the reply that explains why a message waits, or else why it was given up; empty if none does."""
    first: dict[bool, str] = {}
    for status, reply in zip(statuses, replies, strict=True):
        if reply and status is not Status.SENT:
            first.setdefault(status in FINAL, reply)
    return first.get(False) or first.get(True, "")


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
        claimed=seen.claimed,
        reason=seen.reason,
        throttled=state.throttled if seen.claimed else None,
    )
