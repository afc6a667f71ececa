"""`mailer spool`: inspect the queue, and operate on its messages."""

import click

from mailer.cli.lazy import LazyGroup
from mailer.cli.options import config_option, examples
from mailer.cli.output import end_with_the_pipe

_READING = {"ls", "show", "why", "trace", "stats", "fsck"}
"""The commands that `| head` may end. The others finish their work even when the reader closes the pipe."""


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
        "why": "mailer.cli.spool.story:why",
        "trace": "mailer.cli.spool.story:trace",
        "retry": "mailer.cli.spool.verbs:retry",
        "hold": "mailer.cli.spool.verbs:hold",
        "release": "mailer.cli.spool.verbs:release",
        "rm": "mailer.cli.spool.verbs:rm",
        "move": "mailer.cli.spool.move:move",
        "receive-moved": "mailer.cli.spool.other_spool:receive_moved",
        "replay": "mailer.cli.spool.replay:replay",
        "sweep": "mailer.cli.spool.maintenance:sweep",
        "stats": "mailer.cli.spool.stats:stats",
        "fsck": "mailer.cli.spool.maintenance:fsck",
        "trust-clock": "mailer.cli.spool.maintenance:trust_clock",
    },
    summaries={
        "ls": "List messages: everything that is not delivered, or what the filters choose.",
        "show": "Show a message: its envelope, how each recipient stands, its header.",
        "why": "Tell a message's story: the verdict first, then everything that happened, in...",
        "trace": "Print what was said in sessions with a next hop that failed: a message's, or...",
        "retry": "Try messages at the next run: deferred and failed ones, and held ones that...",
        "hold": "Keep messages from being sent until they are released or retried.",
        "release": "Return held messages to the state that they were in.",
        "rm": "Delete messages permanently; senders are not notified.",
        "receive-moved": "",
        "move": "Move messages to another spool, on this host or another, with their history.",
        "replay": "Send a message again, to another address, as a new message.",
        "sweep": "Move due messages to the ready ones, remove what dead programs left, and...",
        "stats": "Count the messages of each state, their bytes, and the age of the oldest,...",
        "fsck": "Check the whole spool, every byte of every message, and change nothing.",
        "trust-clock": "Say that this host's clock is right: what is too old is given up, and...",
    },
)
@config_option
@click.pass_context
def spool(context: click.Context) -> None:
    """Look into the queue, and act on it."""
    if context.invoked_subcommand in _READING:
        end_with_the_pipe()
