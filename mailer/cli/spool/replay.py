"""`mailer spool replay`: send a message again, to another address, as a new message."""

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.message_id import MessageId
from mailer.cli.options import config_option, examples, json_of, parent_option
from mailer.cli.output import json_line
from mailer.cli.reader import tell
from mailer.cli.setup import acting_as_owner, become_owner, configuration, open_log, operator_name
from mailer.cli.spool.selection import locate
from mailer.config.load import Loaded
from mailer.mail.address import check_address
from mailer.mail.patterns import compared
from mailer.mail.reply import Reply, printable
from mailer.maillog.events import Level, MailLog
from mailer.spool.entry import Corrupt, Entry
from mailer.spool.layout import Place, Spool
from mailer.spool.scan import QUEUE
from mailer.spool.view.inspect import View

if TYPE_CHECKING:
    from mailer.receive.context import ReceiverContext
    from mailer.spool.committer import Committer

_WHOLE = (*(place for place in QUEUE if place is not Place.CORRUPT), Place.SENT)
_PASSES = 10
"""How often a message is looked for anew when it moves on before it could be opened."""


def _address(_: click.Context, option: click.Parameter, given: Any) -> Any:  # noqa: ANN401 - click's signature
    """Take addresses with a domain, and for the sender `<>`, too."""
    for each in given if isinstance(given, tuple) else filter(None, (given,)):
        if each == "<>" and option.name == "sender":
            continue
        try:
            check_address(each)
        except ValueError as error:
            raise click.BadParameter(f"{printable(each, 320)} is not an address: {error}") from None
    return given


@click.command(
    epilog=examples(
        "mailer spool replay 01JD0M3Q --to audit@example.com",
        "mailer spool replay 01JD0M3Q --to bob@example.org --to eve@example.org --sender help@example.com",
        "mailer spool replay 01JD0M3Q --to bob@example.net --really     although it was for bob",
    )
)
@click.argument("message_id", metavar="ID", type=MessageId(*_WHOLE))
@click.option(
    "--to",
    "recipients",
    multiple=True,
    required=True,
    metavar="ADDRESS",
    callback=_address,
    help="Who gets it; may be repeated.",
)
@click.option(
    "--sender",
    metavar="ADDRESS",
    callback=_address,
    help="Who sends it again and hears of failures; by default the message's sender. '<>': the null sender.",
)
@click.option(
    "--really", is_flag=True, help="Also to recipients that the message had: they may get it twice."
)
@click.option("--by", default="", hidden=True)
@json_of("id (of the new message; null: none), replays, result (queued refused), sender, recipients, reply")
@parent_option
@config_option
def replay(  # noqa: PLR0913 - one for each option
    message_id: str,
    *,
    recipients: tuple[str, ...],
    sender: str | None,
    really: bool,
    by: str,
    as_json: bool,
    parent: int | None,  # noqa: ARG001 - the caller waits for us
) -> Exit:
    """Send a message again, to another address, as a new message.

    It may wait, be held, have failed, or lie in the archive (sent/); it stays as it is. The new message has
    an id and a journal of its own, and is accepted as a submission is: rate limits, allowedRecipients,
    redirectAllTo, maxRecipients and the suppression list apply. Resent-Date, Resent-From, Resent-To and
    Resent-Message-ID (RFC 5322 3.6.6) are put on top of the message; its other bytes do not change.

    Recipients that the message had are refused without --really, since they may get it twice: what they have
    not got, `mailer spool retry` sends. Exit code 65 when it is refused, 66 when there is no such message, 75
    when it should be tried again later.
    """
    loaded = configuration()
    operator = printable(by, 64) or operator_name(os.environ)
    replayed = _Replay(message_id, tuple(dict.fromkeys(recipients)), sender, operator)
    try:
        reply = replayed.carry_out(loaded, really=really)
    except _Refused as refused:
        return _report(replayed, "", str(refused), Exit.DATA, as_json=as_json)
    if reply.positive:
        return _report(replayed, _id_in(reply), str(reply), Exit.OK, as_json=as_json)
    code = Exit.DATA if reply.permanent else Exit.TEMPORARY
    return _report(replayed, "", f"message {replayed.id} is not sent again: {reply}", code, as_json=as_json)


class _Refused(Exception):
    """It is not sent; the text says why."""


