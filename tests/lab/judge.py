"""What must hold, judged from the clients' and the hops' logs and the documented format of the spool.

It shares no code with the product.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from spools.walk import GIVEN_UP, Found, parse

from lab.disk import Disk, Inode
from lab.forged import HOME, message
from lab.hops import Log, token_of

SPOOL, OTHER = "/spool/", "/other/"
"""The spool, and the one that mail is moved to."""
PLACES = ("cur", "new", "retry", "hold", "failed", "corrupt", "sent", "tmp")
_OUTCOMES = {"sent", "deferred", "bounced", "expired"}
LAST_SECOND = 1.0
"""Seconds before a power cut whose `sent` may be lost (spool/README.md)."""


def messages(disk: Disk) -> list[tuple[str, Inode]]:
    """Return every file of the queue of both spools, with its path relative to its own."""
    return [*messages_of(disk, SPOOL), *messages_of(disk, OTHER)]


def messages_of(disk: Disk, spool: str) -> list[tuple[str, Inode]]:
    return [
        (path.removeprefix(spool), node)
        for path, node in disk.tree().items()
        if path.startswith(spool) and path.removeprefix(spool).split("/")[0] in PLACES
    ]


def file_of(disk: Disk, token: str) -> Found | None:
    """Return the message's file, as programs see it now; of two spools that have one, its owner's."""
    parked: Found | None = None
    for path, node in messages(disk):
        if token_of(node.data) != token or path.startswith("tmp/") or node.entries is not None:
            continue
        if b"multipart/report" not in (found := parse(node.data, path)).message:
            if not found.is_parked:
                return found
            parked = parked or found
    return parked


def between(disk: Disk) -> bool:
    """Tell whether a message is left to another spool, and not there yet."""
    files = (parse(node.data, path) for path, node in messages(disk) if node.entries is None)
    return any(file.is_parked for file in files if file.place != "tmp")


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
            case "sent":
                return False
            case kind if kind in _OUTCOMES:
                handed_over = False
    return doubt or handed_over


def objection(
    disk: Disk, log: Log, token: str, recipient: str, *, cuts: tuple[float, ...], excused: bool
) -> str:
    """Say why a recipient may not get a message again; empty: it may, or it is the first time.

    Args:
        disk: as programs see it.
        log: what clients and hops know.
        token: the message.
        recipient: who is about to get it.
        cuts: when the power failed.
        excused: programs died, or the disk failed, so that a reply may have been lost on our side.
    """
    times = [one.at for one in log.accepted if (one.token, one.recipient) == (token, recipient)]
    if not times or log.copies[token]:
        return ""
    last_second = any(times[-1] <= cut and cut - times[-1] <= LAST_SECOND for cut in cuts)
    if last_second or (cuts and token in log.unsure):
        return ""
    file = file_of(disk, token)
    if file is None:
        return f"{token} {recipient}: delivered again, from no file"
    if in_doubt(file, recipient):
        if excused or (token, recipient) in log.lost:
            return ""
        return f"{token} {recipient}: delivered again, though no reply was lost"
    return f"{token} {recipient}: delivered again, and its file says {file.statuses.get(recipient)}"


def waits_until(disk: Disk, token: str, recipient: str) -> float:
    """Return until when a recipient is not to be tried, by the message's file; 0: it may be."""
    file = file_of(disk, token)
    until = 0.0
    for event in file.events if file else ():
        if event["event"] in {"requeued", "released"}:
            until = 0.0
        elif recipient in event.get("to", ()):  # type: ignore[operator]
            until = _seconds(event) if event["event"] == "deferred" else 0.0
    return until


def _seconds(event: Mapping[str, object]) -> float:
    return datetime.fromisoformat(str(event["next"])).timestamp() if "next" in event else 0.0


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
    refusable: frozenset[tuple[str, str]] = frozenset()
    """Messages and recipients that a hop, or the suppression list, has refused."""
    told: bool = False
    """No fault of the disk took a line of the ledger, and all that became of mail was told."""


