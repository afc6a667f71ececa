"""A submission session (RFC 5321, RFC 6409): greeting, EHLO, AUTH and STARTTLS.

`mail_commands` has the commands of a transaction.
"""

# ruff: noqa: N802 - verbs are named as aiosmtpd names them

import re
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

from mailer.config.receiving import Offer
from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.context import Client, ReceiverContext
from mailer.receive.listen.certificate import Certificate
from mailer.receive.smtp.connection import Connection, syntax
from mailer.receive.smtp.mail_commands import MailCommands
from mailer.receive.smtp.order import REFUSALS
from mailer.receive.users.auth import MAX_RESPONSE
from mailer.receive.users.failures import Failures

_MAX_COMMAND = 512
"""Octets in a command line with CRLF (RFC 5321 4.5.3.1.4)."""
# Extensions lengthen it: SIZE 26 (RFC 1870), BODY 17 (RFC 6152), SMTPUTF8 10 (RFC 6531), AUTH 500
# (RFC 4954), ENVID and ORCPT 100 and 500 (RFC 3461), HOLDUNTIL 34 (RFC 4865),
# and a little for RET and NOTIFY.
_LONGER_COMMANDS = {b"MAIL": _MAX_COMMAND + 740, b"RCPT": _MAX_COMMAND + 600, b"AUTH": MAX_RESPONSE + 32}

# As numbers: CPython searches for these at once, and for octets in `bytes` only after a TypeError.
_CR, _NUL = 0x0D, 0x00

_MAX_UNKNOWN = 6
"""Unknown commands at which the session ends."""
_HOST = re.compile(r"[A-Za-z0-9._-]{1,255}|\[[A-Za-z0-9.:%_-]{1,253}\]")
# Windows sends the machine's name in the bytes of its code page. RFC 5321 4.1.4 forbids refusing mail because
# of a wrong name; control characters are refused all the same.
_ODD_HOST = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,255}")
_NOT_IN_HOST = re.compile(r"[^A-Za-z0-9._-]")
_HTTP = {b"GET", b"POST", b"CONNECT", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"}


class Session(MailCommands):
    """Serves one client. It overrides all of aiosmtpd's verbs and does not use its handler hooks."""

    __slots__ = ("_unknown",)

    def __init__(
        self,
        client: Client,
        context: ReceiverContext,
        failures: Failures,
        on_end: Callable[[Connection], None],
    ) -> None:
        super().__init__(client, context, failures, on_end)
        self._unknown = 0

    def greet(self) -> None:
        self.send_reply(Reply(220, (f"{self.settings.hostname} ESMTP mailer",)))

    def failed(self, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error))
        self._store.log.error("a session failed", peer=self.peer, traceback=text)

    def serve(self, line: bytes) -> None:
        # Programs disagree on whether a bare CR or LF ends a line, and whether NUL ends a string.
        command = line[:-2]
        if not line.endswith(b"\r\n") or _CR in command or _NUL in command:
            self.send_reply(replies.BAD_LINE)
            return
        verb, _, argument = command.partition(b" ")
        verb = verb.upper()
        method = _VERBS.get(verb)
        if len(line) > _MAX_COMMAND and len(line) > _LONGER_COMMANDS.get(verb, _MAX_COMMAND):
            self.send_reply(replies.LINE_TOO_LONG)
        elif method is None:
            self._unrecognised(verb)
        elif self._idle_commands >= self.settings.max_idle_commands:
            self.close_with(replies.TOO_MANY_COMMANDS)
        else:
            self._idle_commands += verb != b"RCPT"
            method(self, argument.decode("utf-8", "surrogateescape").strip(" \t"))

    def _unrecognised(self, verb: bytes) -> None:
        if verb in _HTTP:
            # A browser or web application was tricked into connecting; an HTTP header follows, not commands.
            self.close_with(replies.NOT_HTTP)
        else:
            self._unknown += 1
            if self._unknown < _MAX_UNKNOWN:
                self.send_reply(replies.UNKNOWN_COMMAND)
            else:
                self.close_with(replies.TOO_MANY_UNKNOWN)

    @property
    def _login_is_safe(self) -> bool:
        """Whether AUTH may follow: a password in clear text must not cross a network."""
        return not self._must_encrypt and (self.client.local or bool(self.tls))

    @property
    def _mechanisms(self) -> tuple[str, ...]:
        """The mechanisms that this listener offers, where a login is safe."""
        return () if self.client.offers.auth is Offer.NONE else self._login.mechanisms

    @property
    def _certificate(self) -> Certificate | None:
        """The certificate for STARTTLS, or None if that is not offered.

        It never is at `submitSocket`: a Unix socket has no host name that a client could verify.
        """
        offered = not self.client.user and self.client.offers.starttls is not Offer.NONE
        return self._context.certificate if offered else None

    # The verbs: each gets the text after the verb, stripped and decoded with `surrogateescape`.

    @syntax("EHLO host")
    def smtp_EHLO(self, hostname: str) -> None:
        if self._introduce(hostname, extended=True):
            name = f"{self.settings.hostname} {self.settings.identity}".rstrip()
            ahead = self.settings.max_future_release
            last = int(self._store.clock()) + ahead if ahead else 0
            starttls = ("STARTTLS",) if self._certificate is not None and not self.tls else ()
            mechanisms = self._mechanisms if self._login_is_safe else ()
            self.send_reply(
                _extensions(name, self.settings.max_message_size, ahead, last, starttls, mechanisms)
            )

    @syntax("HELO host")
    def smtp_HELO(self, hostname: str) -> None:
        if self._introduce(hostname, extended=False):
            self.send_reply(Reply(250, (self.settings.hostname,)))

    def _introduce(self, hostname: str, *, extended: bool) -> bool:
        if not _HOST.fullmatch(hostname):
            if self.settings.strict_syntax or not _ODD_HOST.fullmatch(hostname):
                self.send_reply(replies.BAD_NAME)
                return False
            hostname = _NOT_IN_HOST.sub("?", hostname)
        self._helo, self._extended = hostname, extended
        self._clear()
        return True

    @syntax("AUTH mechanism [initial-response]")
    def smtp_AUTH(self, arg: str) -> None:
        if not self._extended and self.settings.strict_syntax:
            self.send_reply(replies.NEED_EHLO)
        elif self._helo and not self._mechanisms:
            self.send_reply(replies.NO_AUTH)
        elif refusal := REFUSALS["AUTH"].get(self._stage):
            self.send_reply(refusal)
        elif not self._login_is_safe:
            self.send_reply(replies.NEED_TLS)
        else:
            self.wait_for(self._log_in(arg))

    async def _log_in(self, argument: str) -> None:
        await self._login.run(argument)
        if self._login.proved:
            self.trust()
            self._stage = self._outside

    @syntax("STARTTLS")
    def smtp_STARTTLS(self, arg: str) -> None:
        certificate = self._certificate
        if certificate is None:
            self.send_reply(replies.NO_TLS)
        elif arg:
            self.send_reply(replies.NO_ARGUMENT)
        elif self.tls:
            self.send_reply(replies.TLS_TWICE)
        elif refusal := REFUSALS["STARTTLS"].get(self._stage):
            self.send_reply(refusal)
        elif not self._extended:
            self.send_reply(replies.NEED_EHLO)
        else:
            self.send_reply(replies.STARTING_TLS)
            self._clear()
            self.wait_for(self._begin_tls(certificate))

    async def _begin_tls(self, certificate: Certificate) -> None:
        await self.start_tls(certificate.context())
        self._start_over(self._context)

    @syntax("NOOP [text]")
    def smtp_NOOP(self, arg: str) -> None:  # noqa: ARG002 - RFC 5321 4.1.1.9: the argument is ignored
        self.send_reply(replies.OK)

    @syntax("VRFY address")
    def smtp_VRFY(self, arg: str) -> None:
        self.send_reply(replies.CANNOT_VERIFY if arg else replies.NEED_ARGUMENT)

    @syntax("EXPN list")
    def smtp_EXPN(self, arg: str) -> None:  # noqa: ARG002 - the same reply for any list
        self.send_reply(replies.NO_EXPN)

    @syntax("HELP [command]")
    def smtp_HELP(self, arg: str) -> None:
        verb = arg.upper()
        texts = [_SYNTAX[verb]] if verb in _SYNTAX else _SYNTAX.values()
        self.send_reply(Reply(214, tuple(f"2.0.0 {text}" for text in texts)))

    @syntax("QUIT")
    def smtp_QUIT(self, arg: str) -> None:
        if arg:
            self.send_reply(replies.NO_ARGUMENT)
        else:
            self.close_with(replies.BYE)


