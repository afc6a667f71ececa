"""What waits in a spool, for a runner or for the operator, and whether any runner is active."""

import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from shlex import quote

import msgspec

from mailer.mail import clock
from mailer.mail.duration import duration
from mailer.mail.finding import Finding, Grade
from mailer.spool import drop
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.ids import arrival
from mailer.spool.layout import DROP, Place, bucket_time
from mailer.spool.scan import buckets, names, spots
from mailer.spool.state import last_run
from mailer.spool.state.pause import describe, read_pause
from mailer.spool.view.examine import ASK_OWNER, never_started
from mailer.spool.view.inspect import View, linked_outside
from mailer.spool.view.moves import unfinished
from mailer.spool.words import count

_LATE = 300.0
"""Seconds after which a runner should have claimed a message that is ready: five runs by cron."""
_START = "start mailer-send --watch, or its timer or cron line; journalctl -u mailer-send says why it ended"


def queue(spool: Path, now: float) -> list[Finding]:
    """Check what waits for a runner, whether a runner is active, and what waits for the operator.

    Args:
        spool: the spool's directory.
        now: seconds since the epoch.
    """
    try:
        opened = Spool.open_unchecked(spool)
    except FileNotFoundError:
        return [Finding(str(spool), "queue", Grade.SKIPPED, "there is no spool yet")]
    except OSError as error:
        words = f"cannot be read: {error.strerror}"
        return [Finding(str(spool), "queue", Grade.PROBLEM, words, ASK_OWNER)]
    with opened:
        if never_started(spool):
            return [Finding(str(spool), "queue", Grade.SKIPPED, "mailer was never started here")]
        try:
            return [_sending(opened, now), *_not_ours(opened), *_at_rest(opened, now)]
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                words, path = f"cannot be read: {error.strerror}", spool / (error.filename or "")
                todo = "give its owner mode 0700" if error.errno == errno.EACCES else "check the disk (dmesg)"
                return [Finding(str(path), "queue", Grade.PROBLEM, words, todo)]
            # Missing places are made at the next start; what would prevent that is reported elsewhere.
            words = f"one of its directories is missing: {error.filename}"
            return [Finding(str(spool), "queue", Grade.SKIPPED, words)]


def _sending(spool: Spool, now: float) -> Finding:
    if paused := read_pause(spool):
        return Finding(str(spool.path), "runner", Grade.WARNING, describe(paused), "type: mailer resume")
    return judge(_signs(spool, now), str(spool.path))


class Signs(msgspec.Struct, frozen=True):
    """Signs of whether a runner is active. A message that is ready and not taken says more than a process."""

    late: float
    """Seconds for which a message has been ready to be sent; 0 if none is."""
    claimed: int
    """Messages that running runners hold."""
    idle: float | None
    """Seconds since the last run ended, or was last seen at work; None if there was none."""


def _signs(spool: Spool, now: float) -> Signs:
    ready = min((*_ready_since(spool), *_due_since(spool, now)), default=now)
    return Signs(
        late=max(0.0, now - ready),
        claimed=_claimed(spool),
        idle=_idle(spool, now),
    )


def _idle(spool: Spool, now: float) -> float | None:
    last = last_run.read(spool)
    try:
        return None if last is None else max(0.0, now - clock.seconds(last.at))
    except ValueError:
        return None  # It was not written by us.


def judge(signs: Signs, about: str) -> Finding:
    """Judge whether a runner is active."""

    def found(grade: Grade, words: str = "", todo: str = "") -> Finding:
        ran = "no run yet" if signs.idle is None else f"last run {duration(signs.idle)} ago"
        waits = f"; mail has been ready for {duration(signs.late)}" if signs.late else ""
        return Finding(about, "runner", grade, f"{ran}; {signs.claimed} active{waits}{words}", todo)

    at_work = signs.claimed > 0 or (signs.idle is not None and signs.idle <= _LATE)
    if at_work and signs.late > _LATE:
        todo = "see what holds it up: mailer spool ls; perhaps raise sending.concurrency"
        return found(Grade.WARNING, ": the runner cannot keep up", todo)
    if at_work:
        return found(Grade.OK)
    if signs.late > _LATE:
        return found(Grade.PROBLEM, ": no runner is active", _START)
    if signs.idle is None:
        return found(Grade.SKIPPED, "", _START)
    return found(Grade.WARNING, ": no runner is active, and new mail would wait", _START)


