"""`mailer dkim`: make keys, publish them, see whether the world finds them, and verify a message."""

import click

from mailer.cli.lazy import LazyGroup
from mailer.cli.options import config_option, examples
from mailer.cli.wire import end_with_the_pipe


@click.group(
    epilog=examples(
        "mailer dkim keygen --domain example.com     make a key, and print what to publish",
        "mailer dkim check                           is what is published what we sign with?",
    ),
    cls=LazyGroup,
    commands_in={
        "keygen": "mailer.cli.dkim.keys:keygen",
        "record": "mailer.cli.dkim.keys:record",
        "rotate": "mailer.cli.dkim.keys:rotate",
        "check": "mailer.cli.dkim.dns:check",
        "verify": "mailer.cli.dkim.dns:verify",
    },
)
@config_option
def dkim() -> None:
    """Sign mail so that receivers can tell it is yours (RFC 6376)."""
    end_with_the_pipe()
