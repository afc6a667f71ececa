"""`mailer import`: take over the queue of another relay, each message exactly once."""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import json_line, tell
from mailer.cli.owner import acting_as_owner
from mailer.cli.service import loop
from mailer.cli.setup import configuration, keeping_lease, open_log, operator_name, program_spool
from mailer.config.load import Loaded
from mailer.mail.reply import Reply, printable
from mailer.maillog.events import Level
from mailer.spool.directory import Spool
from mailer.spool.idempotency import forget
from mailer.spool.key_file import name_of_import

if TYPE_CHECKING:
    from mailer.imports.queue import Queue, Queued
    from mailer.receive.context import ReceiverContext

_DIRECTORY = click.Path(path_type=Path)
_TOO_MANY_RECIPIENTS = "4.5.3"
"""The enhanced status of too many recipients: a client could split the message, a queued one stays whole."""
_DONE, _REFUSED, _WAITS, _WOULD = "queued", "refused", "waits", "would queue"


@click.command(
    "import",
    epilog=examples(
        "mailer import --from-go /opt/relay/emails --dry-run",
        "mailer import --from-go /opt/relay/emails",
        "mailer import --from-nullmailer /var/spool/nullmailer",
        "mailer import --from-msmtpq ~/.msmtp.queue",
        "postfix stop; mailer import --from-postfix",
    ),
)
@click.option("--from-go", type=_DIRECTORY, metavar="DIR", help="The Go relay's directory emails.")
@click.option("--from-postfix", is_flag=True, help="The queue of this host's Postfix, or of $MAIL_CONFIG.")
@click.option("--from-nullmailer", type=_DIRECTORY, metavar="DIR", help="Such as /var/spool/nullmailer.")
@click.option("--from-msmtpq", type=_DIRECTORY, metavar="DIR", help="Such as ~/.msmtp.queue.")
@click.option("--dry-run", is_flag=True, help="Say what would be imported, and change nothing.")
@json_of("name, action (queued, refused, waits, would queue), sender, recipients, reply")
@config_option
def import_queue(*, dry_run: bool, as_json: bool, **sources: Path | bool | None) -> Exit:
    """Take over the mail that another relay has accepted and not delivered; stop that relay first.

    Each message is queued for the recipients who have not received it yet, and is then removed from the other
    queue: its files are moved to a directory `imported` there, and Postfix deletes its own. A message is
    never queued twice, even if a program is killed in between. Senders' rights and rate limits do not apply.

    A message that is refused, or cannot be read, stays where it is and is listed. The exit code is 0 when
    every message was queued, 65 when one was refused, 75 when the import should be run again.
    """
    chosen = [(name, source) for name, source in sources.items() if source]
    if len(chosen) != 1:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in sources)
        raise Failure(Exit.USAGE, f"name one queue, by one of {options}")
    loaded = configuration()
    try:
        queue = _queue(*chosen[0])
        names = queue.names()
        if names and not dry_run:
            queue.prepare()
    except OSError as error:
        raise Failure(Exit.UNAVAILABLE, f"the queue cannot be read: {error}") from error
    listing = _Listing(as_json=as_json)
    if dry_run:
        for name in names:
            listing.show(name, *_looked_at(queue, name))
    else:
        loop.run(_take_over(loaded, queue, names, listing))
    return listing.end()


def _queue(option: str, source: object) -> "Queue":
    """Open the queue that an option names; raises OSError."""
    from mailer.imports.directories import GoRelay, Nullmailer  # noqa: PLC0415 - not needed for `--help`
    from mailer.imports.msmtpq import Msmtpq  # noqa: PLC0415 - as above
    from mailer.imports.postfix import Postfix  # noqa: PLC0415 - as above

    if not isinstance(source, Path):
        return Postfix()
    match option:
        case "from_go":
            return GoRelay(source)
        case "from_nullmailer":
            return Nullmailer(source)
        case _:
            return Msmtpq(source)


class _Listing:
    """Prints the result for each message, and sums them up as the exit code."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._counts = Counter[str]()

    def show(self, name: str, action: str, queued: "Queued | None", reply: str) -> None:
        self._counts[action] += 1
        sender, recipients = (queued.sender, queued.recipients) if queued else ("", ())
        if self._as_json:
            record = {
                "name": printable(name, 500),
                "action": action,
                "sender": printable(sender, 500),
                "recipients": [printable(each, 500) for each in recipients],
                "reply": printable(reply, 2000),
            }
            tell(sys.stdout, json_line(record))
        else:
            whom = f"  <{sender}> to {', '.join(recipients)}" if queued else ""
            tell(sys.stdout, printable(f"{name}: {action}{whom}{': ' if reply else ''}{reply}", 2000) + "\n")

    def end(self) -> Exit:
        if not self._as_json:
            said = ", ".join(f"{count:,} {action}" for action, count in sorted(self._counts.items()))
            tell(sys.stdout, f"{said or 'the queue is empty'}\n")
        if self._counts[_WAITS]:
            return Exit.TEMPORARY
        return Exit.DATA if self._counts[_REFUSED] else Exit.OK


def _looked_at(queue: "Queue", name: str) -> "tuple[str, Queued | None, str]":
    """Read a message without changing anything."""
    from mailer.imports.queue import Unreadable  # noqa: PLC0415 - as above

    try:
        return _WOULD, queue.look(name), ""
    except Unreadable as error:
        return _REFUSED, None, str(error)
    except OSError as error:
        return _WAITS, None, error.strerror or str(error)


async def _take_over(loaded: Loaded, queue: "Queue", names: list[str], listing: _Listing) -> None:
    from mailer.cli.sending.drops import context_for  # noqa: PLC0415 - as above
    from mailer.spool.committer import Committer  # noqa: PLC0415 - as above

    config = loaded.config
    # The other queue is read as the current user, and the spool written as its owner.
    with acting_as_owner(config.spool_dir):
        spool = program_spool(config)
    with spool:
        with acting_as_owner(config.spool_dir):
            log = open_log(spool, Level.WARNING, keep=float(config.log_retention))
            committer = Committer(spool).start()
            context = context_for(loaded, spool, committer, log)
        try:
            with keeping_lease(spool, log):
                for name in names:
                    listing.show(name, *await _take(loaded, spool, context, queue, name))
        finally:
            committer.close()


async def _take(
    loaded: Loaded, spool: Spool, context: "ReceiverContext", queue: "Queue", name: str
) -> "tuple[str, Queued | None, str]":
    """Queue one message, and remove it from the other queue."""
    from mailer.imports.queue import Unreadable  # noqa: PLC0415 - as above
    from mailer.receive.transfer import transfer  # noqa: PLC0415 - as above

    queued = None
    try:
        queued = queue.look(name)
        once = name_of_import(queue.identity, name, queued.content)
        with acting_as_owner(loaded.config.spool_dir):
            reply: Reply = await transfer(
                context,
                queued.sender,
                queued.recipients,
                queued.content,
                once=once,
                operator=operator_name(os.environ),
            )
        if reply.positive:
            queue.remove(name)
            with acting_as_owner(loaded.config.spool_dir):
                forget(spool, once)
    except Unreadable as error:
        return _REFUSED, queued, str(error)
    except OSError as error:
        return _WAITS, queued, error.strerror or str(error)
    if reply.positive:
        return _DONE, queued, str(reply)
    final = reply.permanent or reply.enhanced == _TOO_MANY_RECIPIENTS
    return _REFUSED if final else _WAITS, queued, str(reply)
