"""Look up the state of a submitted message for its user over HTTP: in the spool, or later in the ledger."""

from collections.abc import Mapping
from functools import partial

from mailer.cli.spool import records
from mailer.maillog import search
from mailer.maillog.ledger import Line
from mailer.maillog.search import lines_of
from mailer.monitor.message_story import of_ledger
from mailer.spool.directory import Spool
from mailer.spool.ids import earliest
from mailer.spool.layout import LOG, Place
from mailer.spool.scan import QUEUE, find
from mailer.spool.view.inspect import Seen, look
from mailer.spool.view.ledger_verdict import last_standings

_MAX_SEARCHES = 10
"""The most searches for a message that is moved each time before it can be read."""


def look_up(spool: Spool, user: str, message_id: str) -> Mapping[str, object] | None:
    """Describe a user's message like `mailer spool show --json`; None if it is unknown or another user's.

    Its `state` is its place in the spool, or `delivered`, `failed` or `removed` once it has left the spool.

    Raises:
        OSError: the spool, or the ledger, cannot be read.
    """
    for _ in range(_MAX_SEARCHES):
        found = find(spool, message_id, (*QUEUE, Place.SENT))
        if not found:
            break
        seen = look(spool, found[0])
        if seen is None:
            continue
        if seen.entry is not None:
            return _of_file(seen) if seen.entry.block.user == user else None
        break
    return _of_ledger(spool, user, message_id)


def _of_file(seen: Seen) -> Mapping[str, object]:
    assert seen.entry is not None
    details = [records.recipient_detail(standing) for standing in seen.entry.state.standings]
    return records.record(seen) | {"recipients": details}


def _of_ledger(spool: Spool, user: str, message_id: str) -> Mapping[str, object] | None:
    query = search.Query(id=message_id, nothing_before=earliest(message_id))
    lines = [line for line, _ in lines_of(partial(spool.directory, LOG), query)]
    accepted = next((line for line in lines if line.event == "accepted"), None)
    if accepted is None or accepted.user != user:
        return None
    standings = last_standings(map(of_ledger, lines))
    return {
        "id": message_id,
        "state": _state(lines),
        "sender": accepted.sender,
        "recipients": [records.recipient_detail(standing) for standing in standings],
        "size": accepted.size,
        "received": accepted.at,
        "attempts": max((line.attempt for line in lines), default=0),
        "next": None,
    }


def _state(lines: list[Line]) -> str:
    """Return the final state; `unknown` if the file cannot be read, or was removed by hand."""
    ends = [line.message or line.event for line in lines if line.message or line.event == "removed"]
    return ends[-1] if ends else "unknown"
