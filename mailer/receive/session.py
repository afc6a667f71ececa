"""The commands of a submission session (RFC 5321, RFC 6409), one method each."""

# ruff: noqa: N802 - verbs are named as aiosmtpd names them

import re
import traceback
from collections.abc import Awaitable, Callable, Mapping

from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.auth import MAX_RESPONSE, Authenticator, Identity
from mailer.receive.connection import Connection, syntax
from mailer.receive.content import Origin
from mailer.receive.data import DataReader
from mailer.receive.login import Login
from mailer.receive.peers import is_loopback
from mailer.receive.settings import Settings
from mailer.receive.transaction import Transaction
from mailer.receive.upload import Store, Upload
from mailer.spool.changes import NotUndone

_MAX_COMMAND = 512
"""Octets with CRLF; RFC 5321 4.5.3.1.4."""
# What extensions add to it: SIZE 26 (RFC 1870), BODY 17 (RFC 6152), SMTPUTF8 10 (RFC 6531), AUTH 500
# (RFC 4954), ENVID and ORCPT 100 and 500 (RFC 3461), and a little for RET and NOTIFY.
_LONGER_COMMANDS = {b"MAIL": _MAX_COMMAND + 700, b"RCPT": _MAX_COMMAND + 600, b"AUTH": MAX_RESPONSE + 32}

