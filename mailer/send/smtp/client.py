"""One SMTP session to one next hop, from the connect to QUIT: the asyncio shell of `machine.Dialogue`.

`opening` makes it ready for transactions.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mailer.mail.envelope import Envelope, Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.mail.reply import printable
from mailer.send.phase import Phase, Timeouts
from mailer.send.smtp import tls, utf8
from mailer.send.smtp.body import DotStuffer
from mailer.send.smtp.conversation import Conversation, Piece
from mailer.send.smtp.events import Broken, Event, GoAhead, Settled, Verdict
from mailer.send.smtp.extensions import Extensions, mail_command, rcpt_command
from mailer.send.smtp.hop import Hop, StartTls
from mailer.send.smtp.login import Login, TokenRefused, fetch
from mailer.send.smtp.machine import State
from mailer.send.smtp.opening import Opening
from mailer.send.smtp.unasked import outcomes_unasked
from mailer.send.smtp.verdicts import worn
from mailer.send.smtp.wire import Wire, connect
from mailer.send.trouble import HopTrouble, SessionLost, judge, of_the_mail

if TYPE_CHECKING:
    from mailer.send.smtp.transcript import Say

_READY, _SENT, _MAIL = State.READY, Status.SENT, Phase.MAIL
_address = attrgetter("address")

BLOCK = 64 * 1024
"""Octets read and written in one call; a message up to this size is sent in one write with its final dot."""

Commit = Callable[[Sequence[Recipient]], None]

BEHIND_LIMIT = 10.0
"""Seconds from the reply to a dot to the reply to MAIL behind it. The server had the command before. One that
drops what comes behind a dot never answers it."""


class Message(Protocol):
    """A message to send: an envelope and its content, with CRLF line ends, readable at any offset."""

    @property
    def envelope(self) -> Envelope: ...

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` octets from `offset`; fewer only at the end."""


class Letter(NamedTuple):
    """A message and the recipients of one transaction."""

    message: Message
    recipients: Sequence[Recipient]


Following = Callable[["Session"], Letter | None]
"""Returns the transaction that a session is to begin behind its dot; it `fits`. None if there is none."""


