"""What must hold, judged from the clients' and the hops' logs and the documented format of the spool.

It shares no code with the product.
"""

from collections import Counter
from dataclasses import dataclass

from spool_walk import GIVEN_UP, Found, parse

from lab.disk import Disk, Inode
from lab.hops import Log, token_of

SPOOL = "/spool/"
PLACES = ("cur", "new", "retry", "hold", "failed", "corrupt", "sent", "tmp")
_OUTCOMES = {"sent", "deferred", "bounced", "expired"}
LAST_SECOND = 1.0
"""Seconds before a power cut whose `sent` may be lost (spool/README.md)."""


def messages(disk: Disk) -> list[tuple[str, Inode]]:
    """Return every file of the queue with its path relative to the spool."""
    return [
        (path.removeprefix(SPOOL), node)
        for path, node in disk.tree().items()
        if path.startswith(SPOOL) and path.removeprefix(SPOOL).split("/")[0] in PLACES
    ]


def file_of(disk: Disk, token: str) -> Found | None:
    """Return the message's file, as programs see it now."""
    marker = f"X-Token: {token}\r\n".encode()
    for path, node in messages(disk):
        if marker not in node.data or path.startswith("tmp/"):
            continue
        if b"multipart/report" not in (found := parse(node.data, path)).message:
            return found
    return None


def in_doubt(file: Found, recipient: str) -> bool:
    """Tell whether the file says that the recipient may have the message, without an answer on record."""
    handed_over = doubt = False
    for event in file.events:
        if recipient not in event.get("to", ()):  # type: ignore[operator]
            continue
        match event["event"]:
            case "committing":
                doubt |= handed_over
                handed_over = True
            case "uncertain":
                doubt, handed_over = True, False
            case kind if kind in _OUTCOMES:
                handed_over = False
    return doubt or handed_over


def objection(
    disk: Disk, log: Log, token: str, recipient: str, *, cut_at: float | None, excused: bool
) -> str:
    """Say why a recipient may not get a message again; empty: it may, or it is the first time.

    Args:
        disk: as programs see it.
        log: what clients and hops know.
        token: the message.
        recipient: who is about to get it.
        cut_at: when the power failed last; None: it never did.
        excused: programs died, or the disk failed, so that a reply may have been lost on our side.
    """
    times = [one.at for one in log.accepted if (one.token, one.recipient) == (token, recipient)]
    if not times:
        return ""
    if cut_at is not None and times[-1] <= cut_at and cut_at - times[-1] <= LAST_SECOND:
        return ""
    file = file_of(disk, token)
    if file is None:
        return f"{token} {recipient}: delivered again, from no file"
    if in_doubt(file, recipient):
        if excused or (token, recipient) in log.lost:
            return ""
        return f"{token} {recipient}: delivered again, though no reply was lost"
    return f"{token} {recipient}: delivered again, and its file says {file.statuses.get(recipient)}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a story admits."""

    tokens: dict[str, tuple[str, tuple[str, ...]]]
    """Sender and recipients of each message."""
    may_hold: bool
    """A message may be in hold/ by a rule."""
    cut: bool
    """The power failed: a message that was refused because a sync failed may be there all the same."""
    holes: bool
    """The filesystem may make a file longer before it has what was written."""
    rotten: str = ""
    """The message whose octets the disk has changed."""
    deadly: str = ""
    """The message that kills its runners."""


def verdict(disk: Disk, log: Log, terms: Terms) -> list[str]:  # noqa: C901 - one rule after the other
    """Return what is wrong once all faults have stopped and programs have run until nothing was left to do.

    Args:
        disk: as programs see it.
        log: what clients and hops know.
        terms: what the story admits.
    """
    wrong = list(log.violations)
    files: dict[str, Found] = {}
    nodes: dict[str, int] = {}
    for path, node in messages(disk):
        place = path.split("/")[0]
        if place in {"new", "cur", "retry"} or (place == "tmp" and not terms.deadly):
            wrong.append(f"stuck: {place}/ has a message when nothing is left to do")
        if place == "corrupt" and terms.rotten and terms.rotten == token_of(node.data):
            continue
        if place == "corrupt":
            wrong.append("a message was quarantined")
        if place == "tmp":
            continue
        file = parse(node.data, path)
        if not file.intact:
            wrong.append(f"{place}/ has a message that is not whole")
        name = file.name if b"multipart/report" in file.message else token_of(file.message)
        if name in files:
            wrong.append(f"{name}: " + ("two names" if nodes[name] == node.number else "two files"))
        files[name], nodes[name] = file, node.number
        if place == "hold" and name not in {*log.held, terms.deadly} and not terms.may_hold:
            wrong.append(f"{name}: held by nobody")
    accepted = Counter((one.token, one.recipient) for one in log.accepted)
    told = Counter((n.token, r) for n in set(log.notices) for r in n.recipients)
    reports = b"".join(file.message for file in files.values() if file.place == "hold")
    wrong += [
        f"{t}: refused, and delivered"
        for t in log.refused
        if not terms.cut
        for a in log.accepted
        if a.token == t
    ]
    for ack in log.acks:
        if ack.token == terms.rotten:
            continue
        sender, recipients = terms.tokens[ack.token]
        wrong += _of_acknowledged(ack.token, sender, recipients, files, accepted, told, log, reports)
    for (token, recipient), times in told.items():
        # A file with a hole in it may say `notified` and not `bounced`.
        if times > 1 + log.reopened[token] + (terms.cut and terms.holes):
            wrong.append(f"{token} {recipient}: its sender was told {times} times")
    return sorted(set(wrong))


def _of_acknowledged(  # noqa: PLR0917
    token: str,
    sender: str,
    recipients: tuple[str, ...],
    files: dict[str, Found],
    accepted: Counter[tuple[str, str]],
    told: Counter[tuple[str, str]],
    log: Log,
    reports: bytes,
) -> list[str]:
    wrong: list[str] = []
    file = files.get(token)
    for recipient in recipients:
        if accepted[token, recipient] or token in log.removed:
            continue
        status = file.statuses.get(recipient) if file else "in no file"
        if file and file.place == "hold":
            continue
        if status not in GIVEN_UP:
            wrong.append(f"{token} {recipient}: lost ({status})")
        elif sender and not told[token, recipient] and f"X-Token: {token}".encode() not in reports:
            wrong.append(f"{token} {recipient}: given up, and its sender was not told")
    return wrong
