"""A lease of a session, for the transactions of one message."""

from collections.abc import Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Status, was_asked
from mailer.send.phase import Phase
from mailer.send.smtp.client import Commit, Letter, Message
from mailer.send.smtp.hop import Hop
from mailer.send.trouble import HopTrouble, SessionLost, slows_down

if TYPE_CHECKING:
    from mailer.send.smtp.hop_sessions import HopSessions
    from mailer.send.smtp.pool import Pool
    from mailer.send.smtp.session import Session

_SENT = Status.SENT

LOG_WAIT_AFTER = 5.0
"""Seconds from which a wait for the rate limit (`Hop.per_minute`) is logged: operators wonder by then."""

OnWait = Callable[[str, float, int], None]
"""Called with the hop, the seconds until the next transaction may begin, and its transactions per minute."""


_BEFORE_MAIL = frozenset({Phase.RSET, Phase.MAIL})
_BEFORE_DATA = frozenset({Phase.RCPT, Phase.DATA})


def _may_be_the_sessions(lost: SessionLost) -> bool:
    """Tell whether the server may have ended the session for its age.

    It then ends before MAIL is answered, or later but before the message, with a reply such as 421.
    """
    return lost.phase in _BEFORE_MAIL or (lost.phase in _BEFORE_DATA and lost.reply is not None)


class Lease:
    """A leased session, with the interface of a session.

    A session that has been used before may turn out to be dead or worn: servers close idle sessions, or
    refuse further messages after a number of them, with various replies. That says nothing about the hop, so
    the lease replaces the session with a new one, once.
    """

    def __init__(
        self, pool: "Pool", hop: Hop, on_wait: OnWait | None, message_id: str, letter: Letter | None
    ) -> None:
        self._pool = pool
        self._message_id = message_id
        self._letter = letter
        self._hop = hop
        self._on_wait = on_wait
        self._line: HopSessions
        self._session: Session
        self._served = False

    async def __aenter__(self) -> Self:
        self._line = line = self._pool.line(self._hop)
        line.users += 1
        if not self._hop.per_minute and (session := line.acquire_idle()):
            self._session, self._served = session, True
            return self
        since = monotonic()
        try:
            if self._hop.per_minute:
                await self._place()
            elif begun := await self._line.place(self._letter):
                self._session, self._served = begun, True
                return self
            try:
                # Wait before opening the session: many servers close one that is idle for a while.
                if self._hop.per_minute:
                    await self._pool.turn(self._hop)
                self._session, self._served = await self._line.acquire(since)
            except BaseException:
                self._line.leave_place()
                raise
        except BaseException:
            self._leave()
            raise
        return self

    async def _place(self) -> None:
        """Wait for a place, and call `on_wait` if the turn after that is far off, for hops with turns."""
        wait = self._pool.until_turn(self._hop, self._line.turnless)
        if self._on_wait and wait >= LOG_WAIT_AFTER:
            self._on_wait(str(self._hop), wait, self._hop.per_minute)
        self._line.turnless += 1
        try:
            await self._line.place()
        finally:
            self._line.turnless -= 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._line.leave(self._session)
        self._leave()

    @property
    def label(self) -> str:
        return self._session.label

    @property
    def tls(self) -> str:
        return self._session.tls

    async def transact(
        self, message: Message, recipients: Sequence[Recipient], on_commit: Commit
    ) -> list[Outcome]:
        """Send one message to one batch of recipients, as `Session.transact` does.

        Raises:
            HopTrouble: the session is lost (SessionLost), or a dead one cannot be replaced by a new one.
        """
        try:
            outcomes = await self._transact(message, recipients, on_commit)
        except HopTrouble as trouble:
            self._pool.failed(trouble, self._message_id)
            raise
        for outcome in outcomes:
            if outcome.status is not _SENT:
                self._note([one for one in outcomes if one.status is not _SENT])
                break
        return outcomes

    def _note(self, failed: Sequence[Outcome]) -> None:
        if any(one.status is Status.DEFERRED and slows_down(one) for one in failed):
            self._line.ease()
        if self._pool.on_failure is None:
            return
        asked = [one for one in failed if one.status is not Status.PENDING and was_asked(one.hop)]
        if failures := [(one.phase or Phase.DOT, one.reply) for one in asked]:
            self._pool.on_failure(self._session.conversation(), failures, self._message_id)

    async def _transact(
        self, message: Message, recipients: Sequence[Recipient], on_commit: Commit
    ) -> list[Outcome]:
        session = self._session
        if not self._served or session.alive or session.underway:
            try:
                following = self._line.next_behind if self._letter else None
                outcomes = await session.transact(message, recipients, on_commit, following)
            except SessionLost as lost:
                if not self._served or not _may_be_the_sessions(lost):
                    raise
            else:
                if not (self._served and session.worn):
                    self._served = True
                    return outcomes
        self._line.drop(session)
        self._session, self._served = await self._line.open(), False
        outcomes = await self._session.transact(message, recipients, on_commit)
        self._served = True
        return outcomes

    def _leave(self) -> None:
        self._line.users -= 1
        if not self._line.users:
            self._pool.forget_if_vacant(self._hop)
