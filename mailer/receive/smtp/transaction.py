"""One mail transaction as MAIL and RCPT build it (RFC 5321 3.3), with the rules for both; no I/O."""

from mailer.mail.address import AddressError, Lenient, Path, forward_path, reverse_path
from mailer.mail.envelope import Envelope, Recipient
from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.settings import Settings
from mailer.receive.smtp.parameters import MailParameters, ParameterError, mail_parameters, rcpt_parameters


class Transaction:
    """The state from MAIL to the end of DATA; the transaction has begun once `_mail` is set."""

    def __init__(self, settings: Settings, *, names: bool = False) -> None:
        """Prepare for the first transaction of a session.

        Args:
            settings: the receiver's settings.
            names: accept names without a domain even under strictSyntax.
        """
        self._settings = settings
        origin = settings.origin_domain
        strict = settings.strict_syntax and not names
        self._sender_syntax = None if strict else Lenient(origin)
        self._recipient_syntax = None if strict else Lenient(origin, settings.aliases)
        self.clear()

    def clear(self) -> None:
        """Forget everything, for the next transaction."""
        self._mail: MailParameters | None = None
        self._sender = ""
        self._recipients: dict[tuple[str, str], Recipient] = {}
        self._redirected: list[str] = []
        self.scheduled = 0.0
        """When the client wants the first delivery attempt, in seconds since the epoch; 0: immediately."""

    @property
    def sender(self) -> str:
        return self._sender

    @property
    def size(self) -> int:
        """Octets that the client announced; 0: none announced."""
        return self._mail.size if self._mail else 0

    @property
    def redirected(self) -> tuple[str, ...]:
        """The recipients named by the client whose mail goes to `redirectAllTo` instead."""
        return tuple(self._redirected)

    @property
    def given(self) -> tuple[str, ...]:
        """The recipients accepted so far, as the client named them."""
        kept = (r.address for r in self._recipients.values() if r.address != self._settings.redirect_all_to)
        return (*self._redirected, *kept)

    def begin(self, argument: str, now: float, *, extended: bool) -> Reply:
        """Process the text after `MAIL `; nothing changes unless the reply is positive.

        Args:
            argument: the text.
            now: seconds since the epoch, for HOLDFOR.
            extended: whether the client said EHLO, which parameters need.
        """
        if argument[:5].upper() != "FROM:":
            return replies.MAIL_SYNTAX
        try:
            path = reverse_path(argument[5:], self._sender_syntax)
            mail = mail_parameters(path.parameters)
        except (AddressError, ParameterError) as error:
            return _refused(error)
        refusal = None
        if not (extended and argument.isascii()):
            refusal = _unsupported(argument, path, extended=extended, smtputf8=mail.smtputf8)
        if refusal is None and mail.size > self._settings.max_message_size:
            refusal = replies.MESSAGE_TOO_BIG
        scheduled = mail.hold_until or (now + mail.hold_for if mail.hold_for else 0.0)
        if refusal is None and scheduled:
            refusal = self._cannot_wait(scheduled - now)
        if refusal is not None:
            return refusal
        self.scheduled = scheduled if scheduled > now else 0.0
        self._mail, self._sender = mail, path.address
        return replies.SENDER_OK if path.address in argument else replies.sender_completed(path.address)

    def _cannot_wait(self, seconds: float) -> Reply | None:
        most = self._settings.max_future_release
        if not most:
            return replies.NO_FUTURE_RELEASE
        return replies.too_far_ahead(most) if seconds > most else None

    def add_recipient(self, argument: str, *, extended: bool) -> Reply:
        """Process the text after `RCPT `; nothing changes unless the reply is positive.

        A repeated address counts once, with its first parameters. Domains are compared without case, local
        parts byte by byte (RFC 5321 2.4).
        """
        assert self._mail is not None
        if argument[:3].upper() != "TO:":
            return replies.RCPT_SYNTAX
        try:
            path = forward_path(argument[3:], self._recipient_syntax)
            rcpt = rcpt_parameters(path.parameters)
        except (AddressError, ParameterError) as error:
            return _refused(error)
        refusal = None
        if not (extended and argument.isascii()):
            refusal = _unsupported(argument, path, extended=extended, smtputf8=self._mail.smtputf8)
        if refusal is None:
            refusal = self._add(Recipient(path.address, rcpt.notify, rcpt.orcpt))
        if refusal is not None:
            return refusal
        return replies.RECIPIENT_OK if path.address in argument else replies.recipient_completed(path.address)

    def _add(self, recipient: Recipient) -> Reply | None:
        """Add a recipient, or return the reply if there is another one to give."""
        local_part, _, domain = recipient.address.rpartition("@")
        key = (local_part, domain.lower())
        if key in self._recipients:
            return replies.RECIPIENT_TWICE
        if len(self._recipients) >= self._settings.max_recipients:
            return replies.TOO_MANY_RECIPIENTS
        allowed = self._settings.allowed_recipients
        if self._settings.redirect_all_to and not (allowed and allowed.match(recipient.address)):
            self._redirected.append(recipient.address)
            # Without NOTIFY and ORCPT: the next server would report on the original recipient.
            recipient = Recipient(self._settings.redirect_all_to)
        elif allowed is not None and not allowed.match(recipient.address):
            return replies.RECIPIENT_NOT_ALLOWED
        self._recipients[key] = recipient
        return None

    @property
    def _staging(self) -> bool:
        """Whether `redirectAllTo` is on, and the sender is an address that must not get mail either."""
        allowed = self._settings.allowed_recipients
        return bool(
            self._settings.redirect_all_to and self._sender and not (allowed and allowed.match(self._sender))
        )

    def envelope(self) -> Envelope:
        """Return the finished envelope, for DATA."""
        assert self._mail is not None
        recipients = tuple(self._recipients.values())
        if self._redirected:
            # All redirected recipients are one address now, which gets one copy.
            recipients = tuple({recipient.address: recipient for recipient in reversed(recipients)}.values())
        if self._staging:
            # Bounces and confirmations from the next server must stay in staging, too.
            return Envelope(
                sender=self._settings.redirect_all_to,
                recipients=tuple(Recipient(recipient.address) for recipient in recipients),
                body=self._mail.body,
                smtputf8=self._mail.smtputf8,
            )
        return Envelope(
            sender=self._sender,
            recipients=recipients,
            body=self._mail.body,
            smtputf8=self._mail.smtputf8,
            ret=self._mail.ret,
            envid=self._mail.envid,
        )


def _refused(error: AddressError | ParameterError) -> Reply:
    return Reply(error.code, (f"{error.enhanced} {error.text}",))


def _unsupported(argument: str, path: Path, *, extended: bool, smtputf8: bool) -> Reply | None:
    """Return a refusal if a command needs an extension that the session or transaction did not ask for."""
    if path.parameters and not extended:
        return replies.NEED_ESMTP
    if not smtputf8 and not argument.isascii():
        return replies.NEED_SMTPUTF8
    return None
