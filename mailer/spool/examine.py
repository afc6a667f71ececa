"""A look at a spool for whoever asks whether all is well: nothing is made, mended, or locked for long."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from mailer.mail.finding import Finding, Grade
from mailer.spool.inspect import View
from mailer.spool.layout import DIRECTORIES, DIRECTORY_MODE, MIN_FREE_INODES, Place, Spool, bucket_time
from mailer.spool.scan import buckets, names, spots

_ASK_OWNER = "run this as the spool's owner, or as root"
_LATE = 300.0
"""Seconds after which a message that is ready should be in a runner's hands: five runs by cron."""


def directories(spool: Path) -> list[Finding]:
    """Look at whose the spool is, and whether others can enter it."""
    try:
        state = spool.stat()
    except FileNotFoundError:
        return [_not_there(spool)]
    except OSError as error:
        words = f"cannot be looked at: {error.strerror}"
        return [
            Finding(str(spool), "owner", Grade.PROBLEM, words, "run this as the spool's owner, or as root")
        ]
    if not stat.S_ISDIR(state.st_mode):
        return [Finding(str(spool), "owner", Grade.PROBLEM, "is no directory", "set spoolDir to one")]
    if state.st_uid != os.geteuid():
        words = f"belongs to user {state.st_uid}, and this runs as {os.geteuid()}"
        todo = "run everything as its owner, or give it to this user with chown -R"
        return [Finding(str(spool), "owner", Grade.PROBLEM, words, todo)]
    wrong = list(_wrong(spool, state))
    return wrong or [Finding(str(spool), "modes", Grade.OK, f"ours, and {DIRECTORY_MODE:04o} throughout")]


def _not_there(spool: Path) -> Finding:
    parent = spool.parent
    if not parent.is_dir():
        words = f"not there yet, and neither is {parent}, in which the first start would make it"
        return Finding(str(spool), "owner", Grade.PROBLEM, words, f"type: mkdir -p {quote(str(parent))}")
    if not os.access(parent, os.W_OK | os.X_OK):
        words = f"not there yet, and user {os.geteuid()} cannot make it in {parent}"
        todo = "make it as root and give it to the user that the programs run as"
        return Finding(str(spool), "owner", Grade.PROBLEM, words, todo)
    return Finding(str(spool), "owner", Grade.OK, "not there yet; the first start makes it")


def _wrong(spool: Path, state: os.stat_result) -> Iterator[Finding]:
    with Spool.look(spool) as opened:
        for name in ("", *DIRECTORIES):
            path = spool / name
            try:
                found = os.stat(name, dir_fd=opened.root, follow_symlinks=False) if name else state
            except FileNotFoundError:
                continue  # made at the next start
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                words = "is not a directory of ours, so nothing starts"
                yield Finding(str(path), "owner", Grade.PROBLEM, words, "move it away")
            elif (mode := stat.S_IMODE(found.st_mode)) != DIRECTORY_MODE:
                others = "others can enter it" if mode & 0o077 else "it is not usable for us"
                words = f"has mode {mode:04o}, not {DIRECTORY_MODE:04o}: {others}"
                todo = f"type: chmod 0700 {quote(str(path))} (the next start of any program does so)"
                yield Finding(str(path), "modes", Grade.WARNING, words, todo)


def space(spool: Path, min_free: int) -> list[Finding]:
    """Compare what is free on the spool's filesystem with what new mail must leave free.

    Args:
        spool: its directory; if it is not there yet, the nearest parent is looked at.
        min_free: octets.
    """
    try:
        place = next(place for place in (spool, *spool.parents) if place.is_dir())
        state = os.statvfs(place)
    except OSError as error:
        words = f"cannot be looked at: {error.strerror}"
        return [Finding(str(spool), "space", Grade.PROBLEM, words, _ASK_OWNER)]
    free, inodes = state.f_bavail * state.f_frsize, state.f_favail
    words = f"{_size(free)} free; new mail is refused (452) below {_size(min_free)} (minFreeSpace)"
    grade = Grade.PROBLEM if free < min_free else Grade.WARNING if free < 4 * min_free else Grade.OK
    findings = [Finding(str(place), "space", grade, words, "" if grade is Grade.OK else "make room")]
    if state.f_files:  # filesystems that make inodes as needed (btrfs) say that they have none at all
        words = f"{inodes} inodes free; new mail is refused (452) below {MIN_FREE_INODES}"
        grade = Grade.OK if inodes >= 10 * MIN_FREE_INODES else Grade.WARNING
        grade = Grade.PROBLEM if inodes < MIN_FREE_INODES else grade
        todo = "" if grade is Grade.OK else "remove small files from that filesystem"
        findings.append(Finding(str(place), "inodes", grade, words, todo))
    return findings


