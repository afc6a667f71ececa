r"""The drop directory `drop/`: mail of users who may not write to the spool, left while no receiver ran.

`mailer-sendmail` makes each file, as its caller's user: whole and durable before it gets its name, an id. It
holds what a session of SMTP is told, in lines that end in CRLF, and then the octets of the message:

    mailer-drop 1
    MAIL FROM:<ann> SIZE=123
    RCPT TO:<bob@example.net>
    BDAT 123 LAST
    (the message)

Its owner is the file's, by the kernel's word. `receive.pickup` submits it as that user, and removes it once
the message is durable; `once/` remembers meanwhile that it was taken in. What is refused for good stays, as
ID.refused, for the operator.

Everybody may make files here, nobody but the spool's owner can list them, and none but their owners remove
or change them (mode 3733). A file belongs to the directory's group from its birth, and to no other: one that
was moved or linked to here from elsewhere does not, and is not read. `drop_file` reads one.
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
from mailer.spool.ids import is_id, new_id
from mailer.spool.layout import DROP, DROP_MODE, Spool
from mailer.spool.syscalls import rename_exclusive

REFUSED = ".refused"
_LITTER = 86_400.0
"""Seconds after which an unfinished file is removed, as in `tmp/`."""
_SHARED = stat.S_ISVTX | stat.S_ISGID
"""Without the first, users could remove each other's mail; without the second, none counts as made here."""


class Kind(StrEnum):
    """What lies in `drop/`."""

    WAITING = "waiting"
    REFUSED = "refused"
    UNFINISHED = "unfinished"
    ODD = "odd"
    """Nothing that `mailer-sendmail` makes; it is not touched."""


class Entry(msgspec.Struct, frozen=True):
    """One entry of `drop/`, by its name and inode."""

    name: str
    kind: Kind
    uid: int = -1
    """-1, and neither size nor time: nobody looked at an odd one."""
    size: int = 0
    since: float = 0.0
    """When its inode last changed, in seconds since the epoch; its user cannot choose that."""


class Summary(msgspec.Struct, frozen=True):
    """How much lies in `drop/`."""

    waiting: int = 0
    since: float = 0.0
    """When the oldest of it came, in seconds since the epoch."""
    refused: int = 0
    odd: int = 0
    trouble: str = ""
    """Why it cannot be read, in the system's words."""
    mode: int = DROP_MODE
    """Of the directory."""

    @property
    def unsafe(self) -> bool:
        """It is open, and lacks the bits that keep users from each other's mail."""
        return bool(self.mode & 0o077) and self.mode & _SHARED != _SHARED

    def describe(self, now: float) -> str:
        """Say what lies there, why, and what to do; empty: nothing does."""
        said = []
        if self.waiting:
            age = words.age(max(0.0, now - self.since))
            said.append(f"{self.waiting} left by users, for {age}: mailer serve or mailer-send takes it in")
        if self.refused:
            said.append(
                f"{self.refused} refused: mailer log --status drop-refused says why; "
                "mv drop/ID.refused drop/ID tries it again, rm drops it"
            )
        if self.odd:
            said.append(f"{self.odd} that mailer-sendmail has not made: ls drop, and remove it")
        if self.trouble:
            said.append(f"it cannot be read ({self.trouble}): mend it, or move it away")
        if self.unsafe:
            said.append(
                f"its mode is {self.mode:04o}, so that users leave none, or remove each other's: "
                f"chmod {self.mode | _SHARED:04o} drop (RestrictSUIDSGID= keeps a unit from doing so)"
            )
        return "; ".join(said)


def entries(spool: Spool) -> Iterator[Entry]:
    """Stream what lies in `drop/`, in no order; nothing if there is no such directory. Raises OSError."""
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
    except OSError:  # a user's filesystem, mounted on a directory of theirs: it is for them alone
        return Entry(name, Kind.ODD)
    if not stat.S_ISREG(found.st_mode):
        kind = Kind.ODD
    return Entry(name, kind, found.st_uid, found.st_size, found.st_ctime)


def _kind(name: str) -> Kind:
    """Tell what a name stands for, if it is a regular file's."""
    if is_id(name):
        return Kind.WAITING
    if is_id(name.removesuffix(REFUSED)):
        return Kind.REFUSED
    return Kind.UNFINISHED if is_id(name.removeprefix(".")) else Kind.ODD


def summary(spool: Spool) -> Summary:
    """Count what lies in `drop/`; what keeps it from being read is in the result."""
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
    """Return the names of what waits by the user id, each the oldest first; at most `each` of one user."""
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
    """Put a drop by for the operator, under a name that is not taken in; return it. Raises OSError.

    It is another id's if somebody has made a file of its own: its user may, to have the drop stay.
    """
    kept = name + REFUSED
    try:
        rename_exclusive(spool.root, f"{DROP}/{name}", f"{DROP}/{kept}")
    except FileExistsError:
        kept = new_id(now) + REFUSED
        rename_exclusive(spool.root, f"{DROP}/{name}", f"{DROP}/{kept}")
    return kept


def prepare(spool: Spool, *, wanted: bool) -> None:
    """Make the drop directory where it is wanted, or close it; what lies in it stays.

    A mode that the operator has made narrower is kept, but for the sticky and the setgid bit.

    Raises:
        OSError: the system does not let us; a hardened unit may not set this mode (RestrictSUIDSGID=).
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
    spool.let_others_through()
