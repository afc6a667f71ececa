"""Deduplication: which repeated outcomes their dead runner had not logged yet.

Only lines marked `again` can tell something twice, so this is the only place that has to look back, and
counting needs no memory of what was counted. It costs a search of the ledger for each message that a dead
runner left behind, from its end back to the message's acceptance.
"""

from msgspec.structs import replace

from mailer.maillog.ledger import Line, OpenDirectory
from mailer.maillog.rows import Row
from mailer.maillog.search import Query, find

_Key = tuple[str, int, str]
"""Event, attempt, and recipient (or, with an empty event, what the message came to)."""


class Deduplication:
    """Answers for one log directory; it remembers the messages that it was asked about."""

    def __init__(self, directory: OpenDirectory) -> None:
        self._directory = directory
        self._known: dict[str, dict[_Key, str]] = {}
        """By id: the time of the first line with each outcome, among its repetitions; else empty."""

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
        # Backwards, so the earliest of a kind is entered last.
        for line, _ in find(self._directory, Query(id=message_id), newest_first=True):
            for key in _keys(line):
                if not line.again:
                    known[key] = ""
                elif known.get(key) != "":
                    known[key] = line.at
            # A message that came after its own events was dated by a clock that was ahead: days say nothing.
            if line.event == "accepted" and line.at <= at:
                break
        return known


def _keys(line: Row | Line) -> list[_Key]:
    keys = [(line.event, line.attempt, address) for address in line.to]
    return [*keys, ("", line.attempt, line.message)] if line.message else keys
