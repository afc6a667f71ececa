"""`mailer spool replay`: send a message again, to another address, as a new message."""

import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

import click

from mailer.cli.arguments import MessageId
from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, json_of, parent_option
from mailer.cli.output import json_line, tell
from mailer.cli.owner import acting_as_owner, become_owner
from mailer.cli.setup import configuration, open_log, operator_name, program_spool
from mailer.cli.spool.selection import locate
from mailer.config.load import Loaded
from mailer.mail.address import check_address
from mailer.mail.patterns import compared
from mailer.mail.reply import printable
from mailer.maillog.events import Level, MailLog
from mailer.maillog.search import Query, lines_of
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt, Entry
from mailer.spool.ids import earliest
from mailer.spool.key_file import name_of_replay
from mailer.spool.layout import LOG, Place
from mailer.spool.scan import QUEUE
from mailer.spool.view.inspect import View

if TYPE_CHECKING:
    from mailer.receive.context import ReceiverContext
    from mailer.spool.committer import Committer

_WHOLE = (*(place for place in QUEUE if place is not Place.CORRUPT), Place.SENT)
_MAX_COPIES = 20
"""How many times in a row a message may be the copy of a copy, before its history is not followed further."""


def _address(_: click.Context, option: click.Parameter, given: Any) -> Any:  # noqa: ANN401 - click's signature
    """Accept addresses with a domain, and for the sender also `<>`."""
    for each in given if isinstance(given, tuple) else () if given is None else (given,):
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
    help="The sender of the copy, who is notified of failures; by default the address in the key bounce, or "
    "else '<>', the null sender, which is notified of nothing.",
)
@click.option(
    "--really", is_flag=True, help="Also to recipients that the message had: they may get it twice."
)
@click.option("--by", default="", hidden=True)
@click.option("--once", default="", hidden=True)
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
    once: str,
    as_json: bool,
    parent: int | None,  # noqa: ARG001 - the caller waits for us
) -> Exit:
    """Send a message again, to another address, as a new message.

    It may wait, be held, have failed, or lie in the archive (sent/); it stays as it is. The new message has
    an id and a journal of its own, and is accepted as a submission is: rate limits, allowedRecipients,
    redirectAllTo, maxRecipients and the suppression list apply. A running receiver does not count it for its
    own rate limits before its next start. Resent-Date, Resent-From, Resent-To (up to 100 addresses) and
    Resent-Message-ID (RFC 5322 3.6.6) are put on top of the message; its other bytes do not change. A header
    that is nearly as long as is accepted, 512 KiB, has no room for them, and the message is refused.

    Recipients that the message had, or the message that it is a copy of, are refused without --really, since
    they may get it twice: what they have not got, `mailer spool retry` sends. Exit code 65 when it is
    refused, 66 when there is no such message, 75 when it should be tried again later.
    """
    operator = printable(by, 64) or operator_name(os.environ)
    replayed = _Replay(message_id, recipients, sender, operator, name_of_replay(once) if once else "")
    code = Exit.OK
    try:
        new, said = replayed.carry_out(configuration(), really=really)
    except Failure as failure:
        new, said, code = "", str(failure), failure.code
    return _report(replayed, new, said, code, as_json=as_json)


