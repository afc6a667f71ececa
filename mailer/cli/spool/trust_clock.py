"""`mailer spool trust-clock`: record that the operator has checked the clock (the clock guard)."""

import sys

import click

from mailer.cli.clocks import clocks
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.reader import tell
from mailer.cli.setup import command_context
from mailer.cli.spool import records
from mailer.mail import clock
from mailer.spool import words
from mailer.spool.state.clock_guard import trust


@click.command(
    "trust-clock",
    epilog=examples(
        "date -u && mailer spool trust-clock",
    ),
)
@json_of("at, doubted (true if it was)")
@config_option
def trust_clock(*, as_json: bool) -> None:
    """Say that this host's clock is right: what is too old is given up, and deleted, again.

    After the clock was set while the host was running, or when it is far ahead of the last activity in the
    spool, nothing is given up or deleted until the clock has run steadily for a while; mail is still sent.
    `mailer doctor` reports whether that is the case. `mailer-send --watch` notices this command within a
    minute.
    """
    now = clocks()
    with command_context() as context:
        doubt = trust(context.spool, now)
    at_wall = now.wall()
    if as_json:
        record: records.Record = {"at": clock.rfc3339(at_wall), "doubted": doubt is not None}
        tell(sys.stdout, records.encode(record))
    else:
        known = "" if doubt else "; it was not doubted"
        tell(sys.stdout, f"the clock is trusted from now on: {words.moment(at_wall)}{known}\n")
