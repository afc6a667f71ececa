"""The ledger: one JSON line per mail event, in `log/YYYYMMDD.jsonl` by the UTC date of the line itself.

Every program appends whole lines, one or several, with one write(2), so lines of several programs never mix.
It is not synced: a power cut may take its last half minute (as long as the kernel keeps what nobody syncs),
and then the journals of the messages still know. A ledger that cannot be written never stops mail: its lines
are lost, and the first one that can be written follows a line that says so (`lost`).
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
_CHECK_EVERY = 1.0
"""Seconds between looks whether the open file is still the one in the directory."""


LOST = "lost"
"""The event of lines that could not be written. A file `lost.TIME` lies beside the days meanwhile, since the
program may end. Its name says when the first line was lost: a full disk has no room for content, and the mark
may be a second name of a day's file, whose time of change other programs move on."""

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
    "recovered",
    "quarantined",
    "removed",
    "provider",
    "paused",
    "resumed",
    LOST,
)
"""What a line can be about; `spool/README.md` says what each means."""


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event. The words are Postfix's where it has one; unknown fields are ignored when read."""

    at: str
    event: str
    id: str = ""
    sender: str | None = msgspec.field(name="from", default=None)
    to: tuple[str, ...] = ()
    redirected: tuple[str, ...] = ()
    """Those that the client gave and that get nothing, because of `redirectAllTo`."""
    size: int | None = None
    user: str = ""
    peer: str = ""
    relay: str = ""
    """The next hop, as `host[address]:port`."""
    delay: float | None = None
    """Seconds since the message was received."""
    delays: tuple[float, ...] = ()
    """Its four parts, as Postfix has them; see `events.Delivery`."""
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
    """A provider's."""
    state: str = ""
    """A provider's health."""
    message: str = ""
    """What the whole message came to with this line: `delivered` or `failed`; empty while it goes on."""
    again: bool = False
    """A line by a runner that took over from a dead one, which may have written it already."""
    notice: str = ""
    """The id of the notification that tells the sender of it."""
    about: str = ""
    """The id of the message that this one is a notification about."""
    subject: str = ""
    """The message's, decoded."""
    message_id: str = msgspec.field(name="messageId", default="")
    """The message's own, with its brackets."""
    more: int = 0
    """Failed logins that this line stands for beside its own."""
    since: str = ""
    """When the first line was lost; those up to this one may be lost as well."""


_encoder = msgspec.json.Encoder()


def encode(line: Line) -> bytes:
    """Write one line; what a client sent that was no UTF-8 (`surrogateescape`) is escaped."""
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


def _write_lines(fd: int, data: bytes) -> None:
    """Write lines in one piece; a rest would not stay beside it, and readers skip a torn line."""
    if os.write(fd, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _day(at: str) -> str:
    return at[:10].replace("-", "")


OpenDirectory = Callable[[], AbstractContextManager[int]]
"""Opens the log directory anew for as long as a block runs; raises OSError while there is none."""


def losing_since(directory: int) -> str:
    """Return since when lines have been lost, or "", given a descriptor of the directory."""
    return min(_marks(directory).values(), default="")


def _marks(directory: int) -> dict[str, str]:
    """Return when lines were lost, by the names of the files that say so."""
    names = [name for name in os.listdir(directory) if name.startswith(f"{LOST}.")]
    return {name: since for name in names if _TIME.fullmatch(since := name.removeprefix(f"{LOST}."))}


def _remember_loss(directory: int, since: str) -> None:
    """Leave word for the next program, unless somebody has; raises OSError."""
    if "" < losing_since(directory) <= since:
        return
    mark = f"{LOST}.{since}"
    try:
        os.close(os.open(mark, _FLAGS | os.O_EXCL, 0o600, dir_fd=directory))
    except FileExistsError:
        return
    except OSError:
        # A full XFS makes no file, not even an empty one, and does make a second name.
        newest = max(name for name in os.listdir(directory) if name.endswith(".jsonl"))
        os.link(newest, mark, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)


class Ledger:
    """Appends to the files of a log directory."""

    def __init__(self, directory: OpenDirectory, on_trouble: Callable[[OSError], None]) -> None:
        """Open nothing yet.

        Args:
            directory: opens the spool's `log/`. The files are opened relative to its descriptor, never by an
                absolute path, in which somebody may have swapped a directory.
            on_trouble: called once per outage, when lines begin to be lost; mail flows on.
        """
        self.directory = directory
        self._on_trouble = on_trouble
        self._day = ""
        self._fd = -1
        self._checked = 0.0
        self._failing = False
        self._lost = ""
        """Since when lines have been lost, by any program; empty: the ledger says so, or none was."""
        self._marks: Iterable[str] = ()
        """The files that said so at the last look; one that came later may be about an earlier line."""
        self._gathered: list[tuple[str, bytes]] | None = None
        # Of several threads; reentrant, for `on_trouble` may append.
        self._lock = RLock()

    def append(self, line: Line) -> None:
        """Write one line; never raises for trouble with the disk."""
        # Here, not at the end of a group: a line that cannot be encoded takes no other with it.
        at, data = line.at, encode(line)
        with self._lock:
            if self._gathered is None:
                self._write(at, data)
            else:
                self._gathered.append((at, data))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write the lines of a block at its end, those of a day at once."""
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
        """Write lines of one day, the first of this time."""
        try:
            fd = self._file(_day(at))
            if self._lost:
                data = encode(Line(at=at, event=LOST, since=self._lost)) + data
            _write_lines(fd, data)
        except OSError as error:
            self.close()
            self._lost = self._lost or at
            with suppress(OSError, ValueError), self.directory() as directory:
                _remember_loss(directory, self._lost)
            if not self._failing:
                self._failing = True
                self._on_trouble(error)
        else:
            self._failing = False
            if self._lost:
                self._lost = ""
                with suppress(OSError), self.directory() as directory:
                    for mark in self._marks:
                        with suppress(FileNotFoundError):
                            os.unlink(mark, dir_fd=directory)

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
        """Tell whether the open file is still the one in the directory; either may be moved away."""
        try:
            named = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self._fd), named)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
