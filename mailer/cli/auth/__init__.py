"""`mailer auth`: log in to providers with OAuth 2.0."""

import click

from mailer.cli.lazy import LazyGroup
from mailer.cli.options import examples


@click.group(
    epilog=examples(
        "mailer auth status          every provider with tokens: until when, and what is wrong",
        "mailer auth login cloud     log in with a code that is entered in any browser",
        "mailer auth test cloud      ask for a new token and log in with it; no mail is sent",
        "mailer auth logout cloud    delete the tokens that are stored here",
    ),
    cls=LazyGroup,
    commands_in={
        "status": "mailer.cli.auth.commands:status",
        "login": "mailer.cli.auth.commands:login",
        "test": "mailer.cli.auth.commands:test",
        "logout": "mailer.cli.auth.commands:logout",
    },
    summaries={
        "status": "Show every provider with tokens: how it logs in, until when, and what was...",
        "login": "Log in as a user, for a provider whose grant is `deviceCode`.",
        "test": "Ask for a new token and log in with it, as a run would; no mail is sent.",
        "logout": "Delete the tokens that are stored here.",
    },
)
def auth() -> None:
    """Log in to providers whose `auth` is of type oauth2, and show the state of their tokens.

    PROVIDER is the name that `mailer providers` shows first, or USERNAME@HOST.
    """
