"""What was appended to the ledger since the last look: whole lines, in blocks, by day.

A position is a number of bytes in a day's file, and the file's first bytes. Those, and not its inode, tell
whether it is the file that was read before: a spool that was copied to another disk has new inodes, and a
file made anew may get the old one's.
"""

import os
from collections.abc import Iterator, Mapping

import msgspec

from mailer.maillog.files import blocks, days, file_of, open_day
from mailer.maillog.ledger import OpenDirectory

_HEAD = 100
"""Bytes by which a file is known: the time of its first line, to the microsecond, and as a rule an id."""

_REMEMBERED = 1000
"""Days whose positions are kept, also without their files: a directory that is away may come back."""


class Position(msgspec.Struct, frozen=True):
    """How far a day's file was read."""

    offset: int = 0
    head: str = ""
    """The file's first bytes, in hexadecimal."""


class Tail:
    """Reads each line of the ledger once."""

    def __init__(self, directory: OpenDirectory, positions: Mapping[str, Position] | None = None) -> None:
        """Read nothing yet.

        Args:
            directory: opens the spool's `log/`.
            positions: where an earlier reader stopped, by day; without them every line counts as new.
        """
        self._directory = directory
        self._positions = dict(positions or {})
        self._seen: dict[str, tuple[int, int, int]] = {}
        """By day, what stat(2) said when everything had been read: an unchanged file is not opened again."""

    @property
    def positions(self) -> dict[str, Position]:
        """How far each day was read: up to the last block whose successor was asked for."""
        return dict(self._positions)

    def blocks(self) -> Iterator[bytes]:
        """Stream what was appended, in blocks of whole lines; a line without its end waits for the next call.

        Raises:
            OSError: the directory cannot be read just now, or a file; then all the others were. The next call
                goes on from there.
        """
        for _, _, block in self._parts():
            yield block

    def lines(self) -> Iterator[tuple[str, Position, bytes]]:
        """Stream what was appended line by line: its day, where the line after it begins, and the line.

        Raises:
            OSError: as `blocks`.
        """
        for day, begun, block in self._parts():
            offset = begun.offset
            for line in block.splitlines(keepends=True):
                offset += len(line)
                yield day, Position(offset, begun.head), line

    def _parts(self) -> Iterator[tuple[str, Position, bytes]]:
        """Stream blocks, each with its day and its own position."""
        trouble: OSError | None = None
        with self._directory() as directory:
            for day in days(directory):
                try:
                    yield from self._appended(directory, day)
                except FileNotFoundError:
                    continue  # Its retention ended just now.
                except OSError as error:
                    trouble = error
        if trouble:
            raise trouble
        for day in sorted(self._positions)[:-_REMEMBERED]:
            del self._positions[day]
            self._seen.pop(day, None)

    def skip(self) -> None:
        """Pass over everything that is there now; raises OSError."""
        with self._directory() as directory:
            for day in days(directory):
                try:
                    fd = open_day(directory, day)
                except FileNotFoundError:
                    continue
                try:
                    self._positions[day] = Position(os.fstat(fd).st_size, os.pread(fd, _HEAD, 0).hex())
                finally:
                    os.close(fd)

    def _appended(self, directory: int, day: str) -> Iterator[tuple[str, Position, bytes]]:
        found = os.stat(file_of(day), dir_fd=directory, follow_symlinks=False)
        mark = (found.st_ino, found.st_size, found.st_mtime_ns)
        if self._seen.get(day) == mark:
            return
        fd = open_day(directory, day)
        try:
            head = os.pread(fd, _HEAD, 0)
            offset = self._resume(day, head, found.st_size)
            self._positions[day] = Position(offset, head.hex())
            for block in blocks(fd, offset):
                yield day, self._positions[day], block
                offset += len(block)
                self._positions[day] = Position(offset, head.hex())
        finally:
            os.close(fd)
        self._seen[day] = mark

    def _resume(self, day: str, head: bytes, size: int) -> int:
        known = self._positions.get(day, Position())
        if not head.hex().startswith(known.head):
            return 0  # Another file: the one that was read has been moved away.
        # One that became shorter lost its end in a power cut, and what is left was read.
        return min(known.offset, size)
