"""All ledger lines of one message, in the order in which they were written.

The time in a message's id says where its lines should begin. It is only a hint: if the clock was ahead when
the message arrived, and was then corrected, the later lines are in earlier days. So if the beginning, the end
or an attempt is missing, the whole ledger is searched. The lines are then ordered by attempts, not by days.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from msgspec.structs import replace

from mailer.maillog.ledger import Line, OpenDirectory
from mailer.maillog.search import Found, Query, find

_MANY = 10_000
"""The most lines to put in order, since a short prefix may be that of all ids."""


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
