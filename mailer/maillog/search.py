"""Find lines in the ledger without reading all of it.

Days, and parts of days, outside the requested time are skipped; for a message's id that is the time before it
arrived and after it was delivered. The rest is searched for bytes that a matching line must contain, and only
lines that contain them are decoded.

The time in a message's id says where its lines should begin. It is only a hint: if the clock was ahead when
the message arrived, and was then corrected, the later lines are in earlier days. So if the beginning, the end
or an attempt is missing, the whole ledger is searched. The lines are then ordered by attempts, not by days.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from mailer.mail import clock
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.patterns import is_part_of, spellings
from mailer.maillog import files
from mailer.maillog.files import Piece
from mailer.maillog.ledger import Line, OpenDirectory
from mailer.maillog.lines import decode, whole

_SLACK = 60.0
"""Seconds by which lines may be out of order, if a program is delayed between reading the clock and
writing."""
_AHEAD = 3600.0
"""Seconds by which the clocks of hosts that share a spool may differ without being wrong."""
_AFTERWARDS = 60.0
"""Seconds after a message's last delivery in which more of its events may be logged."""
_NEVER = 253_402_300_799.0
"""The last second that `datetime` can represent."""
_NOT_AS_IT_STANDS = compile_late(r'[^!-~]|["\\]')
"""Characters that JSON escapes, or whose other case has different bytes."""
_MANY = 10_000
"""The most lines to put in order, since a short prefix may be that of all ids."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions for a line, all of which must hold."""

    id: str = ""
    """A message's id, or its beginning."""
    sender: str | None = None
    """A part of the sender's address, ignoring case; empty for the null sender."""
    to: str | None = None
    """A part of a recipient's address."""
    address: str | None = None
    """A part of the sender's or a recipient's address."""
    subject: str | None = None
    """A part of the subject, ignoring case."""
    message_id: str | None = None
    """A part of the Message-ID."""
    events: frozenset[str] = frozenset()
    """The line's event is one of these; empty for any event."""
    since: float | None = None
    """The earliest time of the line, in seconds since the epoch."""
    until: float | None = None
    """The time before which the line must be, in seconds since the epoch."""
    nothing_before: float | None = None
    """No matching line was written before this, for example because the message arrived then; in the same
    way, none follows a minute after its end. The times of lines are not compared with it. It is only as
    reliable as the clock was; see `lines_of`."""

    def matches(self, line: Line) -> bool:
        """Return whether a line meets all conditions."""
        return (
            line.id.startswith(self.id)
            and (not self.events or line.event in self.events)
            and (self.sender is None or _names(line.sender, self.sender))
            and (self.to is None or any(_names(address, self.to) for address in _recipients(line)))
            and (self.address is None or self._is_of_either(line, self.address))
            and (self.subject is None or _contains(line.subject, self.subject))
            and (self.message_id is None or _contains(line.message_id, self.message_id))
            and self._in_time(line.at)
        )

    @staticmethod
    def _is_of_either(line: Line, wanted: str) -> bool:
        return any(_names(address, wanted) for address in (line.sender, *_recipients(line)))

    def _in_time(self, at: str) -> bool:
        if self.since is None and self.until is None:
            return True
        moment = _moment(at)
        if moment is None:
            return False
        return (self.since is None or moment >= self.since) and (self.until is None or moment < self.until)


def _recipients(line: Line) -> tuple[str, ...]:
    return line.to + line.redirected


def _names(address: str | None, wanted: str) -> bool:
    if address is None:
        return False
    return is_part_of(wanted, address) if wanted else not address


def _contains(text: str | None, wanted: str) -> bool:
    if text is None:
        return False
    return wanted.casefold() in text.casefold() if wanted else not text


class Found(NamedTuple):
    """A matching line."""

    line: Line
    raw: bytes
    """The bytes of the line in the ledger, without its line end."""


def find(
    directory: OpenDirectory,
    query: Query,
    *,
    newest_first: bool = False,
    ends: Mapping[str, int] | None = None,
    go_on: Callable[[], bool] = lambda: True,
    now: float | None = None,
) -> Iterator[Found]:
    """Yield the matching lines, in the order in which they were written.

    Args:
        directory: opens the spool's `log/`.
        query: the conditions.
        newest_first: in reverse order.
        ends: for each day, how many bytes of its file to search; None for all.
        go_on: called before each quarter of a megabyte; False ends the search.
        now: seconds since the epoch. Files of later days were written in the past, by a clock that was ahead,
            and are placed first; otherwise they would be last until those days come. None: days are in date
            order.

    Raises:
        OSError: the directory, or a file, cannot be read; a missing one counts as empty.
    """
    scan = _Scan(query, go_on)
    with ExitStack() as open_directory:
        try:
            fd = open_directory.enter_context(directory())
        except FileNotFoundError:
            return
        days = [day for day in _as_written(files.days(fd), now) if scan.concerns(day)]
        for day in reversed(days) if newest_first else days:
            if scan.concerns(day):
                yield from scan.day(fd, day, newest_first=newest_first, ends=ends)


def _as_written(days: list[str], now: float | None) -> list[str]:
    if now is None:
        return days
    today = _day(now + _AHEAD)
    return sorted(days, key=lambda day: (day <= today, day))