class _Replay:
    """One message and its new recipients."""

    def __init__(self, prefix: str, to: Sequence[str], sender: str | None, operator: str, once: str) -> None:
        self.id = prefix
        """The beginning of the message's id, and the whole id once the message was found."""
        self.to = tuple({mailbox(address): address for address in reversed(to)}.values())[::-1]
        self.sender = "" if sender == "<>" else sender
        """The envelope sender of the copy; None: the default, until the configuration was read."""
        self._operator = operator
        self._once = once
        """See `transfer.replay`."""

    def carry_out(self, loaded: Loaded, *, really: bool) -> tuple[str, str]:
        """Queue the copy durably; return its id, and the reply to it.

        Raises:
            Failure: there is no copy; the text says why.
        """
        config = loaded.config
        if self.sender is None:
            # The author of a message did not order its copy, and must learn neither of its failure nor of its
            # address.
            self.sender = config.bounce_address
        if len(self.to) > config.max_recipients:
            raise Failure(
                Exit.USAGE,
                f"--to names {len(self.to):,} addresses, and maxRecipients is {config.max_recipients:,}: "
                "send it to some of them, then to the others",
            )
        import mailer.receive.transfer  # noqa: F401, PLC0415 - while root can still read its own Python
        from mailer.cli.sending.drops import context_for  # noqa: PLC0415 - as above
        from mailer.cli.service import loop  # noqa: PLC0415 - `mailer --help` asks every command for its line
        from mailer.spool.committer import Committer  # noqa: PLC0415 - as above

        path = loaded.config.spool_dir
        with ExitStack() as stack:
            with acting_as_owner(path):
                spool = stack.enter_context(program_spool(config, Spool.open))
            log = open_log(spool, Level.WARNING, keep=float(loaded.config.log_retention))
            committer = Committer(spool)
            # The users file may be readable by root alone. Nothing was written yet, and no thread runs.
            context = context_for(loaded, spool, committer, log, logins=False)
            become_owner(path)
            view = stack.enter_context(self._open(spool))
            entry = self._checked(spool, view, really=really)
            return loop.run(self._submit(context, committer, log, view, entry))

    def _open(self, spool: Spool) -> View:
        self.id = locate(spool, self.id, (*QUEUE, Place.SENT)).name
        try:
            view = View.find(spool, self.id)
        except Corrupt as error:
            raise Failure(Exit.DATA, f"{self.id} cannot be read: {error}") from error
        except TimeoutError as error:
            raise Failure(Exit.TEMPORARY, f"{error}; try again") from error
        if view is None:
            raise Failure(Exit.NO_INPUT, f"{self.id} has just left the spool")
        if view.spot.place is Place.CORRUPT:
            view.close()
            raise Failure(Exit.DATA, f"{self.id} is in corrupt/: what cannot be read is never sent")
        return view

    def _checked(self, spool: Spool, view: View, *, really: bool) -> Entry:
        try:
            entry = view.entry()
            view.check(entry)
        except Corrupt as error:
            text = f"{self.id} is damaged, and what is damaged is never sent: {error}"
            raise Failure(Exit.DATA, text) from error
        if really:
            return entry
        wanted = {mailbox(address): address for address in self.to}
        for message_id, recipients in addressed(spool, self.id, entry):
            had = map(mailbox, recipients)
            if again := [wanted[address] for address in had if address in wanted]:
                raise Failure(
                    Exit.DATA,
                    f"{', '.join(again)}: message {message_id} was for this address, which may get it "
                    f"twice; to try what it has not got, type mailer spool retry {message_id}; to send it "
                    "again all the same, add --really",
                )
        return entry

    async def _submit(
        self, context: "ReceiverContext", committer: "Committer", log: MailLog, view: View, entry: Entry
    ) -> tuple[str, str]:
        from mailer.receive.replies import read_queued  # noqa: PLC0415 - imported above
        from mailer.receive.transfer import Original, replay  # noqa: PLC0415 - imported above

        committer.start()
        try:
            pieces: Iterable[bytes] = view.message(entry)
            original = Original(self.id, entry.length, pieces, entry.envelope.smtputf8)
            reply = await replay(
                context, original, self.sender or "", self.to, self._operator, once=self._once
            )
        finally:
            committer.close()
        if not reply.positive:
            code = Exit.DATA if reply.permanent else Exit.TEMPORARY
            raise Failure(code, f"message {self.id} is not sent again: {reply}")
        # If the copy was queued before, the process that did so may have died before it logged that.
        new, repeated = read_queued(reply)
        reason = f"as {new}, by the same request before" if repeated else f"as {new}"
        log.message("replayed", id=self.id, to=self.to, by=self._operator, reason=reason)
        return new, str(reply)


def _report(replayed: _Replay, new: str, said: str, code: Exit, *, as_json: bool) -> Exit:
    """Print the result; `new` is the id of the copy, or empty. Raises Failure: there is no copy."""
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


def mailbox(address: str) -> str:
    """Return an address in a form that is the same for all spellings of one mailbox."""
    local, at, domain = unicodedata.normalize("NFC", compared(address)).rpartition("@")
    if domain.startswith("[ipv6:") and domain.endswith("]"):
        with suppress(ValueError):
            domain = f"[ipv6:{IPv6Address(domain[6:-1])}]"
    return f"{local}{at}{domain}"


def addressed(spool: Spool, message_id: str, entry: Entry) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the ids and recipients of a message, of the one that it is a copy of, and so on.

    An original that has left the spool is looked up in the ledger.
    """
    yield message_id, [recipient.address for recipient in entry.envelope.recipients]
    original = entry.state.replays
    for _ in range(_MAX_COPIES):
        if not original:
            return
        recipients, before = _recorded(spool, original)
        yield original, recipients
        original = before


def _recorded(spool: Spool, message_id: str) -> tuple[Sequence[str], str]:
    """Return the recipients of a message, and the id of the one that it is a copy of, empty if none."""
    with suppress(Corrupt):
        if found := View.find(spool, message_id):
            with found as view:
                entry = view.entry()
                return [recipient.address for recipient in entry.envelope.recipients], entry.state.replays
    query = Query(id=message_id, nothing_before=earliest(message_id))
    for line, _ in lines_of(partial(spool.directory, LOG), query):
        if line.event == "accepted":
            return line.to, line.replays
    return (), ""
