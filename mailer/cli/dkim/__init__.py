"""`mailer dkim`: make keys, print their DNS records, check what is published, and verify a message."""

import click

from mailer.cli.lazy import LazyGroup
from mailer.cli.options import config_option, examples
from mailer.cli.output import end_with_the_pipe


@click.group(
    epilog=examples(
        "mailer dkim keygen --domain example.com     make a key, and print what to publish",
        "mailer dkim check                           are the keys that we sign with published?",
    ),
    cls=LazyGroup,
    commands_in={
        "keygen": "mailer.cli.dkim.keys:keygen",
        "record": "mailer.cli.dkim.keys:record",
        "rotate": "mailer.cli.dkim.keys:rotate",
        "check": "mailer.cli.dkim.dns:check",
        "verify": "mailer.cli.dkim.dns:verify",
    },
    summaries={
        "keygen": "Make a private key (mode 0600) and print the DNS record that goes with it.",
        "record": "Print the TXT record of each key: split for zone files, and in one piece for...",
        "rotate": "Make a successor for each key of a domain, and say what to do with it and when.",
        "check": "Compare the published keys with ours, and look at SPF, DMARC and MX.",
        "verify": "Verify the signatures of a message in a file, or on standard input with `-`:...",
    },
)
@config_option
def dkim() -> None:
    """Sign mail so that receivers can tell it is yours (RFC 6376)."""
    end_with_the_pipe()
