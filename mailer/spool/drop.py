r"""The drop directory `drop/`: mail left, while no receiver runs, by users who may not write to the spool.

`mailer-sendmail` makes each file as its caller's user, whole and durable before it gets its name, which is an
id. It holds the commands of an SMTP session, in lines that end in CRLF, and then the octets of the message:

    mailer-drop 1
    MAIL FROM:<ann> SIZE=123
    RCPT TO:<bob@example.net>
    BDAT 123 LAST
    (the message)

The file's owner, as the kernel reports it, is the submitting user. `receive.pickup` submits the mail as that
user, and removes the file once the message is durable; until then `once/` remembers that it was accepted.
Mail that is refused permanently stays, as ID.refused, for the operator.

Any user may create files here, only the spool's owner can list them, and only their owners can remove or
change them (mode 3733). A file made here has the directory's group from the start. One that was moved or
linked to here from elsewhere has another group, and is not read. `drop_file` reads one file.
"""

import math
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from itertools import islice

import msgspec

from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.ids import is_id, new_id
from mailer.spool.layout import DROP, DROP_MODE
from mailer.spool.preparation import let_others_through
from mailer.spool.syscalls import rename_exclusive

REFUSED = ".refused"
_LITTER = 86_400.0
"""Seconds after which an unfinished file is removed, as in `tmp/`."""
_SHARED = stat.S_ISVTX | stat.S_ISGID
"""Without the sticky bit users could remove each other's mail; without setgid no file counts as made here."""


class Kind(StrEnum):
    """The kinds of entries in `drop/`."""

    WAITING = "waiting"
    REFUSED = "refused"
    UNFINISHED = "unfinished"
    ODD = "odd"
    """It is not a file that `mailer-sendmail` makes, and is not touched."""


class Entry(msgspec.Struct, frozen=True):
    """One entry of `drop/`, by its name and inode."""

    name: str
    kind: Kind
    uid: int = -1
    """The owner; -1 for an odd entry, which was not examined and has neither size nor time."""
    size: int = 0
    since: float = 0.0
    """When its inode last changed, in seconds since the epoch; its user cannot choose that."""


class Summary(msgspec.Struct, frozen=True):
    """Counts of the entries in `drop/`."""

    waiting: int = 0
    since: float = 0.0
    """When the oldest waiting entry came, in seconds since the epoch."""
    refused: int = 0
    odd: int = 0
    trouble: str = ""
    """Why the directory cannot be read, in the system's words; empty if it can."""
    mode: int = DROP_MODE
    """The directory's mode."""

    @property
    def unsafe(self) -> bool:
        """Whether it is open to users but lacks the bits that protect their mail from each other."""
        return bool(self.mode & 0o077) and self.mode & _SHARED != _SHARED

    def describe(self, now: float) -> str:
        """Describe the entries, the reason and what to do; empty if there are none."""
        said = []
        if self.waiting:
            age = words.age(max(0.0, now - self.since))
            said.append(
                f"{self.waiting} left by users, the oldest {age} ago: "
                "mailer serve or mailer-send picks them up"
            )
        if self.refused:
            said.append(
                f"{self.refused} refused: mailer log --status drop-refused says why; "
                "mv drop/ID.refused drop/ID tries one again, rm deletes it"
            )
        if self.odd:
            said.append(f"{self.odd} not made by mailer-sendmail: see ls drop, and remove them")
        if self.trouble:
            said.append(f"it cannot be read ({self.trouble}): repair it, or move it away")
        if self.unsafe:
            said.append(
                f"its mode is {self.mode:04o}, so that users cannot leave mail, or can remove each other's: "
                f"chmod {self.mode | _SHARED:04o} drop (RestrictSUIDSGID= keeps a unit from doing so)"
            )
        return "; ".join(said)


def entries(spool: Spool) -> Iterator[Entry]:
    """Yield the entries of `drop/`, in no order; none if the directory does not exist. Raises OSError."""
    try:
        with spool.directory(DROP) as directory, os.scandir(directory) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    yield _seen(entry)
    except FileNotFoundError:
        return


