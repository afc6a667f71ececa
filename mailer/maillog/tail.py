"""Read what was appended to the ledger since the last call: whole lines, in blocks, by day.

A position is a byte offset in a day's file, together with the file's first bytes. These bytes, and not the
inode, show whether it is the file that was read before: a spool copied to another disk has new inodes, and a
new file may get the inode of the old one.
"""

import os
from collections.abc import Iterator, Mapping

import msgspec

from mailer.maillog.files import blocks, days, file_of, open_day
from mailer.maillog.ledger import OpenDirectory

_HEAD = 100
"""Bytes that identify a file: the time of its first line, to the microsecond, and usually an id."""

_REMEMBERED = 1000
"""The most days whose positions are kept, even without their files: a missing directory may come back."""


class Position(msgspec.Struct, frozen=True):
    """The position up to which a day's file was read."""

    offset: int = 0
    head: str = ""
    """The file's first bytes, in hexadecimal."""


class Tail:
    """Reads each line of the ledger once."""

    def __init__(self, directory: OpenDirectory, positions: Mapping[str, Position] | None = None) -> None:
        """Prepare; nothing is read yet.

        Args:
            directory: opens the spool's `log/`.
            positions: where an earlier reader stopped, by day; without them every line is new.
        """
        self._directory = directory
        self._positions = dict(positions or {})
        self._seen: dict[str, tuple[int, int, int]] = {}
        """The stat(2) of each day's file after it was read: an unchanged file is not opened again."""

    @property
    def positions(self) -> dict[str, Position]:
        """The position of each day: after the last block whose successor was requested."""
        return dict(self._positions)

    def blocks(self) -> Iterator[bytes]:
        """Yield what was appended, in blocks of whole lines; an unfinished line is left for the next call.

        Raises:
            OSError: the directory cannot be read now, or a file, in which case all others were read. The next
                call continues from there.
        """
        for _, _, block in self._parts():
            yield block

    def lines(self) -> Iterator[tuple[str, Position, bytes]]:
        """Yield what was appended by line: the day, the position after the line, and the line.

        Raises:
            OSError: as `blocks`.
        """
        for day, begun, block in self._parts():
            offset = begun.offset
            for line in block.splitlines(keepends=True):
                offset += len(line)
                yield day, Position(offset, begun.head), line

    def _parts(self) -> Iterator[tuple[str, Position, bytes]]:
        """Yield blocks, each with its day and its position."""
        trouble: OSError | None = None
        with self._directory() as directory:
            for day in days(directory):
                try:
                    yield from self._appended(directory, day)
                except FileNotFoundError:
                    continue  # Its retention has just ended.
                except OSError as error:
                    trouble = error
        if trouble:
            raise trouble
        for day in sorted(self._positions)[:-_REMEMBERED]:
            del self._positions[day]
            self._seen.pop(day, None)

    def skip(self) -> None:
        """Skip everything that is in the ledger now; raises OSError."""
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
            return 0  # It is another file: the one that was read has been moved away.
        # A file that became shorter lost its end in a power cut; the rest has been read.
        return min(known.offset, size)
