"""The sessions of a pool to one hop: those that are idle, leased or being opened, and what waits for one."""

import asyncio
import math
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from mailer.ground.lazy_task import Wait, in_task
from mailer.send.smtp.behind import Behind, Waiting
from mailer.send.smtp.client import Letter
from mailer.send.smtp.client import Session as SmtpSession
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.places import LOOK
from mailer.send.smtp.session import Session
from mailer.send.trouble import HopTrouble

if TYPE_CHECKING:
    from mailer.send.smtp.pool import Pool
    from mailer.spool.state.slots import Slot

SLOW = 1.0
"""If a session takes longer than this many seconds to fail to open, all callers that wait for the hop share
the failure, instead of each trying again."""

HANG_AFTER = 10.0
"""Seconds without an answer after which mail that has another route should take it; longer than servers delay
their greeting. Callers that wait already go on, for the minutes that RFC 5321 4.5.3.2 asks for."""

SLOWDOWN_PERIOD = 60.0
"""Seconds for which a hop gets fewer sessions after it has asked us to slow down."""

SLOWDOWN_PAUSE = 1.0
"""Seconds for which it gets no new transaction each time. Longer pauses are up to the circuit breaker."""

MIN_SLOT_TIME = 1.0
"""Seconds for which a session may keep its slot while another runner waits for one."""


class HopSessions:
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