def verdict(disk: Disk, log: Log, terms: Terms) -> list[str]:
    """Return what is wrong once all faults have stopped and programs have run until nothing was left to do.

    Args:
        disk: as programs see it.
        log: what clients and hops know.
        terms: what the story admits.
    """
    wrong = list(log.violations)
    files: dict[str, list[tuple[Found, int]]] = {}
    for path, node in messages(disk):
        if path.rpartition("/")[2] not in log.planted:
            wrong += _of_file(path, node, terms, log, files)
    for name, found in files.items():
        if len(found) > 1 and not log.copies[name]:
            wrong.append(f"{name}: " + ("two names" if found[0][1] == found[1][1] else "two files"))
    accepted = Counter((one.token, one.recipient) for one in log.accepted)
    told = Counter((n.token, r) for n in set(log.notices) for r in n.recipients)
    reports = b"".join(f.message for found in files.values() for f, _ in found if f.place == "hold")
    taken = {one.token for one in log.accepted}
    wrong += [
        f"{token}: refused, and delivered"
        for token in log.refused
        if token in taken and not terms.cut and not log.copies[token]
    ]
    wrong += [f"{t}: not submitted, and delivered" for t in taken if t not in terms.tokens]
    wrong += [
        f"{token} {recipient}: given up, and nobody has refused it"
        for token, recipient in told
        if (token, recipient) not in terms.refusable
    ]
    for ack in log.acks:
        if ack.token == terms.rotten:
            continue
        sender, recipients = terms.tokens[ack.token]
        here = [file for file, _ in files.get(ack.token, ())]
        wrong += _of_acknowledged(ack.token, sender, recipients, here, accepted, told, log, reports)
    for (token, recipient), times in told.items():
        # A file with a hole in it may say `notified` and not `bounced`.
        excused = terms.cut and (terms.holes or token in log.unsure)
        if times > 1 + log.reopened[token] + log.copies[token] + excused:
            wrong.append(f"{token} {recipient}: its sender was told {times} times")
    # Of a message that was copied by hand, `rm` removes the file that it finds first.
    here_again = (token for token in log.gone if files.get(token) and not log.copies[token])
    wrong += [f"{token}: removed, and here again" for token in here_again]
    stayed = {path.rpartition("/")[2] for path, _ in messages_of(disk, SPOOL)} & log.moved
    wrong += ["a message was moved, and is here again" for _ in stayed]
    return sorted({*wrong, *_of_planted(disk, log, terms), *_of_state(disk, log), *_of_events(log, terms)})


def _of_file(
    path: str, node: Inode, terms: Terms, log: Log, files: dict[str, list[tuple[Found, int]]]
) -> Iterator[str]:
    """Look at one file; what is a message of somebody's is put to those of its name."""
    place = path.partition("/")[0]
    token = token_of(node.data)
    if place in {"new", "cur", "retry"} and not log.copies[token] and not _waits_in_doubt(path, node, log):
        yield f"stuck: {place}/ has a message when nothing is left to do"
    if place == "tmp" and not terms.deadly:
        yield "stuck: tmp/ has a message when nothing is left to do"
    if place == "corrupt" and terms.rotten and terms.rotten == token:
        return
    if place == "corrupt":
        yield "a message was quarantined"
    if place == "tmp":
        return
    file = parse(node.data, path)
    if not file.intact:
        yield f"{place}/ has a message that is not whole"
    if file.is_parked:
        yield f"{place}/ has a message that is between the spools"
    name = file.name if b"multipart/report" in file.message else token_of(file.message)
    files.setdefault(name, []).append((file, node.number))
    if place == "hold" and name not in {*log.held, terms.deadly} and not terms.may_hold:
        yield f"{name}: held by nobody"


def _waits_in_doubt(path: str, node: Inode, log: Log) -> bool:
    """Tell whether all that is open are addresses that may have the mail, and were suppressed after that.

    Nobody sends to them, and nobody says that they were refused, until the message is too old.
    """
    statuses = parse(node.data, path).statuses.items()
    left = {recipient for recipient, status in statuses if status not in {*GIVEN_UP, "sent"}}
    return bool(left) and all(r in log.listed and dict(statuses)[r] == "uncertain" for r in left)


