"""Health checks of a spool that change nothing: no file is made, repaired, or locked for long."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from mailer.mail.finding import Finding, Grade
from mailer.spool.checks.self_test import can_change
from mailer.spool.directory import Spool
from mailer.spool.free_space import MIN_INODES, free_space
from mailer.spool.layout import DIRECTORIES, DIRECTORY_MODE
from mailer.spool.preparation import owned_by_another, right_mode

ASK_OWNER = "run this as the spool's owner, or as root"


def directories(spool: Path) -> list[Finding]:
    """Check which user owns the spool, and whether others can enter it."""
    try:
        state = spool.stat()
    except FileNotFoundError:
        return [_not_there(spool)]
    except OSError as error:
        words = f"cannot be read: {error.strerror}"
        return [
            Finding(str(spool), "owner", Grade.PROBLEM, words, "run this as the spool's owner, or as root")
        ]
    if not stat.S_ISDIR(state.st_mode):
        return [Finding(str(spool), "owner", Grade.PROBLEM, "is not a directory", "set spoolDir to one")]
    if state.st_uid != os.geteuid():
        words = f"belongs to user {state.st_uid}, and this runs as {os.geteuid()}"
        todo = "run everything as its owner, or give it to this user with chown -R"
        return [Finding(str(spool), "owner", Grade.PROBLEM, words, todo)]
    if never_started(spool):
        words = "no program has used it yet; the first start creates what is missing, and sets the modes"
        return [Finding(str(spool), "owner", Grade.OK, words)]
    wrong = list(_wrong(spool, state))
    return wrong or [Finding(str(spool), "modes", Grade.OK, f"ours, and {DIRECTORY_MODE:04o} throughout")]


def never_started(spool: Path) -> bool:
    """Return whether no program has used this directory as its spool; a fresh clone has a README in it."""
    if spool.is_dir() and not os.access(spool, os.X_OK):
        return False  # Its names cannot be looked up.
    return not any(os.path.lexists(spool / name) for name in DIRECTORIES)


def _not_there(spool: Path) -> Finding:
    parent = spool.parent
    if not parent.is_dir():
        words = f"does not exist yet, and neither does {parent}, in which the first start would create it"
        return Finding(str(spool), "owner", Grade.PROBLEM, words, f"type: mkdir -p {quote(str(parent))}")
    if not os.access(parent, os.W_OK | os.X_OK):
        words = f"does not exist yet, and user {os.geteuid()} cannot create it in {parent}"
        todo = "create it as root, and give it with chown to the user that the programs run as"
        return Finding(str(spool), "owner", Grade.PROBLEM, words, todo)
    return Finding(str(spool), "owner", Grade.OK, "does not exist yet; the first start creates it")


def _wrong(spool: Path, state: os.stat_result) -> Iterator[Finding]:
    if not os.access(spool, os.R_OK | os.X_OK):
        words = f"has mode {stat.S_IMODE(state.st_mode):04o}, not {DIRECTORY_MODE:04o}: we cannot use it"
        todo = f"type: chmod {DIRECTORY_MODE:04o} {quote(str(spool))}"
        yield Finding(str(spool), "modes", Grade.PROBLEM, words, todo)
        return
    with Spool.open_unchecked(spool) as opened:
        for name in ("", *DIRECTORIES):
            path = spool / name
            try:
                found = os.stat(name, dir_fd=opened.root, follow_symlinks=False) if name else state
            except FileNotFoundError:
                continue  # made at the next start
            if not stat.S_ISDIR(found.st_mode):
                words = "is not a directory, so no program starts"
                yield Finding(str(path), "owner", Grade.PROBLEM, words, "move it away")
            elif found.st_uid != os.geteuid():
                words, _, todo = owned_by_another(spool, found).partition(": ")
                yield Finding(str(path), "owner", Grade.PROBLEM, f"{words}, so no program starts", todo)
            elif (mode := stat.S_IMODE(found.st_mode)) != (
                right := DIRECTORY_MODE if name else right_mode(opened.root)
            ):
                useless = mode & DIRECTORY_MODE != DIRECTORY_MODE
                words = f"has mode {mode:04o}, not {right:04o}: "
                words += "we cannot use it" if useless else "others can enter it"
                todo = f"type: chmod {right:04o} {quote(str(path))}"
                todo += "" if useless else " (the next start of any program does so)"
                grade = Grade.PROBLEM if useless else Grade.WARNING
                yield Finding(str(path), "modes", grade, words, todo)
            elif name and not can_change(opened, name):
                words = "cannot be changed, although its mode allows it"
                todo = "look at it: findmnt -T, lsattr -d, and with SELinux ls -Zd and ausearch -m avc"
                yield Finding(str(path), "access", Grade.PROBLEM, words, todo)


def space(spool: Path, min_free: int) -> list[Finding]:
    """Compare the free space of the spool's filesystem with what new mail must leave free.

    Args:
        spool: the spool's directory; if it does not exist yet, its nearest existing parent is checked.
        min_free: in octets.
    """
    try:
        place = next(place for place in (spool, *spool.parents) if place.is_dir())
        free = free_space(place)
    except OSError as error:
        words = f"cannot be read: {error.strerror}"
        return [Finding(str(spool), "space", Grade.PROBLEM, words, ASK_OWNER)]
    return [*_octets(place, free.octets, min_free), *_inodes(place, free.inodes)]


def _octets(place: Path, free: int | None, min_free: int) -> Iterator[Finding]:
    if free is None:
        words = "the filesystem does not say how much is free: new mail is refused (452) once a write fails"
        yield Finding(str(place), "space", Grade.SKIPPED, words)
        return
    words = f"{_size(free)} free; new mail is refused (452) below {_size(min_free)} (minFreeSpace)"
    grade = Grade.PROBLEM if free < min_free else Grade.WARNING if free < 4 * min_free else Grade.OK
    yield Finding(str(place), "space", grade, words, "" if grade is Grade.OK else "make room")


def _inodes(place: Path, free: int | None) -> Iterator[Finding]:
    if free is None:
        return  # Usual: btrfs makes inodes as needed, and so do the filesystems of clusters.
    words = f"{free} inodes free; new mail is refused (452) below {MIN_INODES}"
    grade = Grade.OK if free >= 10 * MIN_INODES else Grade.WARNING
    grade = Grade.PROBLEM if free < MIN_INODES else grade
    todo = "" if grade is Grade.OK else "remove small files from that filesystem"
    yield Finding(str(place), "inodes", grade, words, todo)


def _size(octets: int) -> str:
    for power, unit in ((60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB")):
        if octets >= 2**power:
            return f"{octets / 2**power:.1f} {unit}"
    return f"{octets // 2**20} MiB"