class _Scan:
    """One search in progress."""

    def __init__(self, query: Query, go_on: Callable[[], bool]) -> None:
        self._query = query
        self._go_on = go_on
        self._sieve = _Sieve(query)
        self._since = max(query.since or 0.0, query.nothing_before or 0.0)
        self._until = _NEVER if query.until is None else query.until

    def concerns(self, day: str) -> bool:
        """Return whether a day may have matching lines."""
        return _day(self._since) <= day <= _day(self._until)

    def day(
        self, directory: int, day: str, *, newest_first: bool, ends: Mapping[str, int] | None
    ) -> Iterator[Found]:
        """Yield the matching lines of a day; none if its file was just removed by retention."""
        try:
            fd = files.open_day(directory, day)
        except FileNotFoundError:
            return
        try:
            parts = files.pieces(fd, os.fstat(fd).st_size if ends is None else ends.get(day, 0))
            for piece in reversed(parts) if newest_first else parts:
                if not self._go_on():
                    return
                if self._may_hold(piece):
                    found = self._found(files.read_piece(fd, piece))
                    yield from reversed(list(found)) if newest_first else found
        finally:
            os.close(fd)

    def _may_hold(self, piece: Piece) -> bool:
        """Judge a piece by its first line and the next piece's: in between, a clock may have been wrong."""
        if piece.first is None:
            return True
        early = piece.following is not None and max(piece.first, piece.following) < self._since - _SLACK
        late = min(piece.first, piece.following or _NEVER) > self._until + _SLACK
        return not early and not late

    def _found(self, block: bytes) -> Iterator[Found]:
        for raw in self._sieve.lines(block):
            line = decode(raw)
            if line is None or not self._query.matches(line):
                continue
            if line.message == "delivered" and line.id == self._query.id and self._query.nothing_before:
                # The message's file is gone, so no later events are expected.
                self._until = min(self._until, (_moment(line.at) or _NEVER) + _AFTERWARDS)
            yield Found(line, whole(raw))


class _Sieve:
    """Selects lines by bytes that a matching line must contain, so that few others are decoded."""

    def __init__(self, query: Query) -> None:
        texts = [spellings(each) for each in (query.to, query.sender, query.address) if each]
        texts += [(each.casefold(),) for each in (query.subject, query.message_id) if each]
        # Of each condition the longest piece of each form, one of which a matching line contains.
        pieces = [[max(_NOT_AS_IT_STANDS.split(form), key=len) for form in forms] for forms in texts]
        text = max(pieces, key=lambda forms: min(map(len, forms)), default=[""])
        self._folded = not query.id and all(text)
        if query.id:
            needles = [f'"id":"{query.id}']
        elif all(text):
            needles = text
        else:
            needles = [f'"event":"{event}"' for event in query.events]
        self._needles = [needle.encode() for needle in needles]

    def lines(self, block: bytes) -> Iterator[bytes]:
        """Yield the selected lines of a block, without their line ends."""
        match self._needles:
            case []:
                yield from block.split(b"\n")
            case [needle]:
                yield from _with(block, block.lower() if self._folded else block, needle)
            case several:
                for raw in block.split(b"\n"):
                    searched = raw.lower() if self._folded else raw
                    if any(needle in searched for needle in several):
                        yield raw


def _with(block: bytes, searched: bytes, needle: bytes) -> Iterator[bytes]:
    at = searched.find(needle)
    while at >= 0:
        end = block.find(b"\n", at)
        end = len(block) if end < 0 else end
        yield block[block.rfind(b"\n", 0, at) + 1 : end]
        at = searched.find(needle, end)


def _moment(at: str) -> float | None:
    try:
        return clock.seconds(at)
    except ValueError:
        return None


def _day(moment: float) -> str:
    # An id typed by an operator may be of any year up to 37613, and a local time of the year 0.
    return clock.rfc3339(min(max(moment, 0.0), _NEVER))[:10].replace("-", "")


def lines_of(
    directory: OpenDirectory, query: Query, *, ends: Mapping[str, int] | None = None
) -> Iterator[Found]:
    """Yield the lines of the messages whose id begins as the query says, the earliest written first.

    Args:
        directory: opens the spool's `log/`.
        query: has an id, and in `nothing_before` the time from that id.
        ends: as for `find`.

    Raises:
        OSError: as for `find`.
    """
    hinted = find(directory, query, ends=ends)
    found = list(islice(hinted, _MANY))
    if len(found) < _MANY and not _is_whole(found):
        hinted = find(directory, replace(query, nothing_before=None), ends=ends)
        found = list(islice(hinted, _MANY))
    return chain(_in_order(found), hinted)


def _is_whole(found: Iterable[Found]) -> bool:
    """Return whether every message that was found has its beginning, its end, and each attempt."""
    stories: dict[str, list[Line]] = {}
    for line, _ in found:
        stories.setdefault(line.id, []).append(line)
    return bool(stories) and all(map(_is_told, stories.values()))


def _is_told(story: Sequence[Line]) -> bool:
    attempts = {line.attempt for line in story if line.attempt}
    ended = any(line.message or line.event in {"removed", "moved"} for line in story)
    begun = any(line.event in {"accepted", "arrived"} for line in story)
    return begun and ended and len(attempts) == max(attempts, default=0)


def _in_order(found: Sequence[Found]) -> Sequence[Found]:
    """Order the lines of one message by its attempts, since the clocks of its days may differ.

    A line without an attempt, or one that a later run repeats, stays after the line before it.
    """
    if len({line.id for line, _ in found}) != 1:
        return found
    key, keys = 0, []
    for line, _ in found:
        if line.event == "accepted":
            key = 0
        elif line.attempt and not line.again:
            key = line.attempt
        keys.append(key)
    order = sorted(range(len(found)), key=keys.__getitem__)
    return [found[number] for number in order]