def _seen(entry: os.DirEntry[str]) -> Entry:
    name = entry.name
    kind = _kind(name)
    if kind is Kind.ODD:
        return Entry(name, kind)
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:  # a mount point of a user's own filesystem (FUSE), which only that user may stat
        return Entry(name, Kind.ODD)
    if not stat.S_ISREG(found.st_mode):
        kind = Kind.ODD
    return Entry(name, kind, found.st_uid, found.st_size, found.st_ctime)


def _kind(name: str) -> Kind:
    """Return the kind that a name stands for, if the entry is a regular file."""
    if is_id(name):
        return Kind.WAITING
    if is_id(name.removesuffix(REFUSED)):
        return Kind.REFUSED
    return Kind.UNFINISHED if is_id(name.removeprefix(".")) else Kind.ODD


def summary(spool: Spool) -> Summary:
    """Count the entries of `drop/`; an error that prevents reading it is part of the result."""
    found: Counter[Kind] = Counter()
    since, trouble, mode = math.inf, "", DROP_MODE
    with suppress(OSError):
        state = os.stat(DROP, dir_fd=spool.root, follow_symlinks=False)
        mode = stat.S_IMODE(state.st_mode) if stat.S_ISDIR(state.st_mode) else mode
    try:
        for one in entries(spool):
            found[one.kind] += 1
            if one.kind is Kind.WAITING:
                since = min(since, one.since)
    except OSError as error:
        trouble = error.strerror or str(error)
    return Summary(found[Kind.WAITING], since, found[Kind.REFUSED], found[Kind.ODD], trouble, mode)


def waiting(spool: Spool, each: int) -> dict[int, list[str]]:
    """Return the names of waiting entries by user id: for each user the `each` oldest, oldest first."""
    found: dict[int, list[str]] = {}
    for one in entries(spool):
        if one.kind is Kind.WAITING:
            names = found.setdefault(one.uid, [])
            names.append(one.name)
            if len(names) >= 2 * each:
                names.sort()
                del names[each:]
    oldest = sorted((sorted(names)[:each], uid) for uid, names in found.items())
    return {uid: names for names, uid in oldest}


def sweep(spool: Spool, now: float) -> None:
    """Remove unfinished files that are a day old; raises OSError."""
    old = (one for one in entries(spool) if one.kind is Kind.UNFINISHED and now - one.since > _LITTER)
    for one in list(islice(old, 1000)):
        with suppress(OSError):
            os.unlink(f"{DROP}/{one.name}", dir_fd=spool.root)


def refuse(spool: Spool, name: str, now: float) -> str:
    """Rename a drop so that it is kept for the operator and not picked up again; return the new name.

    The name has another id if that of the drop is taken, which its user can do to prevent the rename.

    Raises:
        OSError: as rename(2).
    """
    kept = name + REFUSED
    try:
        rename_exclusive(spool.root, f"{DROP}/{name}", f"{DROP}/{kept}")
    except FileExistsError:
        kept = new_id(now) + REFUSED
        rename_exclusive(spool.root, f"{DROP}/{name}", f"{DROP}/{kept}")
    return kept


def prepare(spool: Spool, *, wanted: bool) -> None:
    """Make the drop directory if it is wanted, or else close it to users; its entries stay.

    A narrower mode set by the operator is kept, except that the sticky and setgid bits are added.

    Raises:
        OSError: the system does not permit it; a hardened unit may not set this mode (RestrictSUIDSGID=).
    """
    if wanted and spool.make_directory(DROP):
        os.fsync(spool.root)
    try:
        with spool.directory(DROP) as directory:
            mode = stat.S_IMODE(os.fstat(directory).st_mode)
            if wanted and not mode & 0o077:
                os.fchmod(directory, DROP_MODE)
            elif wanted and mode & _SHARED != _SHARED:
                os.fchmod(directory, mode | _SHARED)
            elif not wanted and mode & 0o077:
                os.fchmod(directory, 0o700)
    except FileNotFoundError:
        return
    let_others_through(spool.root)
