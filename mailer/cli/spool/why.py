"""`mailer spool why`: what happened to a message, and what will."""

import sys
import time
from collections.abc import Iterator
from functools import partial

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import MESSAGE_ID, config_option, examples
from mailer.cli.spool import story, words
from mailer.cli.spool.selection import ambiguous
from mailer.cli.wire import Workplace, workplace
from mailer.maillog import search
from mailer.maillog.ledger import Line
from mailer.spool.entry import Corrupt
from mailer.spool.ids import earliest
from mailer.spool.inspect import Seen, View, look
from mailer.spool.journal import Event
from mailer.spool.layout import LOG, Place, Spot
from mailer.spool.scan import QUEUE, find

_PASSES = 10


@click.command(
    epilog=examples(
        "mailer spool why 01JD0M3Q",
    )
)
@click.argument("message_id", metavar="ID", type=MESSAGE_ID)
@config_option
def why(message_id: str) -> None:
    """Tell a message's story: the verdict first, then everything that happened, in order.

    The status words: pending, not tried yet; sent, the next hop took responsibility; deferred, will be tried
    again; bounced, refused for good; expired, too old; uncertain, the last reply was lost. A message whose
    file is gone is told from the ledger.
    """
    now = time.time()
    with workplace() as at:
        verdict, steps = _from_spool(at, message_id, now) or _from_ledger(at, message_id)
    sys.stdout.writelines(f"{line}\n" for line in verdict)
    sys.stdout.write("\n")
    sys.stdout.writelines(f"{story.tell(step)}\n" for step in steps)


def _from_spool(at: Workplace, prefix: str, now: float) -> tuple[list[str], list[Event]] | None:
    # A message in motion may leave between the finding and the reading; its story is then where it went.
    for _ in range(_PASSES):
        found = find(at.spool, prefix, (*QUEUE, Place.SENT))
        if not found:
            return None
        if len(found) > 1:
            raise ambiguous(prefix, sorted(spot.name for spot in found))
        if seen := look(at.spool, found[0]):
            return [_title(seen), *story.verdict(seen, now)], _steps(at, found[0])
    raise Failure(Exit.TEMPORARY, f"{prefix}: it moves on faster than it can be read; try again")


def _title(seen: Seen) -> str:
    if seen.entry is None:
        return f"{seen.id} in {seen.spot.place}/"
    received = words.moment(seen.entry.block.received)
    sender = words.address(seen.entry.envelope.sender)
    return f"{seen.id} in {seen.spot.place}/, from {sender}, received {received}"


def _steps(at: Workplace, spot: Spot) -> list[Event]:
    """Read the journal; of a file that has none to read, or has gone, the ledger."""
    try:
        with View.open(at.spool, spot) as view:
            return view.events(view.entry())
    except (FileNotFoundError, Corrupt):
        return list(map(story.of_ledger, _history(at, spot.name)))


def _from_ledger(at: Workplace, prefix: str) -> tuple[list[str], list[Event]]:
    lines = list(_history(at, prefix))
    ids = sorted({line.id for line in lines})
    if not ids:
        raise Failure(Exit.NO_INPUT, f"{prefix}: no such message, neither in the spool nor in the ledger")
    if len(ids) > 1:
        raise ambiguous(prefix, ids)
    steps = list(map(story.of_ledger, lines))
    return [f"{ids[0]} is no longer in the spool", *story.verdict_of_ledger(steps)], steps


def _history(at: Workplace, prefix: str) -> Iterator[Line]:
    """Stream the ledger's lines of the messages whose id begins like this."""
    query = search.Query(id=prefix, nothing_before=earliest(prefix))
    return (found.line for found in search.find(partial(at.spool.directory, LOG), query))