class _Replay:
    """One message and its new recipients."""

    def __init__(self, prefix: str, to: Sequence[str], sender: str | None, operator: str) -> None:
        self.id = prefix
        """Whole once the message was found."""
        self.to = tuple(to)
        self.sender = None if sender is None else sender.removeprefix("<>")
        """None: the message's own, until that was found."""
        self._operator = operator

    def carry_out(self, loaded: Loaded, *, really: bool) -> Reply:
        """Queue the copy; return the last reply, which is positive once it is durable.

        Raises:
            Failure: there is no such message.
            _Refused: it cannot be read, or a recipient had it.
        """
        import mailer.receive.transfer  # noqa: F401, PLC0415 - while root can still read its own Python
        from mailer.cli import loop  # noqa: PLC0415 - `mailer --help` asks every command for its line
        from mailer.cli.drops import context_for  # noqa: PLC0415 - as above
        from mailer.spool.committer import Committer  # noqa: PLC0415 - as above

        path = loaded.config.spool_dir
        with ExitStack() as stack:
            with acting_as_owner(path):
                spool = stack.enter_context(Spool.open(path))
            log = open_log(spool, Level.WARNING, keep=float(loaded.config.log_retention))
            committer = Committer(spool)
            # The users file may be readable by root alone. Nothing was written yet, and no thread runs.
            context = context_for(loaded, spool, committer, log, logins=False)
            become_owner(path)
            view = stack.enter_context(self._open(spool))
            entry = self._checked(view, really=really)
            if self.sender is None:
                self.sender = entry.envelope.sender
            return loop.run(self._submit(context, committer, log, view, entry))

    def _open(self, spool: Spool) -> View:
        for _ in range(_PASSES):
            spot = locate(spool, self.id, (*QUEUE, Place.SENT))
            if spot.place is Place.CORRUPT:
                raise _Refused(f"{spot.name} is in corrupt/: what cannot be read is never sent")
            try:
                view = View.open(spool, spot)
            except FileNotFoundError:
                continue
            except Corrupt as error:
                raise _Refused(f"{spot.name} cannot be read: {error}") from error
            self.id = spot.name
            return view
        raise Failure(Exit.TEMPORARY, f"{self.id}: it moves on faster than it can be opened; try again")

    def _checked(self, view: View, *, really: bool) -> Entry:
        try:
            entry = view.entry()
            view.check(entry)
        except Corrupt as error:
            raise _Refused(f"{self.id} is damaged, and what is damaged is never sent: {error}") from error
        had = {compared(recipient.address) for recipient in entry.envelope.recipients}
        again = [address for address in self.to if compared(address) in had]
        if again and not really:
            raise _Refused(
                f"{', '.join(again)}: message {self.id} was for this address, which may get it twice; to try "
                f"what it has not got, type mailer spool retry {self.id}; to send it again all the same, add "
                "--really"
            )
        return entry

    async def _submit(
        self, context: "ReceiverContext", committer: "Committer", log: MailLog, view: View, entry: Entry
    ) -> Reply:
        from mailer.receive.transfer import Original, replay  # noqa: PLC0415 - imported above

        committer.start()
        try:
            pieces: Iterable[bytes] = view.message(entry)
            original = Original(self.id, entry.length, pieces, entry.envelope.smtputf8)
            reply = await replay(context, original, self.sender or "", self.to, self._operator)
        finally:
            committer.close()
        if reply.positive:
            log.message("replayed", id=self.id, to=self.to, by=self._operator, reason=f"as {_id_in(reply)}")
        return reply


def _id_in(reply: Reply) -> str:
    return str(reply).rpartition(" ")[2]


def _report(replayed: _Replay, new: str, said: str, code: Exit, *, as_json: bool) -> Exit:
    """Print what became of it; `new` is the id of the copy, or empty. Raises Failure: there is none."""
    if as_json:
        record = {
            "id": new or None,
            "replays": replayed.id,
            "result": "queued" if new else "refused",
            "sender": replayed.sender,
            "recipients": replayed.to,
            "reply": printable(said, 2000),
        }
        tell(sys.stdout, json_line(record))
        return code
    if not new:
        raise Failure(code, said)
    tell(sys.stdout, printable(f"{new} replays {replayed.id}, to {', '.join(replayed.to)}", 4000) + "\n")
    return code
