"""`mailer pause` and `mailer resume`: stop all runners from sending, and let them continue."""

import sys
import time

import click

from mailer.cli.options import config_option, examples, json_option
from mailer.cli.output import json_line, tell
from mailer.cli.setup import command_context
from mailer.mail.reply import printable
from mailer.spool.state import pause as flag


@click.command(
    epilog=examples(
        "mailer pause",
        'mailer pause --reason "the provider asked us to"',
    )
)
@click.option(
    "--reason", default="", metavar="TEXT", help="Shown with the pause, to explain why nothing is sent."
)
@json_option
@config_option
def pause(*, reason: str, as_json: bool) -> None:
    """Send nothing until `mailer resume`: runners claim no message; deliveries in flight are finished.

    Mail is still accepted. `mailer spool ls`, `stats` and /health report the pause.
    JSON is one object: paused, changed (false if sending was paused already).
    """
    reason = printable(reason)
    with command_context() as context:
        began = flag.pause(context.spool, time.time(), context.operator, reason)
        if began:
            context.log.message("paused", id="", by=context.operator, reason=reason)
    said = "paused; `mailer resume` ends it\n" if began else "sending was paused already\n"
    tell(sys.stdout, json_line({"paused": True, "changed": began}) if as_json else said)


@click.command(
    epilog=examples(
        "mailer resume",
    )
)
@json_option
@config_option
def resume(*, as_json: bool) -> None:
    """End a pause: `mailer-send --watch` continues within a second, other runners at their next run.

    JSON is one object: paused, changed (false if sending was not paused).
    """
    with command_context() as context:
        ended = flag.resume(context.spool)
        if ended:
            context.log.message("resumed", id="", by=context.operator)
    said = "resumed\n" if ended else "sending was not paused\n"
    tell(sys.stdout, json_line({"paused": False, "changed": ended}) if as_json else said)
