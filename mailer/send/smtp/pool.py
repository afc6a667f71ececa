"""Connection pool: sessions kept open between messages, a few for each next hop."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from mailer.ground.lazy_task import Wait, in_task
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Status, was_asked
from mailer.send.phase import Phase
from mailer.send.smtp.behind import Behind, Known, Waiting
from mailer.send.smtp.client import Commit, Following, Letter, Message
from mailer.send.smtp.client import Session as SmtpSession
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.places import LOOK, Places
from mailer.send.trouble import HopTrouble, SessionLost, slows_down

if TYPE_CHECKING:
    from mailer.send.smtp.conversation import Conversation
    from mailer.spool.state.slots import Slot

_SENT = Status.SENT

IDLE = 5.0
"""Seconds that an idle session is kept. Postfix's connection cache keeps it for 2; ours spans the usual pause
between a message's batches (`batchDelay`, 1 s) and is well below the minutes that servers allow."""

SLOW = 1.0
"""If a session takes longer than this many seconds to fail to open, all callers that wait for the hop share
the failure, instead of each trying again."""

HANG_AFTER = 10.0
"""Seconds without an answer after which mail that has another route should take it; longer than servers delay
their greeting. Callers that wait already go on, for the minutes that RFC 5321 4.5.3.2 asks for."""

LOG_WAIT_AFTER = 5.0
"""Seconds from which a wait for the rate limit (`Hop.per_minute`) is logged: operators wonder by then."""

SLOWDOWN_PERIOD = 60.0
"""Seconds for which a hop gets fewer sessions after it has asked us to slow down."""

SLOWDOWN_PAUSE = 1.0
"""Seconds for which it gets no new transaction each time. Longer pauses are up to the circuit breaker."""

MIN_SLOT_TIME = 1.0
"""Seconds for which a session may keep its slot while another runner waits for one."""

OnWait = Callable[[str, float, int], None]
"""Called with the hop, the seconds until the next transaction may begin, and its transactions per minute."""


class Session(Protocol):
    """A session with an SMTP server (`smtp.client`) or with an HTTP interface (`http.session`)."""

    worn: bool
    took_behind: bool | None

    @property
    def underway(self) -> bool: ...

    @property
    def used_up(self) -> bool: ...

    @property
    def label(self) -> str: ...

    @property
    def tls(self) -> str: ...

    @property
    def alive(self) -> bool: ...

    async def transact(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        on_commit: Commit,
        following: Following | None = None,
    ) -> list[Outcome]: ...

    def conversation(self) -> "Conversation": ...

    async def close(self) -> None: ...

    def abort(self) -> None: ...


Opener = Callable[[Hop], Awaitable[Session]]

OnFailure = Callable[["Conversation", Sequence[tuple[str, str]], str], None]
"""Called when a session has failed a message or could not be opened, with what was said, the phases and texts
of the failures, and the message's id, if the session was open."""

_MAX_TURNS = 10_000
"""Hops to remember for rate limiting; beyond that, those without a wait are dropped."""

_BEFORE_MAIL = frozenset({Phase.RSET, Phase.MAIL})
_BEFORE_DATA = frozenset({Phase.RCPT, Phase.DATA})


def _may_be_the_sessions(lost: SessionLost) -> bool:
    """Tell whether the server may have ended the session for its age.

    It then ends before MAIL is answered, or later but before the message, with a reply such as 421.
    """
    return lost.phase in _BEFORE_MAIL or (lost.phase in _BEFORE_DATA and lost.reply is not None)