# Built once a second, and not for each connection.
@lru_cache(maxsize=16)
def _extensions(
    name: str, size: int, ahead: int, last: int, starttls: tuple[str, ...], mechanisms: tuple[str, ...]
) -> Reply:
    """Return the reply to EHLO.

    Args:
        name: this server's name, and the word by which a runner recognises it.
        size: the largest message, in octets.
        ahead: how far ahead mail may be scheduled, in seconds; 0: not at all.
        last: the same as a time, in seconds since the epoch.
        starttls: that keyword, or nothing.
        mechanisms: those of AUTH; none: it is not offered.
    """
    lines = [
        name,
        "PIPELINING",
        f"SIZE {size}",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "DSN",
        "CHUNKING",
    ]
    if ahead:
        # RFC 4865 3: the maximum in seconds, and as a time.
        lines.append(f"FUTURERELEASE {ahead} {datetime.fromtimestamp(last, UTC):%Y-%m-%dT%H:%M:%SZ}")
    lines += starttls
    if mechanisms:
        lines.append(" ".join(("AUTH", *mechanisms)))
    return Reply(250, (*lines, "HELP"))


# Collected once for the class; aiosmtpd does this for every connection.
_VERBS: Mapping[bytes, Callable[[Session, str], None]] = {
    name.removeprefix("smtp_").encode(): method
    for name, method in (*vars(Session).items(), *vars(MailCommands).items())
    if name.startswith("smtp_")
}
_SYNTAX = {
    verb.decode(): str(getattr(method, "__smtp_syntax__"))  # noqa: B009 - no type checker knows what `syntax` set
    for verb, method in _VERBS.items()
    if hasattr(method, "__smtp_syntax__")
}
