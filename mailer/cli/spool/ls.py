"""`mailer spool ls`: one line per message, streamed."""

import sys
import time
from itertools import islice

import click

from mailer.cli.options import config_option, examples, json_option
from mailer.cli.spool import records
from mailer.cli.spool.selection import Filter, filters
from mailer.cli.wire import say_if_paused, workplace
from mailer.mail.reply import printable
from mailer.spool import story, words
from mailer.spool.inspect import Seen
from mailer.spool.layout import Place
from mailer.spool.scan import QUEUE

_HEADING = f"{'ID':26} {'STATE':7} {'AGE':>4} {'SIZE':>5}  SENDER -> RECIPIENTS\n"


@click.command(
    epilog=examples(
        "mailer spool ls",
        "mailer spool ls --state retry --state failed --recipient @example.net",
        "mailer spool ls --older 1h --json | jq -r .id",
    )
)
@filters(*QUEUE, Place.SENT)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after so many messages.")
@json_option
@config_option
def ls(*, limit: int | None, as_json: bool, **asked: object) -> None:
    """List messages: everything that is not delivered, or what the filters choose.

    The null sender is shown as <>, and is the empty string in JSON. Messages come in no particular order:
    pipe through sort(1) to have them by arrival.

    JSON is one object a line: id, state (new cur retry hold failed corrupt sent), sender, recipients
    [{address, status (pending sent deferred bounced expired uncertain), reply}], size, received, attempts,
    next; and reason where something is wrong.
    """
    now = time.time()
    wanted = Filter(**asked)  # type: ignore[arg-type]  # click made the options' values as `filters` declares them
    with workplace() as at:
        say_if_paused(at.spool)
        chosen = islice(wanted.select(at.spool, QUEUE, now), limit)
        if as_json:
            sys.stdout.writelines(records.encode(records.record(seen)) for seen in chosen)
            return
        heading = _HEADING
        for seen in chosen:
            sys.stdout.write(heading + line(seen, now))
            heading = ""


def line(seen: Seen, now: float) -> str:
    """Describe a message in one line of aligned columns."""
    place, entry = seen.spot.place, seen.entry
    if entry is None:
        return f"{seen.id} {place:7} {'-':>4} {'-':>5}  unreadable: {printable(seen.reason)}\n"
    older = words.age(now - entry.block.received)
    sender, recipients = words.address(entry.envelope.sender), words.recipients(entry.state.standings)
    columns = f"{seen.id} {place:7} {older:>4} {words.size(entry.length):>5}  {sender} -> {recipients}"
    said = (columns, story.situation(seen, now), words.last_reply(entry.state.standings))
    return "; ".join(filter(None, said)) + "\n"