class Session:
    """An SMTP session that is past EHLO, STARTTLS and AUTH: ready for transactions, one at a time."""

    def __init__(self, wire: Wire, without_tls: str = "") -> None:
        self._wire = wire
        self._dialogue = wire.dialogue
        self.hop = wire.hop
        self.label = wire.label
        """The next hop, as in `Outcome.hop`."""
        self.extensions = Extensions()
        self.worn = False
        """Whether the last transaction sent nothing and may succeed in a new session, see `verdicts.worn`."""
        self._without_tls = without_tls
        """Why opportunistic TLS was given up; empty: it was not."""
        self.took_behind: bool | None = None
        """Whether the server accepted the MAIL of the last transaction, if that was begun behind a dot."""
        self._opening: tuple[Piece, ...] = ()
        """What was said before the first transaction."""
        self._said = wire.said
        """What was said in the last transaction."""
        self._transactions = 0
        self._has_taken = False
        """Whether the server has accepted a message in this session."""
        self._is_begun = False
        """Whether the next transaction was begun behind the last dot."""

    @classmethod
    async def open(cls, hop: Hop, timeouts: Timeouts, say: "Say | None" = None) -> "Session":
        """Connect, greet, start TLS and log in, as configured for the hop.

        If opportunistic TLS fails, a new connection in clear is opened (as Postfix and Exim do), and `tls`
        says why.

        Args:
            hop: the hop to connect to.
            timeouts: of the session's phases.
            say: called with the lines of a transcript of the whole session.

        Raises:
            HopTrouble: some step failed; no connection is left open.
        """
        login = await fetch(hop)
        try:
            return await cls._open(login, timeouts, say)
        except TokenRefused:
            # The token may have been revoked before its expiry. The next one is tried in a new session,
            # since many servers close this one.
            another = await fetch(hop, login.token)
            if another.token == login.token:
                raise
            login = another
        except HopTrouble as trouble:
            if not hop.opportunistic or trouble.phase not in {Phase.STARTTLS, Phase.TLS}:
                raise
            reason = f"none: {trouble.text}"
            login = Login(replace(hop, starttls=StartTls.NEVER))
            return await cls._open(login, timeouts, say, reason)
        return await cls._open(login, timeouts, say)

    @classmethod
    async def _open(
        cls, login: Login, timeouts: Timeouts, say: "Say | None", without_tls: str = ""
    ) -> "Session":
        wire = await connect(login.hop, timeouts, login.conceal, say)
        session = cls(wire, without_tls)
        try:
            session.extensions = await Opening(wire, login).run()
        except BaseException as error:
            session._fail(error)
            raise
        session._opening = tuple(wire.said)
        return session

    @property
    def tls(self) -> str:
        """TLS version and cipher; `none: REASON` if TLS was given up; empty if it was not tried."""
        return self._wire.tls or self._without_tls

    @property
    def encrypted(self) -> bool:
        return bool(self._wire.tls)

    @property
    def certificate_end(self) -> float | None:
        """When the server's certificate expires, in seconds since the epoch; None: it was not verified."""
        return tls.end_of(self._wire.certificate)

    @property
    def alive(self) -> bool:
        """Whether another transaction may begin."""
        return self._ready and not self._is_begun and not self.used_up

    @property
    def used_up(self) -> bool:
        """Whether it has had as many transactions as the server allows in one session (RFC 9422 4.1)."""
        most = self.extensions.limits.transactions
        return most > 0 and self._transactions >= most

    @property
    def underway(self) -> bool:
        """Whether the next transaction was begun: `transact` is called with it, or the session is dropped."""
        return self._is_begun and self._wire.broken is None and not self._dialogue.over

    @property
    def _ready(self) -> bool:
        return self._wire.broken is None and self._dialogue.state is _READY

    async def transact(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        on_commit: Commit,
        following: Following | None = None,
    ) -> list[Outcome]:
        """Send one message to one batch of recipients.

        Mail that the hop is known not to accept (because of size or SMTPUTF8) is refused without asking it. A
        refused recipient is a result. So is a lost reply to the final dot: the recipients that were accepted
        become `uncertain` (RFC 5321 4.5.3.2.6). A lost session is an exception only if no recipient can have
        received the message.

        Args:
            message: streamed in blocks of `BLOCK` octets.
            recipients: of this batch.
            on_commit: called once with the recipients that the hop accepted, right before the final dot is
                written.
            following: chooses the transaction that is begun behind the dot, if the server allows that. The
                caller then passes it to the next `transact`, while the session is `underway`. The outcomes of
                this transaction are the same with it, whatever the server does.

        Returns:
            One outcome for each recipient, in order. For the meaning of each status see `trouble.judge`.
            Recipients beyond the hop's limits for one transaction (RFC 9422) are `pending`, and to be sent in
            another one.

        Raises:
            SessionLost: the session broke before the final dot.
            EOFError: the message is shorter than its `size`.
            Exception: any that `on_commit` or `message.read` raises.
        After any exception, cancellation included, the session is dead. Unless `on_commit` had returned, the
        message was sent to no recipient.
        """
        implied = {} if self._is_begun else outcomes_unasked(self, message, recipients)
        asked = [one for one in recipients if one.address not in implied] if implied else recipients
        if not asked:
            return [implied[recipient.address] for recipient in recipients]
        try:
            answered = await self._attempt(message, asked, on_commit, following)
        except BaseException as error:
            self._fail(error)
            raise
        if not implied:
            return answered
        known = implied | {outcome.address: outcome for outcome in answered}
        return [known[recipient.address] for recipient in recipients]

    def fits(self, letter: Letter) -> bool:
        """Tell whether a transaction may be begun behind a dot: none of its recipients is refused unasked.

        Never raises, since another message is being sent.
        """
        message, recipients = letter
        if message.envelope.smtputf8 and not self.extensions.smtputf8:
            return False  # The header would have to be read.
        return not outcomes_unasked(self, message, recipients)

    async def close(self) -> None:
        """Send QUIT if the session is ready, wait briefly for the reply, and close. Never raises."""
        try:
            if self._ready:
                self._dialogue.quit()
                self._wire.flush()
                await self._wire.event()
        finally:
            await self._wire.close()

    def abort(self) -> None:
        """Drop the connection now."""
        self._wire.abort()

    def conversation(self) -> Conversation:
        """Return what was said in the opening of the session and in its last transaction."""
        wire, earlier = self._wire, max(0, self._transactions - 1)
        last = tuple(self._said)
        return Conversation(self.label, wire.began, self._opening, last, earlier, self._dialogue.conceal)

    # A transaction.

    async def _attempt(
        self, message: Message, batch: Sequence[Recipient], on_commit: Commit, following: Following | None
    ) -> list[Outcome]:
        wire = self._wire
        self._transactions += 1
        is_behind, self._is_begun = self._is_begun, False
        self.worn, self.took_behind = False, None
        self._said = wire.said
        if not is_behind:
            if wire.broken:
                raise wire.lost(SessionLost, wire.broken)
            wire.said.clear()
            self._begin(message, batch)
            wire.flush()
        event = await wire.event(BEHIND_LIMIT if is_behind and self._dialogue.phase is _MAIL else inf)
        if is_behind:
            self.took_behind = _is_past_mail(event)
        if isinstance(event, GoAhead):
            refused = event.refused
            accepted = batch
            if any(refused):
                accepted = [one for one, no in zip(batch, refused, strict=True) if not no]
            handed_over = await self._send(message, accepted, on_commit, following)
            event = await wire.event()
            if handed_over and isinstance(event, Broken):
                return [
                    self._judged(recipient, verdict) if verdict else self._uncertain(recipient, event)
                    for recipient, verdict in zip(batch, refused, strict=True)
                ]
        if isinstance(event, Broken):
            return self._ended(batch, event)
        assert isinstance(event, Settled)
        # MAIL behind a dot may have been refused for its place; in another session it is asked again.
        self.worn = self.took_behind is False or worn(event.verdicts)
        outcomes = [self._judged(*pair) for pair in zip(batch, event.verdicts, strict=True)]
        self._has_taken = self._has_taken or _SENT in [outcome.status for outcome in outcomes]
        return outcomes

    def _begin(self, message: Message, batch: Sequence[Recipient]) -> None:
        offered = self.extensions
        needs_utf8 = offered.smtputf8 and utf8.wanted(message.envelope, batch)
        self._dialogue.begin(
            mail_command(message.envelope, message.size, offered, utf8=needs_utf8),
            [rcpt_command(recipient, offered) for recipient in batch],
        )

    def _ended(self, batch: Sequence[Recipient], ended: Broken) -> list[Outcome]:
        """Return the outcomes of a transaction during which the session ended; no recipient got the message.

        A 421 about a recipient or the mail is a refusal; recipients that it leaves undecided are `pending`.

        Raises:
            SessionLost: the session ended for a reason that says nothing about this mail.
        """
        reply = ended.reply
        if reply is None or not ended.refused or not of_the_mail(ended.phase, reply):
            raise self._wire.lost(SessionLost, ended)
        self.worn = True
        return [
            self._judged(recipient, verdict)
            if verdict
            else self._outcome(recipient, Status.PENDING, Scope.HOST, str(reply))
            for recipient, verdict in zip(batch, ended.refused, strict=True)
        ]

    async def _send(
        self, message: Message, accepted: Sequence[Recipient], on_commit: Commit, following: Following | None
    ) -> bool:
        """Stream the body; the last block is written together with the final dot, after `on_commit`.

        Behind the dot the next transaction is begun, with servers that have shown that they take one message
        after the other (RFC 2920 3.1: the end of a message may be the first in a group of commands).

        Return False if the server has replied before: then the dot is not sent and `on_commit` is not called.
        """
        wire, stuffer, size = self._wire, DotStuffer(), message.size
        offset, block = 0, b""
        while offset < size and not wire.broken and not wire.answered:
            if block:
                wire.write(block)
                await wire.drain()
            data = message.read(offset, min(BLOCK, size - offset))
            if not data:
                raise EOFError(f"the message ends at {offset} of {size} octets")
            offset += len(data)
            block = stuffer.encode(data)
        if wire.answered:
            return False
        if wire.broken:  # maybe even before the first block, if the server sent more than the 354
            raise wire.lost(SessionLost, wire.broken)
        self._dialogue.finish()
        if following and self._has_taken and self.extensions.pipelining and not self.used_up:
            self._begin_behind(following(self))
        on_commit(accepted)
        wire.write(block + stuffer.end())
        return True

    def _begin_behind(self, letter: Letter | None) -> None:
        if letter:
            self._begin(*letter)
            self._is_begun = True

    def _judged(self, recipient: Recipient, verdict: Verdict) -> Outcome:
        status, scope = judge(verdict.phase, verdict.reply)
        return self._outcome(recipient, status, scope, str(verdict.reply), str(verdict.phase))

    def _uncertain(self, recipient: Recipient, lost: Broken) -> Outcome:
        return self._outcome(recipient, Status.UNCERTAIN, Scope.HOST, printable(lost.text))

    def _outcome(
        self, recipient: Recipient, status: Status, scope: Scope, reply: str, phase: str = ""
    ) -> Outcome:
        wanted = status is _SENT and recipient.notify and recipient.wants("SUCCESS")
        action = "relayed" if wanted and not self.extensions.dsn else ""
        return Outcome(recipient.address, status, self.label, reply, scope, self.tls, phase, action=action)

    # Trouble.

    def _fail(self, error: BaseException) -> None:
        """Drop the connection because of an error, and add to a hop's trouble what was said."""
        if isinstance(error, HopTrouble):
            error.conversation = self.conversation()
        self._wire.abort()


def _is_past_mail(first: Event) -> bool:
    """Tell from the first event of a transaction whether the server accepted its MAIL."""
    if isinstance(first, Settled):
        return first.verdicts[0].phase is not _MAIL
    return isinstance(first, GoAhead) or first.phase not in {Phase.RSET, Phase.MAIL}