def _of_planted(disk: Disk, log: Log, terms: Terms) -> Iterator[str]:
    """What is not a file goes to corrupt/; another's file, and one with a foreign link, stay."""
    torn = terms.cut and terms.holes
    there = {path for path, _ in messages(disk)} | set(_directories(disk))
    for name, planted in log.planted.items():
        movable = planted.kind in {"link", "directory", "fifo"}
        wanted = f"corrupt/{name}" if movable else planted.path
        if wanted not in there:  # A power cut may have left another name beside it.
            where = [path.split("/")[0] for path in there if path.endswith(f"/{name}")]
            if movable and torn and not where:
                continue  # It is no mail: its rename may be torn.
            yield f"a {planted.kind} that was put to {planted.path.split('/')[0]}/ is in {where}"
        outside = disk.tree().get(f"{HOME}/{name}")
        if outside is not None and outside.data != message(name):
            yield f"the file outside of the spool behind a {planted.kind} was written to"


def _directories(disk: Disk) -> Iterator[str]:
    spool = disk.inodes[(disk.inodes[1].entries or {})["spool"]]
    for place in PLACES:
        number = (spool.entries or {}).get(place)
        for name, inode in (disk.inodes[number].entries or {}).items() if number else ():
            if disk.inodes[inode].entries is not None:
                yield f"{place}/{name}"


def _of_state(disk: Disk, log: Log) -> Iterator[str]:
    """A file in state/ is whole, and what was said to be durable there is."""
    refresh = ""
    for path, node in disk.tree().items():
        if not path.startswith(f"{SPOOL}state/") or not path.endswith(".json"):
            continue
        try:
            content = json.loads(node.data)
        except ValueError:
            yield f"{path.rpartition('/')[2]} is not whole"
        else:
            if "/token-" in path:
                refresh = content.get("refresh", "")
    yield from token_of_account(log, refresh)


def token_of_account(log: Log, refresh: str) -> list[str]:
    """Say whether the refresh token that is there is older than what was said to be durable."""
    if not log.stored or refresh in log.tokens[log.tokens.index(log.stored[-1]) :]:
        return []
    return [f"the refresh token {log.stored[-1]} was stored durably, and there is {refresh or 'none'}"]


def _of_events(log: Log, terms: Terms) -> Iterator[str]:
    """What became of a recipient is told at least once, in the order in which it happened."""
    if not terms.told:
        return
    first = list(dict.fromkeys(log.told))
    for at, (name, to, kind) in enumerate(first):
        if kind == "delayed" and (name, to, "sent") in first[:at]:
            yield f"{name} {to}: told to be delayed after it was told to be sent"
    final = {(name, to) for name, to, kind in first if kind in {"sent", "bounced", "expired"}}
    for one in log.accepted:
        if (one.token, one.recipient) not in log.lost and (log.ids[one.token], one.recipient) not in final:
            yield f"{one.token} {one.recipient}: nobody was told what became of it"


def pause_of(disk: Disk, log: Log) -> list[str]:
    """Say whether the operator's last word is durable."""
    paused = f"{SPOOL}state/paused" in disk.tree()
    if log.paused[0] in {None, paused}:
        return []
    return [f"the operator {'paused' if log.paused[0] else 'resumed'} the runners, and that was lost"]


def _of_acknowledged(  # noqa: PLR0917
    token: str,
    sender: str,
    recipients: tuple[str, ...],
    files: list[Found],
    accepted: Counter[tuple[str, str]],
    told: Counter[tuple[str, str]],
    log: Log,
    reports: bytes,
) -> Iterator[str]:
    if token in log.removed:
        return
    for recipient in recipients:
        if accepted[token, recipient] + len(files) <= log.copied[token, recipient]:
            yield f"{token} {recipient}: lost (there are no two of it, after it was copied)"
        if accepted[token, recipient] or log.copies[token]:
            continue
        file = files[0] if files else None
        status = file.statuses.get(recipient) if file else "in no file"
        if status == "uncertain" and recipient in log.listed:
            continue  # See `_waits_in_doubt`.
        if file and (file.place == "hold" or (file.place == "failed" and log.reopened[token])):
            continue  # The operator's, or its `retry` has not ended, and is to be given again.
        if status not in GIVEN_UP:
            yield f"{token} {recipient}: lost ({status})"
        elif sender and not told[token, recipient] and f"X-Token: {token}".encode() not in reports:
            yield f"{token} {recipient}: given up, and its sender was not told"
