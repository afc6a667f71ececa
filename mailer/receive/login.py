"""The AUTH exchange of one session (RFC 4954): challenges, responses, and how often one may be wrong."""

from typing import Protocol

from mailer.mail.reply import Reply
from mailer.maillog.events import MailLog
from mailer.receive import replies
from mailer.receive.auth import (
    MAX_RESPONSE,
    Authenticator,
    Credentials,
    Identity,
    decode_response,
    plain_credentials,
)
from mailer.receive.input import LineTooLong

_MAX_FAILURES = 3


class Channel(Protocol):
    """What the exchange needs of a connection."""

    peer: str

    def say(self, reply: Reply) -> None: ...
    def hang_up(self, reply: Reply) -> None: ...
    def challenge(self, text: bytes) -> None: ...
    async def flush(self) -> None: ...
    async def read_line(self) -> bytes: ...


class _Refused(Exception):
    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class Login:
    """Who a session's client proved to be."""

    def __init__(self, channel: Channel, log: MailLog, authenticator: Authenticator | None) -> None:
        self.identity: Identity | None = None
        self._channel = channel
        self._log = log
        self._authenticator = authenticator
        self._failures = 0

    @property
    def configured(self) -> bool:
        """There is somebody who could log in."""
        return self._authenticator is not None

    async def run(self, argument: str) -> None:
        """Serve one AUTH command, given the text after the verb; every path answers once."""
        try:
            credentials = await self._credentials(argument)
        except _Refused as refusal:
            self._channel.say(refusal.reply)
            return
        # What was answered before goes out now: hashing may take its time.
        await self._channel.flush()
        assert self._authenticator is not None
        self.identity = await self._authenticator.authenticate(credentials)
        if self.identity is not None:
            self._channel.say(replies.AUTHENTICATED)
        else:
            self._fail(credentials.username)

    def _fail(self, username: str) -> None:
        self._log.login_failed(peer=self._channel.peer, user=username)
        self._failures += 1
        if self._failures < _MAX_FAILURES:
            self._channel.say(replies.LOGIN_FAILED)
        else:
            self._channel.hang_up(replies.TOO_MANY_LOGINS)

    async def _credentials(self, argument: str) -> Credentials:
        if self.identity is not None:
            raise _Refused(replies.AUTH_TWICE)
        mechanism, _, initial = argument.partition(" ")
        try:
            match mechanism.upper():
                case "PLAIN":
                    return await self._plain(initial)
                case "LOGIN":
                    return await self._login(initial)
        except UnicodeDecodeError:
            raise _Refused(replies.BAD_CREDENTIALS) from None
        raise _Refused(replies.BAD_MECHANISM if mechanism else replies.AUTH_SYNTAX)

    async def _plain(self, initial: str) -> Credentials:
        message = _decode(initial.encode("utf-8", "surrogateescape")) if initial else await self._ask(b"")
        try:
            credentials = plain_credentials(message)
        except ValueError:
            raise _Refused(replies.BAD_CREDENTIALS) from None
        if credentials is None:
            raise _Refused(replies.LOGIN_FAILED)
        return credentials

    async def _login(self, initial: str) -> Credentials:
        encoded = initial.encode("utf-8", "surrogateescape")
        username = _decode(encoded) if encoded else await self._ask(b"VXNlcm5hbWU6")  # Username:
        password = await self._ask(b"UGFzc3dvcmQ6")  # Password:
        return Credentials(username.decode(), password.decode())

    async def _ask(self, challenge: bytes) -> bytes:
        self._channel.challenge(challenge)
        try:
            line = await self._channel.read_line()
        except LineTooLong:
            raise _Refused(replies.AUTH_TOO_LONG) from None
        response = line[:-2]
        if not line.endswith(b"\r\n"):
            raise _Refused(replies.BAD_LINE)
        if response == b"*":
            raise _Refused(replies.AUTH_ABORTED)
        return _decode(response)


def _decode(response: bytes) -> bytes:
    if len(response) > MAX_RESPONSE:
        raise _Refused(replies.AUTH_TOO_LONG)
    try:
        return decode_response(response)
    except ValueError:
        raise _Refused(replies.BAD_BASE64) from None
