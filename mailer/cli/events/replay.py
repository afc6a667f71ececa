"""`mailer events replay`: set the cursor back, so that events since a time are delivered again."""

import sys
import time
from functools import partial

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.log import MOMENT
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import json_line
from mailer.cli.reader import tell
from mailer.cli.setup import command_context
from mailer.events import backlog, store
from mailer.mail import clock
from mailer.spool.layout import LOG


@click.command(
    epilog=examples(
        "mailer events replay --since 2d",
        'mailer events replay --since "2026-11-22 21:45"',
        "mailer events replay --since 0m         skip the waiting events",
    )
)
@click.option(
    "--since",
    type=MOMENT,
    required=True,
    metavar="TIME",
    help='"30m", "12h", "1w" ago, "today", "yesterday", "2026-11-22", "2026-11-22 21:45".',
)
@json_of("since, days")
@config_option
def replay(*, since: float, as_json: bool) -> Exit:
    """Have the next run deliver all events since a time again, as far back as the ledger goes.

    Events keep their ids, so a receiver that remembers them takes none twice. Events that wait for the next
    try after a failure are also delivered by the next run.
    """
    with command_context() as context:
        if not context.config.on_event.enabled:
            raise Failure(Exit.CONFIG, "onEvent has neither a webhook nor a command: set one")
        with store.locked(context.spool, wait=True):
            cursor = backlog.since(partial(context.spool.directory, LOG), since)
            try:
                known = store.read(context.spool)
            except (OSError, store.Damaged):  # The file is replaced in any case.
                known = None
            gap = (known.gap_since, known.gap_until) if known else ("", "")
            again = store.Progress(cursor=cursor, looked=time.time(), gap_since=gap[0], gap_until=gap[1])
            store.write(context.spool, again)
    shown = clock.rfc3339(since)
    told = {"since": shown, "days": len(cursor.positions)}
    said = f"the next run delivers the events since {shown[:19].replace('T', ' ')}Z again\n"
    tell(sys.stdout, json_line(told) if as_json else said)
    return Exit.OK