_MAX_UNKNOWN = 6
_HOST = re.compile(r"[A-Za-z0-9._-]{1,255}|\[[A-Za-z0-9.:%_-]{1,253}\]")
_HTTP = {b"GET", b"POST", b"CONNECT", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"}


class Session(Connection):
    """Serves one client. aiosmtpd's verbs are all replaced, and its handler hooks are not used."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        authenticator: Authenticator | None,
        on_end: Callable[[Connection], None],
    ) -> None:
        super().__init__(settings, on_end)
        self._store = store
        self._transaction = Transaction(settings)
        self._login = Login(self, store.log, authenticator)
        self._helo = ""
        self._extended = False
        self._unknown = 0
        self._idle_commands = 0

    async def greet(self) -> None:
        self.say(Reply(220, (f"{self.settings.hostname} ESMTP mailer",)))

    def failed(self, error: Exception) -> None:
        text = "".join(traceback.format_exception(error))
        self._store.log.error("a session failed", peer=self.peer, traceback=text)

    async def serve(self, line: bytes) -> None:
        # A bare CR or LF ends a line for some and not for others; NUL ends a string for some.
        command = line[:-2]
        if not line.endswith(b"\r\n") or b"\r" in command or b"\0" in command:
            self.say(replies.BAD_LINE)
            return
        verb, _, argument = command.partition(b" ")
        verb = verb.upper()
        method = _VERBS.get(verb)
        if len(line) > _LONGER_COMMANDS.get(verb, _MAX_COMMAND):
            self.say(replies.LINE_TOO_LONG)
        elif method is None:
            self._unrecognised(verb)
        elif self._idle_commands >= self.settings.max_idle_commands:
            self.hang_up(replies.TOO_MANY_COMMANDS)
        else:
            self._idle_commands += verb != b"RCPT"
            await method(self, argument.decode("utf-8", "surrogateescape").strip(" \t"))

    def _unrecognised(self, verb: bytes) -> None:
        if verb in _HTTP:
            # A browser or a web application was made to talk to us; what follows is its header, not commands.
            self.hang_up(replies.NOT_HTTP)
        elif verb == b"BDAT":
            # What follows is a message: it must not be read as commands.
            self.hang_up(replies.NO_CHUNKING)
        else:
            self._unknown += 1
            if self._unknown < _MAX_UNKNOWN:
                self.say(replies.UNKNOWN_COMMAND)
            else:
                self.hang_up(replies.TOO_MANY_UNKNOWN)

    def _reject(self, reply: Reply, recipient: str = "") -> None:
        self._store.log.rejected(
            peer=self.peer,
            user=self._user,
            sender=self._transaction.sender,
            recipient=recipient,
            reply=str(reply),
        )
        self.say(reply)

    @property
    def _user(self) -> str:
        identity: Identity | None = self._login.identity
        return identity.user if identity else ""

    @property
    def _must_log_in(self) -> bool:
        return self.settings.require_auth and self._login.identity is None

    @property
    def _may_log_in(self) -> bool:
        """A password in clear does not leave this host."""
        return self._login.configured and is_loopback(self.peer)

    # The verbs: each takes the text after the verb, stripped, decoded with `surrogateescape`.

    @syntax("EHLO host")
    async def smtp_EHLO(self, hostname: str) -> None:
        if self._introduce(hostname, extended=True):
            lines = [
                self.settings.hostname,
                "PIPELINING",
                f"SIZE {self.settings.max_message_size}",
                "8BITMIME",
                "SMTPUTF8",
                "ENHANCEDSTATUSCODES",
                "DSN",
            ]
            if self._may_log_in:
                lines.append("AUTH PLAIN LOGIN")
            self.say(Reply(250, (*lines, "HELP")))

    @syntax("HELO host")
    async def smtp_HELO(self, hostname: str) -> None:
        if self._introduce(hostname, extended=False):
            self.say(Reply(250, (self.settings.hostname,)))

    def _introduce(self, hostname: str, *, extended: bool) -> bool:
        if not _HOST.fullmatch(hostname):
            self.say(replies.BAD_NAME)
            return False
        self._helo, self._extended = hostname, extended
        self._transaction = Transaction(self.settings)
        return True

    @syntax("AUTH PLAIN|LOGIN [initial-response]")
    async def smtp_AUTH(self, arg: str) -> None:
        if not self._extended:
            self.say(replies.NEED_EHLO)
        elif not self._login.configured:
            self.say(replies.NO_AUTH)
        elif not self._may_log_in:
            self.say(replies.NEED_TLS)
        elif self._transaction.begun:
            self.say(replies.AUTH_IN_MAIL)
        else:
            await self._login.run(arg)

    @syntax("MAIL FROM:<address> [SIZE=octets] [BODY=8BITMIME] [SMTPUTF8] [RET=FULL|HDRS] [ENVID=id]")
    async def smtp_MAIL(self, arg: str | None) -> None:
        if not self._helo:
            self.say(replies.NEED_EHLO)
        elif self._must_log_in:
            self._reject(replies.NEED_AUTH)
        elif self._transaction.begun:
            self.say(replies.NESTED_MAIL)
        else:
            reply = self._transaction.begin(arg or "", extended=self._extended)
            if reply.positive:
                self.say(reply)
            else:
                self._reject(reply)

    @syntax("RCPT TO:<address> [NOTIFY=NEVER|SUCCESS,FAILURE,DELAY] [ORCPT=type;address]")
    async def smtp_RCPT(self, arg: str | None) -> None:
        if self._must_log_in:
            self._reject(replies.NEED_AUTH)
            return
        reply = self._transaction.add_recipient(arg or "", extended=self._extended)
        if reply.positive:
            self.say(reply)
        else:
            self._reject(reply, arg or "")

    @syntax("DATA")
    async def smtp_DATA(self, arg: str) -> None:
        upload = self._begin_upload(arg)
        if isinstance(upload, Reply):
            self._reject(upload)
            if self.input.pending:
                # RFC 2920 3.1: DATA ends a group. What was sent ahead may be a message, and who reads a
                # message as commands lets its author give them.
                self.hang_up(replies.INPUT_AFTER_DATA)
            return
        self.say(replies.GO_AHEAD)
        await self.flush()
        deadline = self.loop.time() + self.settings.data_timeout

        async def next_chunk() -> bytes:
            left = deadline - self.loop.time()
            self.set_timeout(max(0.001, min(left, self.settings.stall_timeout)))
            return await self.read_chunk()

        self.input.unread(await upload.receive(next_chunk))
        self.pause_timeout()
        try:
            reply = await upload.finish()
        except NotUndone as error:
            self._store.log.error("a failed commit could not be undone", peer=self.peer, error=str(error))
            self.abort()
            return
        if reply.positive:
            self.forgive()
            self._idle_commands = 0
            self.say(reply)
        else:
            self._reject(reply)
        self._transaction = Transaction(self.settings)

    def _begin_upload(self, arg: str) -> Upload | Reply:
        if self._must_log_in:
            return replies.NEED_AUTH
        if arg:
            return replies.NO_ARGUMENT
        if not self._transaction.begun:
            return replies.NEED_MAIL
        if not self._transaction.has_recipients:
            return replies.NEED_RCPT
        envelope = self._transaction.envelope()
        origin = Origin(
            helo=self._helo,
            peer=self.peer,
            hostname=self.settings.hostname,
            extended=self._extended,
            user=self._user,
            smtputf8=envelope.smtputf8,
        )
        reader = DataReader(max_size=self.settings.max_message_size, long_lines=self.settings.long_lines)
        try:
            return Upload(self._store, envelope, origin, reader)
        except OSError as error:
            self._store.log.warning("a message could not be stored", peer=self.peer, error=str(error))
            return replies.not_stored(error)

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: ARG002 - whatever follows
        self.say(replies.NO_TLS)

    @syntax("RSET")
    async def smtp_RSET(self, arg: str) -> None:
        if arg:
            self.say(replies.NO_ARGUMENT)
        else:
            self._transaction = Transaction(self.settings)
            self.say(replies.OK)

    @syntax("NOOP [text]")
    async def smtp_NOOP(self, arg: str) -> None:  # noqa: ARG002 - RFC 5321 4.1.1.9: to be ignored
        self.say(replies.OK)

    @syntax("VRFY address")
    async def smtp_VRFY(self, arg: str) -> None:
        self.say(replies.CANNOT_VERIFY if arg else replies.NEED_ARGUMENT)

    @syntax("EXPN list")
    async def smtp_EXPN(self, arg: str) -> None:  # noqa: ARG002 - whatever the list
        self.say(replies.NO_EXPN)

    @syntax("HELP [command]")
    async def smtp_HELP(self, arg: str) -> None:
        verb = arg.upper()
        texts = [_SYNTAX[verb]] if verb in _SYNTAX else _SYNTAX.values()
        self.say(Reply(214, tuple(f"2.0.0 {text}" for text in texts)))

    @syntax("QUIT")
    async def smtp_QUIT(self, arg: str) -> None:
        if arg:
            self.say(replies.NO_ARGUMENT)
        else:
            self.hang_up(replies.BYE)


# Once for the class: aiosmtpd does it for every connection.
_VERBS: Mapping[bytes, Callable[[Session, str], Awaitable[None]]] = {
    name.removeprefix("smtp_").encode(): method
    for name, method in vars(Session).items()
    if name.startswith("smtp_")
}
_SYNTAX = {
    verb.decode(): str(getattr(method, "__smtp_syntax__"))  # noqa: B009 - no type checker knows what `syntax` set
    for verb, method in _VERBS.items()
    if hasattr(method, "__smtp_syntax__")
}
