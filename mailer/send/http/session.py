"""A session with an HTTP interface; the pool and the routes use it like a session with an SMTP server.

    login -> copy for these recipients -> request ... on_commit, its last piece -> answer -> outcomes

Until the last piece of a request is written, the message is sent to no recipient. After that, a status below
500 says whether it was accepted. A status of 500 or more often comes from a gateway that timed out, while the
server behind it delivers the message. So the recipients are `uncertain` then, as after a lost connection, and
after a 2yz that is not as the interface documents it.
"""

import asyncio
import os
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from mailer.config.hops import Api
from mailer.ground.lazy_task import in_task
from mailer.mail.clock import Clock
from mailer.mail.envelope import Envelope, Recipient
from mailer.mail.header import HeaderReader, HeaderTooLarge
from mailer.mail.masking import masked
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.mail.reply import printable
from mailer.send.http.addressed import addressed
from mailer.send.http.answer import Answer
from mailer.send.http.apis import LIMITS, Errand, Request, Source, request
from mailer.send.http.exchange import Broken, Exchange
from mailer.send.http.keys import TIMEOUTS, keys_of
from mailer.send.http.sigv4 import Keys, Signer, signed
from mailer.send.phase import Phase, Timeouts
from mailer.send.smtp import utf8
from mailer.send.smtp.client import Commit, Following
from mailer.send.smtp.conversation import KEPT, Conversation, Kind, Piece
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.login import Login, fetch
from mailer.send.trouble import HopTrouble, SessionLost, judge_http

if TYPE_CHECKING:
    from mailer.send.smtp.transcript import Say

_BLOCK = 64 * 1024
_WHATEVER_THE_MAIL = frozenset({*range(300, 400), 401, 403, 404, 407, 429, *range(500, 600)})
"""Statuses that are never about the message itself. Any other status may be."""


class Message(Source, Protocol):
    @property
    def envelope(self) -> Envelope: ...


class _Copy:
    """A message with its header replaced."""

    def __init__(self, message: Source, header: bytes, skip: int) -> None:
        self._message = message
        self._header = header
        self._skip = skip
        self.size = len(header) + message.size - skip

    def read(self, offset: int, length: int) -> bytes:
        top = self._header[offset : offset + length]
        start = max(0, offset - len(self._header)) + self._skip
        return top + self._message.read(start, length - len(top))


