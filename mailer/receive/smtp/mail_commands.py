"""The commands of a mail transaction, MAIL, RCPT, DATA, RSET (RFC 5321) and BDAT (RFC 3030)."""

# ruff: noqa: N802 - verbs are named as aiosmtpd names them

from collections.abc import Callable
from math import inf

from mailer.config.receiving import Offer
from mailer.mail.reply import Reply
from mailer.maillog.events import Refused
from mailer.receive import replies
from mailer.receive.content.header_policy import Origin
from mailer.receive.context import Client, ReceiverContext
from mailer.receive.settings import Settings
from mailer.receive.smtp.connection import Connection, syntax
from mailer.receive.smtp.intake import Intake, read_chunk_argument
from mailer.receive.smtp.login import Login
from mailer.receive.smtp.order import IN_TRANSACTION, REFUSALS, Stage
from mailer.receive.smtp.transaction import Transaction
from mailer.receive.space import Space
from mailer.receive.users.failures import Failures


class MailCommands(Connection):
    """The transaction commands of a session, and the state that they share with EHLO, AUTH and STARTTLS."""

    __slots__ = (
        "_context",
        "_extended",
        "_failures",
        "_helo",
        "_idle_commands",
        "_intake",
        "_login",
        "_newer",
        "_stage",
        "_store",
        "_transaction",
    )

    def __init__(
        self,
        client: Client,
        context: ReceiverContext,
        failures: Failures,
        on_end: Callable[[Connection], None],
    ) -> None:
        super().__init__(client, context.settings, on_end)
        self._failures = failures
        self._idle_commands = 0
        self._newer: ReceiverContext | None = None
        self._start_over(context)

    def _start_over(self, context: ReceiverContext) -> None:
        """Reset the session to its initial state, at the beginning and after STARTTLS (RFC 3207 4.2)."""
        self._context = context
        self._store = context.store
        self._transaction = self._new_transaction(context.settings)
        self._login = Login(self, self.client, context, self._failures)
        self._intake = Intake(self, context, self._conclude)
        self._helo = ""
        self._extended = False
        self._stage = Stage.CONNECTED

    def reconfigure(self, context: ReceiverContext) -> None:
        """Use a new context from the next transaction on; a client that has logged in stays logged in."""
        self._newer = context

    def _clear(self) -> None:
        """End the transaction, successful or not, and drop an unfinished message."""
        self._intake.drop()
        if self._newer is not None:
            self._context, self._newer = self._newer, None
            self._store, self.settings = self._context.store, self._context.settings
            self._login.reconfigure(self._context)
            self._intake = Intake(self, self._context, self._conclude)
            self._transaction = self._new_transaction(self.settings)
            self._stage = self._outside
        elif self._stage >= IN_TRANSACTION:
            self._transaction.clear()
            self._stage = Stage.READY
        else:
            self._stage = self._outside

    def _new_transaction(self, settings: Settings) -> Transaction:
        # sendmail(8) takes login names as addresses, so `submitSocket` does too, even under strictSyntax.
        return Transaction(settings, names=bool(self.client.user))

    @property
    def authenticated(self) -> bool:
        return self.trusted and not self._must_log_in

    @property
    def user(self) -> str:
        """The user that the client submits as; empty: none."""
        return self._login.identity.user if self._login.identity else ""

    @property
    def receiving_since(self) -> float:
        """When the message that is arriving began to, in the loop's time; inf if there is none."""
        return inf if self.busy else self._intake.since

    def left(self) -> None:
        self._intake.drop()

    def _reject(self, reply: Reply, recipient: str = "") -> None:
        if self._stage >= Stage.READY or self._failures.refusals.allows(self._store.log, self.peer):
            self._log_rejected(reply, recipient)
        self.send_reply(reply)

    def _log_rejected(self, reply: Reply, recipient: str) -> None:
        begun, upload = self._stage >= IN_TRANSACTION, self._intake.taken
        refused = Refused(
            peer=self.peer,
            user=self.user,
            sender=self._transaction.sender if begun else None,
            to=(recipient,) if recipient else self._transaction.given,
            # The size received is more precise than the size announced at MAIL.
            size=(upload.received if upload else self._transaction.size) or None,
            subject=upload.headline.subject if upload else "",
            message_id=upload.headline.message_id if upload else "",
        )
        if isinstance(reply, replies.RateExceeded):
            self._store.log.limited(refused, str(reply))
        else:
            self._store.log.rejected(refused, str(reply))

    @property
    def _must_log_in(self) -> bool:
        asked = self.client.offers.auth
        required = self.settings.require_auth if asked is None else asked is Offer.REQUIRED
        return required and self._login.identity is None

    @property
    def _must_encrypt(self) -> bool:
        return self.client.offers.starttls is Offer.REQUIRED and not self.tls

    @property
    def _outside(self) -> Stage:
        """The stage of a session without a transaction."""
        if not self._helo:
            return Stage.CONNECTED
        if self._must_encrypt:
            return Stage.PLAINTEXT
        if not self._must_log_in:
            return Stage.READY
        # AUTH is not offered to a client on another host without TLS.
        return Stage.UNKNOWN if self.client.local or self.tls else Stage.PLAINTEXT_ELSEWHERE

    # The verbs: each gets the text after the verb, stripped and decoded with `surrogateescape`.

    @syntax(
        "MAIL FROM:<address> [SIZE=octets] [BODY=8BITMIME] [SMTPUTF8] [RET=FULL|HDRS] [ENVID=id] "
        "[HOLDFOR=seconds|HOLDUNTIL=time]"
    )
    def smtp_MAIL(self, arg: str) -> None:
        if refusal := REFUSALS["MAIL"].get(self._stage):
            # Only `_reject` writes to the ledger. A 503 is an error in the client's sequence of commands; the
            # ledger should list refused mail.
            (self.send_reply if refusal.code == replies.NESTED_MAIL.code else self._reject)(refusal)
        elif (space := self._context.space) is not None and space.uncounted:
            self.wait_for(self._count_and_begin(space, arg))
        else:
            self._begin_transaction(arg)

    async def _count_and_begin(self, space: Space, argument: str) -> None:
        await space.count()
        self._begin_transaction(argument)

    def _begin_transaction(self, argument: str) -> None:
        reply = self._transaction.begin(argument, self._store.clock(), extended=self._extended)
        refusal: Reply | None = reply
        if reply.code < replies.REFUSAL:
            # Set even if the mail is refused below, so that the ledger names its sender.
            self._stage, lease = Stage.MAIL, self._store.spool.lease
            refusal = replies.DRAINING if lease and lease.draining else self._no_more_mail()
        if refusal is None:
            self.trust()
            self.send_reply(reply)
        else:
            self._reject(refusal)
            self._clear()

    def _no_more_mail(self) -> Reply | None:
        """Return the reason to refuse any message from this sender now, or None."""
        sender, identity, context = self._transaction.sender, self._login.identity, self._context
        allowed = identity.may_send_as if identity else None
        if identity and allowed and sender and not allowed.match(sender):
            return replies.not_allowed_sender(identity.user, allowed, sender, "MAIL FROM")
        if context.rates is not None and (full := context.rates.full(self.user, sender)):
            return replies.rate_exceeded(full)
        if context.space is None:
            return None
        if context.space.replaced:
            return replies.SPOOL_REPLACED
        if shortage := context.space.shortage(self._transaction.size):
            return replies.no_space(shortage)
        return replies.QUEUE_FULL if context.space.queue_is_full() else None

    @syntax("RCPT TO:<address> [NOTIFY=NEVER|SUCCESS,FAILURE,DELAY] [ORCPT=type;address]")
    def smtp_RCPT(self, arg: str) -> None:
        reply = REFUSALS["RCPT"].get(self._stage) or self._transaction.add_recipient(
            arg, extended=self._extended
        )
        if reply.code < replies.REFUSAL:
            self._stage = Stage.RCPT
            self.send_reply(reply)
        else:
            self._reject(reply, _path(arg))

    @syntax("DATA")
    def smtp_DATA(self, arg: str) -> None:
        refusal = replies.NO_ARGUMENT if arg else REFUSALS["DATA"].get(self._stage) or self._begin_message()
        if refusal is None:
            self.send_reply(replies.GO_AHEAD)
            self._intake.read_data()
            return
        self._reject(refusal)
        if self.input.buffer:
            # RFC 2920 3.1: DATA ends a pipelined group. The input that follows may be a message, and reading
            # it as commands would let the author of the message issue commands.
            self.close_with(replies.INPUT_AFTER_DATA)

    @syntax("BDAT octets [LAST]")
    def smtp_BDAT(self, arg: str) -> None:
        chunk = read_chunk_argument(arg)
        if chunk is None or chunk.size > self.settings.max_message_size:
            # A chunk of unknown or excessive length follows, which must not be read as commands.
            self.close_with(replies.BDAT_SYNTAX if chunk is None else replies.MESSAGE_TOO_BIG)
            return
        refusal = REFUSALS["BDAT"].get(self._stage)
        if refusal is None and self._stage is not Stage.CHUNKS:
            refusal = self._begin_message()
        if refusal is not None:
            self._intake.skip(chunk.size, refusal)
            return
        self._stage = Stage.CHUNKS
        # A message in small chunks is limited by its size and its deadline, not by the number of commands.
        self._idle_commands -= chunk.size > 0
        self._intake.read_chunk(chunk)

    def _begin_message(self) -> Reply | None:
        envelope, identity = self._transaction.envelope(), self._login.identity
        origin = Origin(
            helo=self._helo,
            peer=self.peer,
            hostname=self.settings.hostname,
            extended=self._extended,
            user=self.user,
            by_network=bool(self.client.network_user) and not self._login.proved,
            smtputf8=envelope.smtputf8,
            tls=self.tls,
            may_send_as=identity.may_send_as if identity else None,
            redirected=self._transaction.redirected,
            origin_domain=self.settings.origin_domain if self.client.user else "",
        )
        return self._intake.begin(envelope, origin, scheduled=self._transaction.scheduled)

    def _conclude(self, reply: Reply) -> None:
        """Send the reply to a message, and end its transaction.

        Later chunks of a refused message are then refused, too, and not taken for another message.
        """
        if reply.code < replies.REFUSAL:
            self.forgive()
            self._idle_commands = 0
            self.send_reply(reply)
        else:
            self._reject(reply)
        self._clear()

    @syntax("RSET")
    def smtp_RSET(self, arg: str) -> None:
        if arg:
            self.send_reply(replies.NO_ARGUMENT)
        else:
            self._clear()
            self.send_reply(replies.OK)


def _path(argument: str) -> str:
    """Return what the client wrote as an address, valid or not, without the `TO:<...>` around it."""
    _, bracket, path = argument.partition("<")
    if not bracket:
        return argument
    return path.rpartition(">")[0] if ">" in path else path
