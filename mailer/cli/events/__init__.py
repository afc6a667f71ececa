"""`mailer events`: show, test and repeat event delivery (`onEvent`)."""

import click

from mailer.cli.lazy import LazyGroup
from mailer.cli.options import examples


@click.group(
    epilog=examples(
        "mailer events status              how much waits, since when, and why",
        "mailer events test                one event now, and what the receiver says to it",
        "mailer events replay --since 2d   tell again what happened since then",
    ),
    cls=LazyGroup,
    commands_in={
        "status": "mailer.cli.events.status:status",
        "test": "mailer.cli.events.test:test",
        "replay": "mailer.cli.events.replay:replay",
    },
    summaries={
        "status": "Show how many events wait to be told, since when, and why the receiver did...",
        "test": "Give the receiver one event of the kind `test`, as `mailer-send` would, and...",
        "replay": "Have the next run tell everything again that happened since a time, as far...",
    },
)
def events() -> None:
    """See to events: what `onEvent` is told of mail that was sent, given up or delayed.

    `mailer-send` delivers events: after each run, or, with --watch, within a second or two.
    """
