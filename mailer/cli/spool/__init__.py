"""`mailer spool`: looking into the queue, and acting on it."""

import click

from mailer.cli.lazy import LazyGroup
from mailer.cli.options import config_option, examples
from mailer.cli.wire import end_with_the_pipe

_READING = {"ls", "show", "why", "stats", "fsck"}
"""The commands that `| head` may end. The others do all of their work when nobody reads on."""


@click.group(
    epilog=examples(
        "mailer spool ls                          everything that is not delivered",
        "mailer spool why 01JD0M3Q                what happened to a message, and what will",
        "mailer spool retry --recipient @example.net",
    ),
    cls=LazyGroup,
    commands_in={
        "ls": "mailer.cli.spool.ls:ls",
        "show": "mailer.cli.spool.show:show",
        "why": "mailer.cli.spool.why:why",
        "retry": "mailer.cli.spool.verbs:retry",
        "hold": "mailer.cli.spool.verbs:hold",
        "release": "mailer.cli.spool.verbs:release",
        "rm": "mailer.cli.spool.verbs:rm",
        "sweep": "mailer.cli.spool.sweep:sweep",
        "stats": "mailer.cli.spool.stats:stats",
        "fsck": "mailer.cli.spool.fsck:fsck",
        "trust-clock": "mailer.cli.spool.trust_clock:trust_clock",
    },
)
@config_option
@click.pass_context
def spool(context: click.Context) -> None:
    """Look into the queue, and act on it."""
    if context.invoked_subcommand in _READING:
        end_with_the_pipe()
