"""Traces: what was said in sessions that failed, one small text file for each, in `traces/`.

Nothing depends on a trace, so it is written without a sync, and one that cannot be written is lost. Many
failures are alike, such as those at a server that is down for a day. One trace stands for all that have the
same next hop and the same words (`likeness`).
"""

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from mailer.mail import clock
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.reply import printable
from mailer.maillog.ledger import OpenDirectory

SUFFIX = ".txt"
MOST = 250
"""Traces that are kept, the newest; all together take at most 4 MiB."""
LARGEST = 16 * 1024
"""Octets of a trace; the middle of a longer one is left out."""
MOST_FAILURES = 8
"""Failures of one session that its trace names; their recipients mostly meet the same."""

_NAME = compile_late(r"(\d{8}T\d{6}\.\d{3})Z-[A-Za-z0-9._-]{1,64}\.txt", re.ASCII)
_NOT_IN_NAMES = compile_late(r"[^A-Za-z0-9._-]+", re.ASCII)
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COMPARED = 150
"""Characters of a reply that tell failures apart; the journal keeps more of each."""
_LONGEST_REPLY = 300
_TITLE = "# What was said in a session that failed: seconds since the connect, S: the server, C: mailer.\n"


class Trace(msgspec.Struct, frozen=True):
    """A trace, without what was said."""

    at: float
    """When the session failed, in seconds since the epoch."""
    hop: str
    """The next hop, as in `Outcome.hop`."""
    failures: tuple[tuple[str, str], ...]
    """What failed: the phase of the session, and the reply or error as the journal has it."""
    message: str = ""
    """The id of the message that was sent; empty if the session was never ready for one."""
    name: str = ""
    """Of its file; empty if it is not written yet."""

    @property
    def path(self) -> str:
        """Of its file, relative to the spool directory."""
        return f"traces/{self.name}"


def likeness(hop: str, reply: str) -> tuple[str, str]:
    """Return what a failure shares with those like it: the hop, and the reply without addresses and ids."""
    shown = printable(reply)
    words = shown[:_COMPARED].split(" ")
    if len(shown) > _COMPARED:
        words.pop()  # It may be cut off.
    codes, rest = words[:2], words[2:]
    return hop, " ".join((*codes, *(word for word in rest if not _varies(word))))


def _varies(word: str) -> bool:
    return "@" in word or any(map(str.isdigit, word))


def write(directory: OpenDirectory, trace: Trace, lines: Sequence[str]) -> None:
    """Write a trace, and delete the oldest ones beyond `MOST`.

    Args:
        directory: opens the spool's `traces/`, which exists.
        trace: what the session was for.
        lines: what was said, printable, without line ends.

    Raises:
        OSError: it could not be written; what was written of it was removed.
    """
    with directory() as fd:
        name = _name(trace)
        file = os.open(name, _NEW, 0o600, dir_fd=fd)
        try:
            os.write(file, _text(trace, lines).encode(errors="backslashreplace"))
        except OSError:
            os.unlink(name, dir_fd=fd)
            raise
        finally:
            os.close(file)
        for old in _names(fd, trace.at)[:-MOST]:
            with suppress(OSError):
                os.unlink(old, dir_fd=fd)


def _name(trace: Trace) -> str:
    moment = clock.rfc3339(trace.at)[:23].replace("-", "").replace(":", "")
    hop = _NOT_IN_NAMES.sub("_", trace.hop.partition("[")[0] or trace.hop)[:60]
    return f"{moment}Z-{hop}.txt"


def _text(trace: Trace, lines: Sequence[str]) -> str:
    failures = [f"Failed: {phase}: {printable(text, _LONGEST_REPLY)}\n" for phase, text in trace.failures]
    head = "".join(
        (
            _TITLE,
            f"At: {clock.rfc3339(trace.at)}\n",
            f"Hop: {printable(trace.hop)}\n",
            f"Message: {trace.message}\n" * bool(trace.message),
            *failures[:MOST_FAILURES],
            "\n",
        )
    )
    return head + "".join(f"{line}\n" for line in _cut(lines, LARGEST - len(head.encode())))


def _cut(lines: Sequence[str], room: int) -> Iterator[str]:
    """Leave out lines in the middle, so that the others fit."""
    lengths = [len(line.encode(errors="backslashreplace")) + 1 for line in lines]
    if sum(lengths) <= room:
        yield from lines
        return
    half = (room - 100) // 2
    first = _fitting(lengths, half)
    last = len(lines) - _fitting(lengths[::-1], half)
    yield from lines[:first]
    yield f"({last - first} lines are left out here)"
    yield from lines[last:]


def _fitting(lengths: Sequence[int], room: int) -> int:
    """Return how many of the first lines fit."""
    for count, length in enumerate(lengths):
        room -= length
        if room < 0:
            return count
    return len(lengths)


def traces(directory: OpenDirectory, since: float = 0.0) -> list[Trace]:
    """Return the traces that were written after a time, the oldest first; unreadable ones are left out.

    Raises:
        OSError: they cannot be listed.
    """
    try:
        with directory() as fd:
            names = [name for name in _names(fd) if _moment(name) > since]
            found = [_head(name, text) for name in names if (text := _read(fd, name))]
    except FileNotFoundError:
        return []
    return [trace for trace in found if trace]


def text(directory: OpenDirectory, name: str) -> str:
    """Return a trace's whole text; raises OSError if it does not exist or cannot be read."""
    with directory() as fd:
        found = _read(fd, name) if _NAME.fullmatch(name) else ""
        if not found:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"traces/{name}")
        return found


def forget(directory: int, before: float) -> None:
    """Delete the traces that were written before a time, as far as they can be deleted; raises OSError."""
    for name in _names(directory):
        if _moment(name) < before:
            with suppress(OSError):
                os.unlink(name, dir_fd=directory)


def _names(fd: int, now: float | None = None) -> list[str]:
    """Return the names of traces, the oldest first; with `now`, those from the future before all others."""
    names = sorted(name for name in os.listdir(fd) if _NAME.fullmatch(name))
    if now is None:
        return names
    # A clock that was ahead for an hour must not have its traces outlive all later ones.
    return sorted(names, key=lambda name: _moment(name) <= now + 1)


def _moment(name: str) -> float:
    found = _NAME.fullmatch(name)
    try:
        return clock.seconds(f"{found[1]}Z") if found else 0.0
    except ValueError:
        return 0.0


def _read(fd: int, name: str) -> str:
    """Return a file's text; empty if it is not a regular file, or cannot be read."""
    try:
        file = os.open(name, _OLD, dir_fd=fd)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return ""
        return os.read(file, 2 * LARGEST).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(file)


def _head(name: str, text: str) -> Trace | None:
    """Parse the head of a trace; None if it is incomplete."""
    head, end, _ = text.partition("\n\n")
    fields = [_divided(line) for line in head.split("\n") if not line.startswith("#")]
    values = dict(fields)
    if not end or "Hop" not in values:
        return None
    failures = tuple(_divided(value) for field, value in fields if field == "Failed")
    return Trace(_moment(name), values["Hop"], failures, values.get("Message", ""), name)


def _divided(line: str) -> tuple[str, str]:
    before, _, after = line.partition(": ")
    return before, after