def _size(octets: int) -> str:
    return f"{octets / 2**30:.1f} GiB" if octets >= 2**30 else f"{octets // 2**20} MiB"


def queue(spool: Path, now: float) -> list[Finding]:
    """Look at what waits, whether anybody sends it, and what waits for the operator.

    Args:
        spool: its directory.
        now: seconds since the epoch.
    """
    try:
        opened = Spool.look(spool)
    except FileNotFoundError:
        return [Finding(str(spool), "queue", Grade.SKIPPED, "there is no spool yet")]
    except OSError as error:
        words = f"cannot be looked at: {error.strerror}"
        return [
            Finding(str(spool), "queue", Grade.PROBLEM, words, "run this as the spool's owner, or as root")
        ]
    with opened:
        try:
            return [_runner(opened, now), *_at_rest(opened)]
        except OSError as error:
            # A place that is missing is made at the next start; what stands in its way was told of above.
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
            words = f"not all of its directories are there: {error.filename}"
            return [Finding(str(spool), "queue", Grade.SKIPPED, words)]


def _runner(spool: Spool, now: float) -> Finding:
    """Is anybody sending? What is ready and lies about says more than what is running."""
    since = [*_ready_since(spool), *_due_since(spool, now)]
    at_work = _in_hand(spool)
    about, hands = str(spool.path), f"{at_work} in a runner's hands"
    if not since:
        return Finding(about, "runner", Grade.OK, f"nothing is ready and left lying; {hands}")
    late = now - min(since)
    said = f"something is ready to be sent for {late:.0f} s; {hands}"
    if late <= _LATE:
        return Finding(about, "runner", Grade.OK, said)
    if at_work:
        todo = "see what holds it up: mailer spool ls; perhaps raise sending.concurrency"
        return Finding(about, "runner", Grade.WARNING, f"{said}: it is behind", todo)
    todo = "start mailer-send --watch, or its timer or cron line; journalctl -u mailer-send says why it ended"
    return Finding(about, "runner", Grade.PROBLEM, f"{said}: nobody sends", todo)


def _ready_since(spool: Spool) -> Iterator[float]:
    """When each message came into `new/`: a rename is a change of the inode."""
    for name in names(spool, Place.NEW):
        try:
            yield os.stat(f"{Place.NEW}/{name}", dir_fd=spool.root, follow_symlinks=False).st_ctime
        except FileNotFoundError:
            continue


def _due_since(spool: Spool, now: float) -> Iterator[float]:
    """When the buckets that are due and not empty became due, the earliest first."""
    for bucket in buckets(spool, Place.RETRY):
        if bucket_time(bucket) > now:
            return
        if any(names(spool, f"{Place.RETRY}/{bucket}")):
            yield bucket_time(bucket)


def _in_hand(spool: Spool) -> int:
    held = 0
    for spot in spots(spool, (Place.CUR,)):
        try:
            with View.open(spool, spot) as view:
                held += view.in_hand()
        except (OSError, ValueError):
            continue  # moved on, or no message
    return held


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


def _at_rest(spool: Spool) -> Iterator[Finding]:
    for place, grade, words, todo in _WAIT_FOR_YOU:
        count = sum(1 for _ in spots(spool, (place,)))
        if count:
            yield Finding(str(spool.path / place), place.value, grade, f"{count} {words}", todo)
        elif place is not Place.RETRY:
            yield Finding(str(spool.path / place), place.value, Grade.OK, f"none {words}")