class HttpSession:
    """A session with credentials for an HTTP interface; one request at a time."""

    def __init__(self, login: Login, timeouts: Timeouts, clock: Clock, say: "Say | None" = None) -> None:
        """Prepare; the first request connects.

        Args:
            login: the credentials, for a hop with an HTTP interface.
            timeouts: `connect`, `tls`, `body` and `dot` are used; `dot` is the time for an answer.
            clock: returns the wall-clock time.
            say: called with the lines of a transcript; None: no transcript.
        """
        self.hop = login.hop
        self.label = str(login.hop)
        self.tls = ""
        """TLS version and cipher of the last request."""
        self.alive = True
        self.worn = False
        self.underway = False
        self.took_behind: bool | None = None
        self.used_up = False
        self._login = login
        self._exchange = Exchange(timeouts, login.hop.source_address)
        self._clock = clock
        self._say = say
        self._began = monotonic()
        self._said: deque[Piece] = deque(maxlen=KEPT)
        """The last requests and their answers, as in `conversation`."""
        self._keys: Keys | None = None
        self._shown: set[str] = set()
        """All secrets that requests have contained, to be hidden in answers that quote them."""

    @classmethod
    async def open(
        cls, hop: Hop, timeouts: Timeouts, clock: Clock, say: "Say | None" = None
    ) -> "HttpSession":
        """Fetch credentials and return a session; the arguments are those of `HttpSession`.

        Raises:
            HopTrouble: no credentials could be obtained.
        """
        session = cls(Login(hop), timeouts, clock, say)
        await session.log_in()
        return session

    async def log_in(self, refused: str = "") -> bool:
        """Fetch credentials, and tell whether they differ from those before.

        Args:
            refused: an access token that was refused; empty: none.

        Raises:
            HopTrouble: no credentials could be obtained.
        """
        if self.hop.api is Api.SES:
            role = Exchange(TIMEOUTS, "")
            before = self._keys
            try:
                self._keys = await keys_of(self.hop, os.environ, role.ask)
            finally:
                await role.close()
            return self._keys != before
        login = await fetch(self.hop, refused)
        if login.missing:
            raise HopTrouble(str(self.hop), Phase.AUTH, login.missing, scope=Scope.PROVIDER, temporary=False)
        self._login = login
        return login.token != refused

    async def transact(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        on_commit: Commit,
        following: Following | None = None,
    ) -> list[Outcome]:
        """Send one message to one batch of recipients, as `smtp.client.Session.transact` does."""
        del following  # One request at a time.
        assert self.hop.api is not None
        await in_task()
        outcomes = {
            recipient: refusal for recipient in recipients if (refusal := self._unfit(message, recipient))
        }
        batch = [recipient for recipient in recipients if recipient not in outcomes]
        if batch:
            self._said.clear()
            self._began = monotonic()
            try:
                sent = await self._send(self.hop.api, message, batch, on_commit)
            except HopTrouble as trouble:
                trouble.conversation = self.conversation()
                raise
            outcomes |= dict(zip(batch, sent, strict=True))
        return [outcomes[recipient] for recipient in recipients]

    async def close(self) -> None:
        """Close the connection. Never raises."""
        self.alive = False
        await self._exchange.close()

    def abort(self) -> None:
        """Drop the connection now."""
        self.alive = False
        self._exchange.abort()

    def conversation(self) -> Conversation:
        """Return the requests and answers of the last transaction, without secrets and without content."""
        return Conversation(self.label, self._began, (), tuple(self._said))

    async def reach(self) -> str:
        """Get the interface's URL without a login, and return the status that it answers in one line.

        Raises:
            HopTrouble: it does not answer.
        """
        try:
            answer = await self._exchange.ask("GET", self.hop.api_url)
        except Broken as broken:
            raise self._trouble(broken) from broken.__cause__
        self.tls = self._exchange.tls
        return f"HTTP {answer.status}"

    # A request.

    async def _send(
        self, api: Api, message: Message, batch: list[Recipient], on_commit: Commit
    ) -> list[Outcome]:
        """Post the message; if the token is refused and there is another one, post it again."""
        copy: Source = message
        if api.by_header:
            try:
                copy = _copy(message, [recipient.address for recipient in batch])
            except HeaderTooLarge:
                text = f"552 5.3.4 the header is too large to name the recipients that {self.label} sends to"
                return [self._implied(recipient, Scope.MESSAGE, text) for recipient in batch]
        try:
            answer = await self._post(copy, message.envelope.sender, batch, on_commit)
            if self._is_over(answer) and await self.log_in(self._login.token):
                answer = await self._post(copy, message.envelope.sender, batch, on_commit)
        except Broken as broken:
            self.alive = False
            self._keep(Kind.REMARK, self._hide(broken.text))
            if broken.whole:
                text = printable(f"{broken.text}; the whole request had been sent")
                return [self._outcome(r, Status.UNCERTAIN, Scope.HOST, text) for r in batch]
            raise self._trouble(broken) from broken.__cause__
        except BaseException:
            self.abort()
            raise
        return self._judged(answer, batch)

    async def _post(self, copy: Source, sender: str, batch: list[Recipient], on_commit: Commit) -> Answer:
        made = await self._request(copy, sender, [recipient.address for recipient in batch])
        login = made.headers["Authorization"].partition(" ")[2]
        self._shown |= {login, login.rpartition("Signature=")[2]}
        line = f"POST {made.url} ({made.body.size} octets)"
        self._tell(f"C: {line}")
        self._keep(Kind.SENT, line)
        answer = await self._exchange.post(made, lambda: on_commit(batch))
        self.tls = self._exchange.tls
        line = self._line(answer)
        self._tell(f"S: {line}")
        self._keep(Kind.REMARK, f"TLS: {self.tls}")
        self._keep(Kind.RECEIVED, f"{line}\n")
        return answer

    async def _request(self, copy: Source, sender: str, recipients: Sequence[str]) -> Request:
        secret = self._login.token
        if self.hop.password and not self._keys:
            secret = await asyncio.to_thread(self.hop.password.reveal)  # may run a command
        self._shown.add(secret)
        made = request(self.hop, Errand(copy, recipients, sender, secret, secrets.token_hex(16)))
        if self._keys is None:
            return made
        self._shown |= {self._keys.secret, self._keys.session}
        # In a thread, since the signature precedes the body and needs all of it to be read.
        digest = await asyncio.to_thread(made.body.digest)
        signer = Signer(self._keys, self.hop.region, "ses")
        headers = signed("POST", made.url, made.headers, digest, signer, self._clock())
        return replace(made, headers=headers)

    def _is_over(self, answer: Answer) -> bool:
        """Tell whether the token or the role's keys were refused, so that new ones may help."""
        if self._keys:
            return answer.status == 403 and "ExpiredToken" in answer.line()
        return answer.status == 401 and self.hop.tokens is not None

    def _judged(self, answer: Answer, batch: list[Recipient]) -> list[Outcome]:
        """Return the outcomes of an answer for the recipients of its request.

        Raises:
            HopTrouble: the answer is about our account or the interface; the message was not sent.
        """
        line = self._line(answer, len(batch))
        whole = self._exchange.whole
        self.alive = self.alive and whole
        assert self.hop.api is not None
        if answer.positive and not whole:
            text = f"{self._line(answer)} (before the whole request was sent)"
            raise SessionLost(self.label, Phase.BODY, text)
        if answer.taken(self.hop.api):
            return [self._outcome(r, Status.SENT, Scope.MESSAGE, line) for r in batch]
        if answer.positive:
            line = f"{line}; that is not an answer of the {self.hop.api} interface: see apiUrl"
            return [self._outcome(r, Status.UNCERTAIN, Scope.HOST, line) for r in batch]
        if answer.failed and whole:
            return [self._outcome(r, Status.UNCERTAIN, Scope.HOST, line) for r in batch]
        status, scope = judge_http(line)
        if scope in {Scope.PROVIDER, Scope.HOST} and answer.status in _WHATEVER_THE_MAIL:
            temporary = answer.status not in {401, 403, 404, 407}
            phase = Phase.AUTH if scope is Scope.PROVIDER else Phase.DOT
            raise HopTrouble(self.label, phase, self._line(answer), scope=scope, temporary=temporary)
        return [self._outcome(r, status, scope, line) for r in batch]

    def _line(self, answer: Answer, recipients: int = 1) -> str:
        return answer.line(recipients, self._hide)

    def _hide(self, words: str) -> str:
        words = masked(words, self._shown)
        return self._login.conceal.words(words) if self._login.conceal else words

    def _trouble(self, broken: Broken) -> HopTrouble:
        kind = SessionLost if broken.phase is Phase.BODY else HopTrouble
        scope = Scope.LOCAL if broken.local else Scope.HOST
        return kind(self.label, broken.phase, printable(broken.text), scope=scope, temporary=broken.temporary)

    def _tell(self, line: str) -> None:
        if self._say:
            self._say(printable(line, 2000))

    def _keep(self, kind: Kind, line: str) -> None:
        self._said.append((monotonic(), kind, line.encode(errors="backslashreplace"), 0))

    # Refusals that need no request.

    def _unfit(self, message: Message, recipient: Recipient) -> Outcome | None:
        """Return the refusal that the interface's documented limits imply; None if there is none."""
        assert self.hop.api is not None
        limit = LIMITS[self.hop.api].largest
        if message.size > limit:
            text = f"552 5.3.4 message of {message.size} octets exceeds the limit of {limit} at {self.label}"
            return self._implied(recipient, Scope.MESSAGE, text)
        text = f"550 5.6.7 {self.label} does not offer SMTPUTF8, which this mail needs"
        if utf8.indispensable(message):
            return self._implied(recipient, Scope.MESSAGE, text)
        if not recipient.address.isascii():
            return self._implied(recipient, Scope.RECIPIENT, text)
        return None

    def _implied(self, recipient: Recipient, scope: Scope, text: str) -> Outcome:
        return Outcome(recipient.address, Status.BOUNCED, self.hop.name, text, scope, self.tls)

    def _outcome(self, recipient: Recipient, status: Status, scope: Scope, reply: str) -> Outcome:
        action = "relayed" if status is Status.SENT and recipient.wants("SUCCESS") else ""
        phase = "" if status is Status.UNCERTAIN else Phase.DOT.value
        return Outcome(recipient.address, status, self.label, reply, scope, self.tls, phase, action=action)


def _copy(message: Source, recipients: Sequence[str]) -> _Copy:
    """Return a copy whose header names these recipients; raises HeaderTooLarge."""
    reader, offset = HeaderReader(), 0
    header = None
    while header is None and (block := message.read(offset, _BLOCK)):
        offset += len(block)
        if found := reader.feed(block):
            header = found[0]
    header = reader.finish() if header is None else header
    return _Copy(message, addressed(header, recipients), len(header))
