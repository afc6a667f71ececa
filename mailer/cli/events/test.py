"""`mailer events test`: send one event now, and print what the receiver answered."""

import asyncio
import sys
import time

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import json_line
from mailer.cli.setup import become_owner, configuration
from mailer.config.checks import refuse_to_send
from mailer.config.problem import ConfigError
from mailer.mail import clock
from mailer.mail.reply import printable


@click.command(epilog=examples("mailer events test", "mailer events test --json"))
@json_of("taken, why, id")
@config_option
def test(*, as_json: bool) -> Exit:
    """Send the receiver one event of the kind `test`, as `mailer-send` would, and print its answer.

    Waiting events are not touched. The exit code is 0 when the receiver took the event, 69 when it did not,
    78 when `onEvent` has neither a webhook nor a command.
    """
    loaded = configuration()
    if problems := refuse_to_send(loaded):
        raise ConfigError(problems)
    told = loaded.config.on_event
    if not told.enabled:
        raise Failure(Exit.CONFIG, "onEvent has neither a webhook nor a command: set one")
    become_owner(loaded.config.spool_dir, events=True)
    from mailer.events.event import TEST, Event, unique  # noqa: PLC0415 - not needed for --help
    from mailer.events.receiver import Receiver, Verdict  # noqa: PLC0415 - as above

    at = clock.rfc3339(time.time())
    event = Event(id=unique(TEST, at), event=TEST, at=at)
    answer = asyncio.run(Receiver(told, time.time).give([event]))
    taken = answer.verdict is Verdict.TAKEN
    if as_json:
        sys.stdout.write(json_line({"taken": taken, "why": answer.why, "id": event.id}))
    else:
        sys.stdout.write(printable(f"taken: {event.id}" if taken else f"not taken: {answer.why}") + "\n")
    return Exit.OK if taken else Exit.UNAVAILABLE
