"""The AUTH exchange of one session (RFC 4954): challenges, responses, and the limit on failed logins."""

import asyncio
from base64 import b64encode
from secrets import token_hex
from typing import Protocol

from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.context import Client, ReceiverContext
from mailer.receive.smtp.connection import Stopping
from mailer.receive.smtp.input import LineTooLong
from mailer.receive.users.accounts import cram_md5
from mailer.receive.users.auth import (
    MAX_RESPONSE,
    Credentials,
    Identity,
    NotJudged,
    decode_response,
    plain_credentials,
)
from mailer.receive.users.failures import Failures

_MAX_FAILURES = 3
"""Failed logins after which the session ends."""


class Channel(Protocol):
    """The part of a connection that the exchange needs."""

    def send_reply(self, reply: Reply) -> None: ...
    def close_with(self, reply: Reply) -> None: ...
    def challenge(self, text: bytes) -> None: ...
    async def flush(self) -> None: ...
    @property
    def lost(self) -> bool: ...
    @property
    def half_closed(self) -> bool: ...
    async def read_line(self) -> bytes: ...


class _Refused(Exception):
    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class Login:
    """The identity of a session's client, and the AUTH commands that prove it."""

    def __init__(
        self, channel: Channel, client: Client, context: ReceiverContext, failures: Failures
    ) -> None:
        user = client.user or client.network_user
        known = context.authenticator if user else None
        self.identity: Identity | None = known.identity(user) if known else None
        self.proved = False
        """Whether `identity` comes from a login rather than from the client's network or user id."""
        self._channel = channel
        self._client = client
        self._log = context.store.log
        self._authenticator = context.authenticator
        self._hostname = context.settings.hostname
        self._failures = failures
        self._failed = 0

    def reconfigure(self, context: ReceiverContext) -> None:
        """Check the next login against a new context; a client that has logged in stays logged in."""
        self._authenticator = context.authenticator

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The mechanisms that EHLO offers; empty without users, or if the kernel identifies the client."""
        if self._client.user or self._authenticator is None or not self._authenticator.anybody():
            return ()
        return ("PLAIN", "LOGIN", "CRAM-MD5") if self._authenticator.offers_cram_md5 else ("PLAIN", "LOGIN")

    async def run(self, argument: str) -> None:
        """Serve one AUTH command, given the text after the verb; every path sends one final reply."""
        if self._failures.is_blocked(self._client.peer, local=self._client.local):
            self._channel.close_with(replies.TOO_MANY_LOGINS)
            return
        try:
            claimed, proved = await self._exchange(argument)
        except _Refused as refusal:
            self._channel.send_reply(refusal.reply)
            return
        if proved is not None:
            self.identity, self.proved = proved, True
            self._channel.send_reply(replies.AUTHENTICATED)
        else:
            await self._fail(claimed)

    async def _exchange(self, argument: str) -> tuple[str, Identity | None]:
        """Return the claimed user name, and the identity if the proof was right."""
        assert self._authenticator is not None
        mechanism, _, initial = argument.partition(" ")
        if self.proved:
            raise _Refused(replies.AUTH_TWICE)
        if mechanism.upper() == "CRAM-MD5" and self._authenticator.offers_cram_md5:
            return await self._cram_md5(initial)
        credentials = await self._credentials(mechanism.upper(), initial)
        # Send the queued replies first, because hashing may take a while.
        await self._channel.flush()
        asked = Credentials(credentials.username, credentials.password, self._channel)
        try:
            return credentials.username, await self._authenticator.authenticate(asked)
        except NotJudged:
            raise Stopping from None

    async def _fail(self, username: str) -> None:
        self._failures.log(self._log, self._client.peer, username)
        self._failed += 1
        await asyncio.sleep(self._failures.count(self._client.peer, username))
        if self._failed < _MAX_FAILURES:
            self._channel.send_reply(replies.LOGIN_FAILED)
        else:
            self._channel.close_with(replies.TOO_MANY_LOGINS)

    async def _cram_md5(self, initial: str) -> tuple[str, Identity | None]:
        if initial:
            raise _Refused(replies.NO_INITIAL_RESPONSE)
        assert self._authenticator is not None
        # RFC 2195 2: a challenge must never repeat.
        challenge = f"<{token_hex(16)}@{self._hostname}>".encode()
        name, _, digest = (await self._ask(b64encode(challenge))).rpartition(b" ")
        try:
            username = name.decode()
        except UnicodeDecodeError:
            raise _Refused(replies.BAD_CREDENTIALS) from None
        secret = self._authenticator.cram_secret(username)
        right = cram_md5(challenge, secret or "", digest) and secret is not None
        return username, self._authenticator.identity(username) if right else None

    async def _credentials(self, mechanism: str, initial: str) -> Credentials:
        try:
            match mechanism:
                case "PLAIN":
                    return await self._plain(initial)
                case "LOGIN":
                    return await self._login(initial)
        except UnicodeDecodeError:
            raise _Refused(replies.BAD_CREDENTIALS) from None
        raise _Refused(replies.bad_mechanism(self.mechanisms) if mechanism else replies.AUTH_SYNTAX)

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