class _HopSessions:
    """The sessions to one hop.

    A place is the right to one of this run's concurrent sessions; a slot (`Hop.slots`) is the right to one of
    those of all runners.
    """

    def __init__(self, pool: "Pool", hop: Hop, limit: int) -> None:
        self.limit = self._usual_limit = limit
        """The most concurrent sessions: at present, and while the hop does not ask us to slow down."""
        self._owed = 0
        """Places that are in use, and that the lowered limit removes when they are left."""
        self._slowed_at = -math.inf
        """When the hop last asked us to slow down."""
        self.users = 0
        """Leases that hold a session or wait for one."""
        self.turnless = 0
        """The leases among them that wait for a place and have no turn (`Hop.per_minute`) yet."""
        self._vacancies = limit
        self._queue: deque[Waiting] = deque()
        """Leases that wait for a place, in order of arrival."""
        self.behind = Behind(f"{hop.name}:{hop.port}", pool.known, self._queue_first)
        self._pool = pool
        self._hop = hop
        self._opening: list[float] = []
        """When each of the sessions that are being opened was begun, the earliest first."""
        self._failure: tuple[float, HopTrouble] | None = None
        """The last failure to open a session that took longer than `SLOW`, and when it was."""
        # The session used last is taken first, so that those not needed time out.
        self._idle: list[tuple[Session, float]] = []
        """Each with the time when it is to be closed, the earliest first."""
        self._timer: asyncio.TimerHandle | None = None
        """Closes idle sessions. One timer serves all, since most sessions are used again long before."""
        self._leased: set[Session] = set()
        self._slots: dict[Session, tuple[Slot, float]] = {}
        """The slot of each session, and since when it has it."""

    @property
    def vacant(self) -> bool:
        return not self.users and not self._idle and not self._eased

    @property
    def _eased(self) -> bool:
        return monotonic() < self._slowed_at + SLOWDOWN_PERIOD

    def ease(self) -> None:
        """Halve the hop's sessions and pause, since it has asked us to slow down."""
        less = max(1, self.limit // 2)
        self._owed += self.limit - less
        self.limit = less
        self._slowed_at = monotonic()

    async def place(self, letter: Letter | None = None) -> Session | None:
        """Wait for a place, and for the end of a pause.

        Args:
            letter: the transaction for which the place is needed; it may be begun behind another one's dot.

        Returns:
            The session that has begun the transaction; None if none has.
        """
        if self.limit < self._usual_limit and not self._eased:
            more, self.limit = self._usual_limit - self.limit, self._usual_limit
            paid, self._owed = min(more, self._owed), max(0, self._owed - more)
            for _ in range(more - paid):
                self._vacate()
        if session := await self._occupy(letter):
            return session
        try:
            if (pause := self._slowed_at + SLOWDOWN_PAUSE - monotonic()) > 0:
                await asyncio.sleep(pause)
        except BaseException:
            self.leave_place()
            raise
        return None

    def leave_place(self) -> None:
        """Free a place, or remove it if the limit was lowered meanwhile."""
        if self._owed:
            self._owed -= 1
        else:
            self._vacate()

    def acquire_idle(self) -> Session | None:
        """Return an idle session and take a place for it, without waiting; None if that is not possible."""
        if not self._idle or not self._vacancies or self._slowed_at > -math.inf:
            return None
        self._vacancies -= 1
        session, _ = self._idle.pop()
        self._leased.add(session)
        return session

    async def _occupy(self, letter: Letter | None) -> Session | None:
        """Take a place; if there is none, wait in order of arrival. Returns as `place`."""
        if self._vacancies:
            self._vacancies -= 1
            return None
        turn: Wait[Session | None] = Wait()
        self._queue.append(Waiting(turn, letter))
        try:
            return await turn
        except BaseException:
            if turn.given:
                if session := await turn:
                    self.leave(session)
                else:
                    self.leave_place()
            raise

    def _vacate(self) -> None:
        """Pass a place on to the first lease that still waits, or make it vacant."""
        while self._queue:
            turn = self._queue.popleft().turn
            if not turn.done:
                turn.give(None)
                return
        self._vacancies += 1

    def _queue_first(self, waiting: Waiting) -> None:
        """Queue a lease again, before all others, and give it a vacant place if there is one."""
        self._queue.appendleft(waiting)
        if self._vacancies:
            self._vacancies -= 1
            self._vacate()

    def next_behind(self, session: SmtpSession) -> Letter | None:
        """Return the transaction that the session is to begin behind its dot; None if there is none."""
        self.behind.judge(session)
        if not self.behind.is_open or self._slowed_at > -math.inf or self._is_wanted(session):
            return None
        while self._queue and self._queue[0].turn.done:
            self._queue.popleft()
        letter = self._queue[0].letter if self._queue else None
        if letter is None or not session.fits(letter):
            return None
        self.behind.begin(session, self._queue.popleft())
        return letter

    def leave(self, session: Session) -> None:
        """Take a session and its place back, and pass them on to the transaction begun behind its dot."""
        waiting = self.behind.end(session)
        if waiting and not waiting.turn.done:
            if session.underway and self._slowed_at == -math.inf:
                waiting.turn.give(session)
                return
            self._queue_first(waiting)
        self.behind.judge(session)
        self.put(session)
        self.leave_place()

    @property
    def hangs(self) -> bool:
        """Whether there is no session, and opening one has taken more than `HANG_AFTER` seconds already."""
        if not self._opening or self._leased or self._idle:
            return False
        return monotonic() - self._opening[0] > HANG_AFTER

    async def acquire(self, since: float) -> tuple[Session, bool]:
        """Return a session, and whether it has been used before; a used one may be dead by now.

        Args:
            since: when the caller began to wait. If an attempt to open a session has failed slowly since
                then, no other attempt is made: all callers that wait for an unresponsive server share the
                first failure.

        Raises:
            HopTrouble: no session can be opened.
        """
        if not self._idle:
            if self._failure and self._failure[0] > since:  # quick failures are not kept: a retry is cheap
                raise self._failure[1].again()
            return await self.open(), False
        session, _ = self._idle.pop()
        self._leased.add(session)
        return session, True

    async def open(self) -> Session:
        await in_task()
        if self._hop.slots is None:
            return await self._open()
        slot = await self._pool.places.take(self._hop.slots, str(self._hop))
        try:
            session = await self._open()
        except BaseException:
            slot.release(in_order=False)
            raise
        self._slots[session] = slot, monotonic()
        return session

    async def _open(self) -> Session:
        began = monotonic()
        self._opening.append(began)
        try:
            session = await self._pool.opener(self._hop)
        except HopTrouble as trouble:
            if (now := monotonic()) - began > SLOW:
                self._failure = now, trouble.again()
            self._pool.failed(trouble)
            if trouble.reply is not None and not trouble.reply.permanent:
                self.ease()  # The usual reason is too many connections.
            raise
        finally:
            self._opening.remove(began)
        self._failure = None
        self._leased.add(session)
        return session

    def put(self, session: Session) -> None:
        """Take a session back; close it if it cannot be reused or if its place is needed."""
        self._leased.discard(session)
        if session.alive and not self._owed and not self._is_wanted(session):
            end = monotonic() + self._pool.idle
            self._idle.append((session, end))
            if self._timer is None:
                self._wait_until(end)
        elif session.alive or session.used_up:
            self._retire(session)
        else:
            self._abort(session)

    def _is_wanted(self, session: Session) -> bool:
        """Tell whether another runner waits for a slot that this session has had for `MIN_SLOT_TIME`."""
        if self._hop.slots is None:
            return False
        _, since = self._slots.get(session, (None, math.inf))
        if monotonic() - since < MIN_SLOT_TIME:
            return False
        return self._hop.slots.wanted()

    def drop(self, session: Session) -> None:
        """Take a session back and close it."""
        self.behind.judge(session)
        self._leased.discard(session)
        self._retire(session)

    def _retire(self, session: Session) -> None:
        slot, _ = self._slots.pop(session, (None, 0.0))
        self._pool.retire(session, slot)

    def _abort(self, session: Session) -> None:
        session.abort()
        slot, _ = self._slots.pop(session, (None, 0.0))
        if slot:
            slot.release(in_order=False)

    def clear(self) -> None:
        """Close idle sessions with QUIT, and abort those in use."""
        for session in list(self._leased):
            self._abort(session)
        if self._timer:
            self._timer.cancel()
        for session, _ in self._idle:
            self._retire(session)
        self._idle.clear()

    def _wait_until(self, end: float) -> None:
        end = min(end, monotonic() + LOOK) if self._hop.slots else end
        self._timer = asyncio.get_running_loop().call_later(end - monotonic(), self._expire)

    def _expire(self) -> None:
        """Close idle sessions whose time is over, or all of them if another runner waits for a slot."""
        self._timer = None
        now = monotonic()
        if self._idle and self._hop.slots and self._hop.slots.wanted():
            now = math.inf
        while self._idle and self._idle[0][1] <= now:
            self._retire(self._idle.pop(0)[0])
        if self._idle:
            self._wait_until(self._idle[0][1])
        self._pool.forget_if_vacant(self._hop)


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
        self._line: _HopSessions
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


async def _close(session: Session, slot: "Slot | None") -> None:
    in_order = session.alive or session.used_up
    try:
        await session.close()
    finally:
        if slot:
            slot.release(in_order=in_order)


class Pool:
    """Opens at most `limit` concurrent sessions to a hop, and keeps them for reuse.

    It is an async context manager. On exit, idle sessions are closed with QUIT, and leased ones are aborted.
    """

    def __init__(
        self,
        opener: Opener,
        *,
        limit: int,
        idle: float = IDLE,
        places: Places | None = None,
        on_failure: OnFailure | None = None,
    ) -> None:
        """Prepare an empty pool.

        Args:
            opener: opens a session to a hop, such as `Session.open` with its time-outs.
            limit: the most concurrent sessions to one hop, at least 1; `Hop.max_sessions` overrides it.
            idle: seconds that an idle session is kept.
            places: takes slots for hops that have `Hop.slots`.
            on_failure: called with each failure of a session; must not raise.
        """
        self.opener = opener
        self.idle = idle
        self.places = places or Places()
        self.on_failure = on_failure
        self.known = Known()
        self._limit = limit
        self._turns: dict[Hop, float] = {}
        """When the next transaction may begin, for hops with `Hop.per_minute`."""
        self._lines: dict[Hop, _HopSessions] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for line in self._lines.values():
            line.clear()
        self._lines.clear()
        await asyncio.gather(*self._closing)

    def session(
        self,
        hop: Hop,
        on_wait: OnWait | None = None,
        message_id: str = "",
        letter: Letter | None = None,
    ) -> Lease:
        """Return a lease of a session to the hop, for `async with`.

        Entering it waits while `limit` sessions are in use, and raises HopTrouble.

        Args:
            hop: the hop.
            on_wait: called if the wait for `Hop.per_minute` will take `LOG_WAIT_AFTER` seconds or more.
            message_id: the message that the session is for, as `on_failure` is told.
            letter: the only transaction that the lease is for. It may be begun behind the dot of another one,
                and another one behind its own; None: that is not to be done.
        """
        return Lease(self, hop, on_wait, message_id, letter)

    def failed(self, trouble: HopTrouble, message_id: str = "") -> None:
        """Pass on what was said before a hop's trouble, if there was a session."""
        if self.on_failure and trouble.conversation:
            self.on_failure(trouble.conversation, [(trouble.phase, trouble.text)], message_id)

    def hangs(self, hop: Hop) -> bool:
        """Tell whether the hop has not answered for `HANG_AFTER` seconds; leases that wait already go on."""
        line = self._lines.get(hop)
        return line is not None and line.hangs

    def line(self, hop: Hop) -> _HopSessions:
        line = self._lines.get(hop)
        if line is None:
            line = self._lines[hop] = _HopSessions(self, hop, hop.max_sessions or self._limit)
        return line

    async def turn(self, hop: Hop) -> None:
        """Wait until `Hop.per_minute` allows the next transaction; transactions are spread evenly."""
        now = monotonic()
        if len(self._turns) > _MAX_TURNS:
            self._turns = {other: turn for other, turn in self._turns.items() if turn > now}
        turn = max(now, self._turns.get(hop, now))
        self._turns[hop] = turn + 60 / hop.per_minute
        if turn > now:
            await asyncio.sleep(turn - now)

    def until_turn(self, hop: Hop, before: int) -> float:
        """Return the seconds until the next turn when `before` others come first."""
        now = monotonic()
        return max(0.0, self._turns.get(hop, now) - now) + before * 60 / hop.per_minute

    def forget_if_vacant(self, hop: Hop) -> None:
        """Forget a hop that is not in use: a run that visits a million hosts must not remember them all."""
        line = self._lines.get(hop)
        if line and line.vacant:
            del self._lines[hop]

    def retire(self, session: Session, slot: "Slot | None" = None) -> None:
        """Close a session in the background, then release its slot; leaving the pool waits for that."""
        task = asyncio.get_running_loop().create_task(_close(session, slot))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
