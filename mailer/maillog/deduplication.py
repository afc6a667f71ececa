"""Deduplicate outcomes that are logged again, because their dead runner may have logged them already.

Only lines marked `again` can repeat something. So only this module has to look back in the ledger, and
counting needs no memory of what was counted. The cost is one search of the ledger for each message that a
dead runner left, from the end back to the message's acceptance.
"""

from msgspec.structs import replace

from mailer.maillog.ledger import Line, OpenDirectory
from mailer.maillog.rows import Row
from mailer.maillog.search import Query, find

_Key = tuple[str, int, str]
"""Event, attempt, and recipient; or an empty event, the attempt, and the result of the whole message."""


class Deduplication:
    """Deduplicates for one log directory; it remembers the messages that it was asked about."""

    def __init__(self, directory: OpenDirectory) -> None:
        self._directory = directory
        self._known: dict[str, dict[_Key, str]] = {}
        """By id and outcome: the time of the first `again` line with it; empty if another line has it."""

    def fresh(self, row: Row) -> Row:
        """Reduce a repeated line to the outcomes that no earlier line has; raises OSError."""
        if row.id not in self._known:
            self._known[row.id] = self._first_told(row.id, row.at)
        known = self._known[row.id]
        first = {key for key in _keys(row) if known.get(key) == row.at}
        return replace(
            row,
            to=tuple(address for address in row.to if (row.event, row.attempt, address) in first),
            message=row.message if ("", row.attempt, row.message) in first else "",
        )

    def _first_told(self, message_id: str, at: str) -> dict[_Key, str]:
        known: dict[_Key, str] = {}
        # Backwards, so that the earliest line with an outcome is entered last.
        for line, _ in find(self._directory, Query(id=message_id), newest_first=True):
            for key in _keys(line):
                if not line.again:
                    known[key] = ""
                elif known.get(key) != "":
                    known[key] = line.at
            # If a message's acceptance is dated after its outcomes, the clock was ahead: search all days.
            if line.event == "accepted" and line.at <= at:
                break
        return known


def _keys(line: Row | Line) -> list[_Key]:
    keys = [(line.event, line.attempt, address) for address in line.to]
    return [*keys, ("", line.attempt, line.message)] if line.message else keys
