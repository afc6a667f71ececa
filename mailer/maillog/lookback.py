"""Which of the outcomes that are told again had not been told before their runner died.

Only lines marked `again` can tell something twice, so this is the only place that has to look back, and
counting needs no memory of what was counted. It costs a search of the ledger for each message that a dead
runner left behind.
"""

import os
from collections.abc import Iterator

from msgspec.structs import replace

from mailer.maillog.files import blocks, days, open_day
from mailer.maillog.rows import Row, rows

_Key = tuple[str, int, str]
"""Event, attempt, and recipient (or, with an empty event, what the message came to)."""


class Lookback:
    """Answers for one open log directory; it remembers the messages that it was asked about."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._known: dict[str, dict[_Key, str]] = {}
        """By id: the time of the line that told each first; empty for one that is not told again."""

    def fresh(self, row: Row) -> Row:
        """Leave of a line told again what it is the first to tell."""
        if row.id not in self._known:
            self._known[row.id] = self._read(row.id)
        known = self._known[row.id]
        first = {key for key in _keys(row) if known.get(key) == row.at}
        return replace(
            row,
            to=tuple(address for address in row.to if (row.event, row.attempt, address) in first),
            message=row.message if ("", row.attempt, row.message) in first else "",
        )

    def _read(self, message_id: str) -> dict[_Key, str]:
        known: dict[_Key, str] = {}
        for row in self._history(message_id):
            for key in _keys(row):
                if not row.again:
                    known[key] = ""
                else:
                    known.setdefault(key, row.at)
        return known

    def _history(self, message_id: str) -> Iterator[Row]:
        key = f'"id":"{message_id}"'.encode()
        for day in days(self._directory):
            fd = open_day(self._directory, day)
            try:
                for block in blocks(fd):
                    if key in block:
                        yield from (row for row in rows(block) if row.id == message_id)
            finally:
                os.close(fd)


def _keys(row: Row) -> list[_Key]:
    keys = [(row.event, row.attempt, address) for address in row.to]
    return [*keys, ("", row.attempt, row.message)] if row.message else keys