def _ready_since(spool: Spool) -> Iterator[float]:
    """Yield when each message came into `new/`: a rename changes the inode's ctime."""
    for name in names(spool, Place.NEW):
        try:
            yield os.stat(f"{Place.NEW}/{name}", dir_fd=spool.root, follow_symlinks=False).st_ctime
        except FileNotFoundError:
            continue


def _due_since(spool: Spool, now: float) -> Iterator[float]:
    """Yield when each due bucket that is not empty became due, the earliest first."""
    for bucket in buckets(spool, Place.RETRY):
        if bucket_time(bucket) > now:
            return
        if any(names(spool, f"{Place.RETRY}/{bucket}")):
            yield bucket_time(bucket)


def _claimed(spool: Spool) -> int:
    held = 0
    for spot in spots(spool, (Place.CUR,)):
        try:
            with View.open(spool, spot) as view:
                held += view.claimed()
        except (OSError, ValueError):
            continue  # It was moved on, or is not a message.
    return held


def _not_ours(spool: Spool) -> Iterator[Finding]:
    """Report messages that no run takes, as a restore by root, or a copy by hard links, leaves them."""
    owner = os.fstat(spool.root).st_uid
    foreign: list[str] = []
    linked: list[str] = []
    for place in (Place.NEW, Place.RETRY, Place.HOLD, Place.FAILED):
        for spot in islice(spots(spool, (place,)), _FIRST):
            try:
                status = os.stat(spot.path, dir_fd=spool.root, follow_symlinks=False)
                if status.st_uid != owner or status.st_mode & _USABLE != _USABLE:
                    foreign.append(spot.path)
                elif status.st_nlink > 1:
                    with View.open(spool, spot) as view:
                        linked += [spot.path] * bool(linked_outside(spool, view))
            except (FileNotFoundError, Corrupt):
                continue
    if foreign:
        words = (
            f"{count(len(foreign), 'message')} of another user, or with another mode: no run takes such mail"
        )
        path = quote(str(spool.path))
        todo = f"type, as root: chown -R --reference={path} {path}; chmod -R u+rwX {path}"
        yield Finding(str(spool.path / foreign[0]), "owner", Grade.PROBLEM, words, todo)
    if linked:
        words = (
            f"{count(len(linked), 'message')} with a name outside of the spool, too: no run takes such mail"
        )
        first = str(spool.path / linked[0])
        todo = f"remove the copy by hard links (cp -al); to find it: find / -xdev -samefile {quote(first)}"
        yield Finding(first, "links", Grade.PROBLEM, words, todo)


_USABLE = stat.S_IRUSR | stat.S_IWUSR
_RESTING = {Place.HOLD, Place.FAILED}
_FIRST = 10_000
"""Messages of a place to look at, in search of interrupted moves, and of files that no run can open."""
_RESUME = "repeat mailer spool move with --resume on the host that it comes from"

_WAIT_FOR_YOU = (
    (Place.RETRY, Grade.OK, "to be tried again", ""),
    (Place.HOLD, Grade.WARNING, "held", "look with mailer spool ls --state hold, then release or rm"),
    (
        Place.FAILED,
        Grade.WARNING,
        "given up",
        "look with mailer spool ls --state failed, then retry or rm",
    ),
    (
        Place.CORRUPT,
        Grade.WARNING,
        "unreadable",
        "look with mailer spool ls --state corrupt",
    ),
)


def _at_rest(spool: Spool, now: float) -> Iterator[Finding]:
    for place, grade, words, todo in _WAIT_FOR_YOU:
        many, oldest = 0, ""
        for spot in spots(spool, (place,)):
            many, oldest = many + 1, min(oldest or spot.name, spot.name)  # ids sort by arrival
        first = islice(spots(spool, (place,)), _FIRST) if place in _RESTING else ()
        if moving := unfinished(spool, first):
            yield Finding(str(spool.path / place), "move", Grade.WARNING, moving, _RESUME)
        if many:
            found = f"{many} {words}; the oldest came {duration(max(0.0, now - arrival(oldest)))} ago"
            yield Finding(str(spool.path / place), place.value, grade, found, todo)
        elif place is not Place.RETRY:
            yield Finding(str(spool.path / place), place.value, Grade.OK, f"none {words}")
    left = drop.summary(spool)
    if said := left.describe(now):
        late = left.refused or left.odd or left.trouble or now - left.since > _LATE
        grade = Grade.WARNING if late else Grade.OK
        yield Finding(str(spool.path / DROP), "drop", grade, said)
