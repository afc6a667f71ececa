"""The ledger: one JSON line per mail event, in `log/YYYYMMDD.jsonl` by the UTC date of the line itself.

Every program appends whole lines, one or several, with one write(2), so that lines of several programs never
mix. The ledger is not synced: a power cut may take its last half minute (as long as the kernel keeps unsynced
data), but the journals of the messages still have the events. A ledger that cannot be written never stops
mail. A program keeps the lines that it could not write, as many as fit into `_KEPT`, and writes them when it
can, at its end at the latest. Lines of programs that ended before are lost, so a line that says so follows
each outage (`lost`).
"""

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import groupby
from threading import RLock
from time import monotonic

import msgspec

from mailer.mail.lazy_pattern import compile_late

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_TIME = compile_late(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", re.ASCII)
_KEPT = 256 * 1024
"""Octets of lines, the first of an outage, that a program keeps: some 800."""
_CHECK_EVERY = 1.0
"""Seconds between checks of whether the open file is still the one in the directory."""


LOST = "lost"
"""The event that stands for lines that could not be written. A file `lost.TIME` in `log/` records the loss in
the meantime, since the program may end. The time, of the first lost line, is in its name because a full disk
has no room for content, and not in its mtime because the mark may be a second name of a day's file, which
other programs write to."""

EVENTS = (
    "accepted",
    "rejected",
    "limited",
    "repeated",
    "drop-refused",
    "login-failed",
    "attempt",
    "sent",
    "deferred",
    "bounced",
    "expired",
    "uncertain",
    "notified",
    "held",
    "released",
    "requeued",
    "moved",
    "arrived",
    "taken",
    "replayed",
    "viewed",
    "recovered",
    "quarantined",
    "removed",
    "provider",
    "paused",
    "resumed",
    LOST,
)
"""The events of ledger lines; `spool/README.md` explains each."""


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event. Field names are Postfix's where it has them; unknown fields are ignored when read."""

    at: str
    event: str
    id: str = ""
    sender: str | None = msgspec.field(name="from", default=None)
    to: tuple[str, ...] = ()
    redirected: tuple[str, ...] = ()
    """Recipients that the client gave and that get nothing, because of `redirectAllTo`."""
    size: int | None = None
    user: str = ""
    peer: str = ""
    relay: str = ""
    """The next hop, as `host[address]:port`."""
    delay: float | None = None
    """Seconds since the message was received."""
    delays: tuple[float, ...] = ()
    """Its four parts, as in Postfix's log; see `events.Times.parts`."""
    dsn: str = ""
    """The enhanced status code."""
    status: str = ""
    reply: str = ""
    next: str = ""
    attempt: int = 0
    tls: str = ""
    reason: str = ""
    by: str = ""
    name: str = ""
    """The name of a provider."""
    state: str = ""
    """The health of a provider."""
    message: str = ""
    """The result of the whole message, with this line: `delivered` or `failed`; empty while it is open."""
    again: bool = False
    """The line is by a runner that took over from a dead one, which may have written it already."""
    notice: str = ""
    """The id of the notification that informs the sender."""
    about: str = ""
    """The id of the message that this one is a notification about."""
    replays: str = ""
    """The id of the message of which this one is a copy for other recipients."""
    subject: str = ""
    """The message's subject, decoded."""
    message_id: str = msgspec.field(name="messageId", default="")
    """The message's Message-ID, with its brackets."""
    more: int = 0
    """How many further failed logins this line stands for."""
    since: str = ""
    """When the first line was lost; lines between then and this one may be missing."""


_encoder = msgspec.json.Encoder()


def encode(line: Line) -> bytes:
    """Encode one line; bytes of a client that were not UTF-8 (`surrogateescape`) are escaped."""
    try:
        return _encoder.encode(line) + b"\n"
    except UnicodeEncodeError:
        return _encoder.encode(msgspec.convert(_printable(msgspec.to_builtins(line)), Line)) + b"\n"


def _printable(value: object) -> object:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case list() | tuple():
            return [_printable(item) for item in value]
        case dict():
            return {key: _printable(item) for key, item in value.items()}
    return value


def _write_lines(fd: int, data: bytes) -> int:
    """Write lines with one call, as the rest of a short write could end up apart; return how much was."""
    return os.write(fd, data)


def _day(at: str) -> str:
    return at[:10].replace("-", "")


OpenDirectory = Callable[[], AbstractContextManager[int]]
"""Opens the log directory for the duration of a block; raises OSError while there is none."""


def losing_since(directory: int) -> str:
    """Return since when lines have been lost, or "", given a descriptor of the directory."""
    return min(_marks(directory).values(), default="")


def _marks(directory: int) -> dict[str, str]:
    """Return the names of the files that record a loss, with the times in them."""
    names = [name for name in os.listdir(directory) if name.startswith(f"{LOST}.")]
    return {name: since for name in names if _TIME.fullmatch(since := name.removeprefix(f"{LOST}."))}


def _remember_loss(directory: int, since: str) -> None:
    """Record the loss for later programs, unless it is recorded; raises OSError."""
    if "" < losing_since(directory) <= since:
        return
    mark = f"{LOST}.{since}"
    try:
        os.close(os.open(mark, _FLAGS | os.O_EXCL, 0o600, dir_fd=directory))
    except FileExistsError:
        return
    except OSError:
        # A full XFS creates no file, not even an empty one, but it does make a second name.
        newest = max(name for name in os.listdir(directory) if name.endswith(".jsonl"))
        os.link(newest, mark, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)


class Ledger:
    """Appends to the files of a log directory."""

    def __init__(self, directory: OpenDirectory, on_trouble: Callable[[OSError], None]) -> None:
        """Prepare; nothing is opened yet.

        Args:
            directory: opens the spool's `log/`. The files are opened relative to its descriptor, never by an
                absolute path, in which a directory may have been replaced.
            on_trouble: called once per outage, when lines begin to be lost; mail continues.
        """
        self.directory = directory
        self._on_trouble = on_trouble
        self._day = ""
        self._fd = -1
        self._checked = 0.0
        self._failing = False
        self._lost = ""
        """Since when lines have been lost, by any program; empty if none were, or the ledger says so."""
        self._marks: Iterable[str] = ()
        """The marks of a loss at the last check; a later mark may be about an earlier line."""
        self._unwritten: list[tuple[str, bytes]] = []
        """Lines that are still to be written: those of one day, and the time of the first of them."""
        self._gathered: list[tuple[str, bytes]] | None = None
        # For several threads; reentrant, because `on_trouble` may append.
        self._lock = RLock()

    def append(self, line: Line) -> None:
        """Write one line; never raises if the disk fails."""
        # Encoded here, not at the end of a group, so that an error of one line does not lose the others.
        at, data = line.at, encode(line)
        with self._lock:
            if self._gathered is None:
                self._write(at, data)
            else:
                self._gathered.append((at, data))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write the lines of a block when it ends, those of one day with one call."""
        lines: list[tuple[str, bytes]] = []
        self._gathered = lines
        try:
            yield
        finally:
            with self._lock:
                self._gathered = None
                for _, some in groupby(lines, lambda each: _day(each[0])):
                    first, *others = some
                    self._write(first[0], b"".join([first[1], *(data for _, data in others)]))

    def _write(self, at: str, data: bytes) -> None:
        """Write lines of one day, of which the first has this time, after those that could not be written."""
        self._unwritten.append((at, data))
        try:
            try:
                self._flush()
            except OSError:
                if self._failing:
                    raise
                self.close()
                self._flush()  # One failed call may not be an outage.
        except OSError as error:
            self._keep(error)
        else:
            self._failing = False

    def _flush(self, *, ending: bool = False) -> None:
        """Write all lines, those of each element with one call, so that other programs' lines stay apart.

        Args:
            ending: all of them were kept; otherwise the last element is new, and follows what was lost.
        """
        while self._unwritten:
            at, data = self._unwritten[0]
            fd = self._file(_day(at))
            lost = self._lost if len(self._unwritten) == 1 and not ending else ""
            lines = encode(Line(at=at, event=LOST, since=lost)) + data if lost else data
            written = _write_lines(fd, lines)
            if written < len(lines):
                whole = lines.rfind(b"\n", 0, written) + 1
                self._unwritten[0] = at, lines[whole:]
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            del self._unwritten[0]
            if lost:
                self._lost = ""
                with suppress(OSError), self.directory() as directory:
                    for mark in self._marks:
                        with suppress(FileNotFoundError):
                            os.unlink(mark, dir_fd=directory)

    def _keep(self, error: OSError) -> None:
        """Keep what could not be written, and record that it may be lost, since this program may end."""
        self.close()
        self._lost = self._lost or self._unwritten[0][0]
        with suppress(OSError, ValueError), self.directory() as directory:
            _remember_loss(directory, self._lost)
        while sum(len(data) for _, data in self._unwritten) > _KEPT:
            self._unwritten.pop()
        if not self._failing:
            self._failing = True
            self._on_trouble(error)

    def end(self) -> None:
        """Write the lines that were kept, if that is possible now; the directory must be there still."""
        with suppress(OSError), self._lock:
            self._flush(ending=True)

    def _file(self, day: str) -> int:
        now = monotonic()
        if self._fd >= 0 and day == self._day and now - self._checked < _CHECK_EVERY:
            return self._fd
        name = f"{day}.jsonl"
        with self.directory() as directory:
            if self._fd < 0 or day != self._day or not self._is_named(name, directory):
                self.close()
                self._fd = os.open(name, _FLAGS, 0o600, dir_fd=directory)
            self._marks = marks = _marks(directory)
            self._lost = min(filter(None, (self._lost, *marks.values())), default="")
        self._day, self._checked = day, now
        return self._fd

    def _is_named(self, name: str, directory: int) -> bool:
        """Return whether the open file is still the one in the directory; either may be moved away."""
        try:
            named = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self._fd), named)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # A filesystem over a network or of a program reports failed writes here, too. The ledger is not
            # synced, and the writes that were seen to fail have been handled.
            with suppress(OSError):
                os.close(fd)
