"""All that the ledger has of one message, in the order in which it was written.

The time in a message's id says where its lines should begin. It is a hint: a clock that was ahead when the
message came, and was put right, wrote them to days before. So when a story lacks its beginning, its end or an
attempt, the whole ledger is searched; and what is found is put in the order of the attempts, not of the days.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from msgspec.structs import replace

from mailer.maillog.ledger import Line, OpenDirectory
from mailer.maillog.search import Found, Query, find

_MANY = 10_000
"""Lines that are put in order; the beginning of an id may be that of all messages."""


def lines_of(
    directory: OpenDirectory, query: Query, *, ends: Mapping[str, int] | None = None
) -> Iterator[Found]:
    """Stream the lines of the messages whose id begins as the query says, the earliest written first.

    Args:
        directory: opens the spool's `log/`.
        query: has an id, and as `nothing_before` the time that the id tells.
        ends: as `find` takes it.

    Raises:
        OSError: as `find` does.
    """
    hinted = find(directory, query, ends=ends)
    found = list(islice(hinted, _MANY))
    if len(found) < _MANY and not _is_whole(found):
        hinted = find(directory, replace(query, nothing_before=None), ends=ends)
        found = list(islice(hinted, _MANY))
    return chain(_in_order(found), hinted)


def _is_whole(found: Iterable[Found]) -> bool:
    """Tell whether every message that was found has its beginning, its end, and each attempt."""
    stories: dict[str, list[Line]] = {}
    for line, _ in found:
        stories.setdefault(line.id, []).append(line)
    return bool(stories) and all(map(_is_told, stories.values()))


def _is_told(story: Sequence[Line]) -> bool:
    attempts = {line.attempt for line in story if line.attempt}
    ended = any(line.message or line.event == "removed" for line in story)
    begun = any(line.event == "accepted" for line in story)
    return begun and ended and len(attempts) == max(attempts, default=0)


def _in_order(found: Sequence[Found]) -> Sequence[Found]:
    """Order the lines of one message by its attempts: the clocks of its days may differ.

    A line without an attempt, or one that a later run repeats, keeps its place behind the line before it.
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
