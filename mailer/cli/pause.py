"""`mailer pause` and `mailer resume`: stopping all runners, and letting them go on."""

import sys
import time

import click

from mailer.cli.options import config_option, examples
from mailer.cli.wire import tell, workplace
from mailer.mail.reply import printable
from mailer.spool import pause as flag


@click.command(
    epilog=examples(
        "mailer pause",
        'mailer pause --reason "the provider asked us to"',
    )
)
@click.option("--reason", default="", metavar="TEXT", help="For whoever wonders why nothing is sent.")
@config_option
def pause(*, reason: str) -> None:
    """Send nothing until `mailer resume`: runners claim no message; what is in flight is finished.

    Mail is accepted all the same. `mailer spool ls`, `stats` and /health say that it is so.
    """
    reason = printable(reason)
    with workplace() as at:
        began = flag.pause(at.spool, time.time(), at.operator, reason)
        if began:
            at.log.message("paused", id="", by=at.operator, reason=reason)
    tell(sys.stdout, "paused; `mailer resume` ends it\n" if began else "it was paused already\n")


@click.command(
    epilog=examples(
        "mailer resume",
    )
)
@config_option
def resume() -> None:
    """End a pause: runners that stay go on within a second, others at their next run."""
    with workplace() as at:
        ended = flag.resume(at.spool)
        if ended:
            at.log.message("resumed", id="", by=at.operator)
    tell(sys.stdout, "resumed\n" if ended else "it was not paused\n")
