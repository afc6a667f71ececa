"""`mailer events`: show, test and repeat event delivery (`onEvent`)."""

import click

from mailer.cli.lazy import LazyGroup
from mailer.cli.options import examples


@click.group(
    epilog=examples(
        "mailer events status              how much waits, since when, and why",
        "mailer events test                one event now, and what the receiver answers",
        "mailer events replay --since 2d   deliver again what happened since then",
    ),
    cls=LazyGroup,
    commands_in={
        "status": "mailer.cli.events.commands:status",
        "test": "mailer.cli.events.commands:test",
        "replay": "mailer.cli.events.commands:replay",
    },
    summaries={
        "status": "Show how many events wait for delivery, since when, and why the receiver did...",
        "test": "Send the receiver one event of the kind `test`, as `mailer-send` would, and...",
        "replay": "Have the next run deliver all events since a time again, as far back as the...",
    },
)
def events() -> None:
    """Manage events, which tell `onEvent` of mail that was sent, given up or delayed.

    `mailer-send` delivers events: after each run, or, with --watch, within a second or two.
    """
