"""Sessions kept open between messages, a few for each next hop."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Status
from mailer.send.phase import Phase
from mailer.send.smtp.client import Commit, Message
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.places import LOOK, Places
from mailer.send.trouble import HopTrouble, SessionLost, slows_down

if TYPE_CHECKING:
    from mailer.spool.state.slots import Slot

IDLE = 5.0
"""Seconds that a session waits for its next message. Postfix's connection cache keeps 2; ours spans the usual
pause between a message's batches (`batchDelay`, 1 s) and is well below the minutes that servers grant."""

SLOW = 1.0
"""Seconds from which a session that cannot be opened has cost too much to be tried for each message."""

HANGING = 10.0
"""Seconds without an answer after which mail that has another way to go should take it; more than pauses
before the greeting take. Who has asked goes on waiting, for the minutes that RFC 5321 4.5.3.2 grants."""

NOTABLE = 5.0
"""Seconds from which waiting for a turn (`Hop.per_minute`) is told: an operator wonders by then."""

EASED = 60.0
"""Seconds that a hop which told us to slow down gets fewer sessions."""

EASE = 1.0
"""Seconds that it gets nothing new, after each time that it says so. More than that is the breaker's."""

SHARE = 1.0
"""Seconds that a session is kept busy while another runner waits for its place."""

OnWait = Callable[[str, float, int], None]
"""Called with the hop, the seconds until its next free turn, and its turns a minute."""


class Session(Protocol):
    """One with an SMTP server (`smtp.client`), or with an interface over HTTP (`http.session`)."""

    worn: bool

    @property
    def used_up(self) -> bool: ...

    @property
    def label(self) -> str: ...

    @property
    def tls(self) -> str: ...

    @property
    def alive(self) -> bool: ...

    async def transact(
        self, message: Message, recipients: Sequence[Recipient], on_commit: Commit
    ) -> list[Outcome]: ...

    async def close(self) -> None: ...

    def abort(self) -> None: ...


Opener = Callable[[Hop], Awaitable[Session]]

_TURNS = 10_000
"""Hops whose next turn is remembered, before those in the past are forgotten."""

_BEFORE_MAIL = frozenset({Phase.RSET, Phase.MAIL})
_BEFORE_DATA = frozenset({Phase.RCPT, Phase.DATA})


def _may_be_the_sessions(lost: SessionLost) -> bool:
    """Tell whether a session may have ended for its own age: it does so with a word once MAIL is answered."""
    return lost.phase in _BEFORE_MAIL or (lost.phase in _BEFORE_DATA and lost.reply is not None)


class _Line:
    """The sessions to one hop."""

    def __init__(self, pool: "Pool", hop: Hop, limit: int) -> None:
        self.limit = self._full = limit
        """Sessions at once, now and usually."""
        self._owed = 0
        """Places in use that are not free again afterwards."""
        self._told = -math.inf
        """When the hop last told us to slow down."""
        self.users = 0
        """Leases that hold a session or wait for one."""
        self.turnless = 0
        """Of these, those that wait for a place before they get their turn (`Hop.per_minute`)."""
        self._vacancies = limit
        self._queue: deque[asyncio.Future[None]] = deque()
        """Those that wait for a place."""
        self._pool = pool
        self._hop = hop
        self._opening: list[float] = []
        """When each session that is being opened was begun."""
        self._failure: tuple[float, HopTrouble] | None = None
        """When a session could last not be opened, slowly, and why."""
        # The one used last is taken first, so that those not needed time out.
        self._idle: list[tuple[Session, float]] = []
        """With the time when each is to be closed, the earliest first."""
        self._timer: asyncio.TimerHandle | None = None
        """For the first that was idle when it was set. One serves all: most are wanted again long before."""
        self._leased: set[Session] = set()
        self._slots: dict[Session, tuple[Slot, float]] = {}
        """What each session holds of the places of all runners, and since when."""

    @property
    def vacant(self) -> bool:
        return not self.users and not self._idle and not self._eased

    @property
    def _eased(self) -> bool:
        return monotonic() < self._told + EASED

    def ease(self) -> None:
        """Give the hop half as many sessions, and a pause: it has told us to slow down."""
        less = max(1, self.limit // 2)
        self._owed += self.limit - less
        self.limit = less
        self._told = monotonic()

    async def place(self) -> None:
        """Wait for one of the places, and for the end of a pause."""
        if self.limit < self._full and not self._eased:
            more, self.limit = self._full - self.limit, self._full
            paid, self._owed = min(more, self._owed), max(0, self._owed - more)
            for _ in range(more - paid):
                self._vacate()
        await self._occupy()
        try:
            if (pause := self._told + EASE - monotonic()) > 0:
                await asyncio.sleep(pause)
        except BaseException:
            self.leave_place()
            raise

    def leave_place(self) -> None:
        """Make a place free again, unless there are to be fewer."""
        if self._owed:
            self._owed -= 1
        else:
            self._vacate()

    def take_at_once(self) -> Session | None:
        """Return an idle session, and take a place for it; None: there is none, or there may be a pause."""
        if not self._idle or not self._vacancies or self._told > -math.inf:
            return None
        self._vacancies -= 1
        session, _ = self._idle.pop()
        self._leased.add(session)
        return session

    async def _occupy(self) -> None:
        """Take a place; those that wait for one get it in the order in which they came."""
        if self._vacancies:
            self._vacancies -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._vacate()
            raise

    def _vacate(self) -> None:
        """Give a place to the first that waits, if it still does."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._vacancies += 1

    @property
    def hangs(self) -> bool:
        """There is no session, and one has been waited for in vain for long."""
        if not self._opening or self._leased or self._idle:
            return False
        return monotonic() - self._opening[0] > HANGING

    async def take(self, since: float) -> tuple[Session, bool]:
        """A session, and whether it has served before; such a one may have died meanwhile.

        Args:
            since: when whoever wants it began to wait. If meanwhile a session could not be opened, and it
                took long to learn, this one is not tried: all that wait for a black hole learn of it with the
                first.

        Raises:
            HopTrouble: no session can be opened.
        """
        if not self._idle:
            if self._failure and self._failure[0] > since:  # what fails at once may as well be asked again
                raise self._failure[1].again()
            return await self.open(), False
        session, _ = self._idle.pop()
        self._leased.add(session)
        return session, True

    async def open(self) -> Session:
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
                self._failure = now, trouble
            if trouble.reply is not None and not trouble.reply.permanent:
                self.ease()  # Too many connections, most often.
            raise
        finally:
            self._opening.remove(began)
        self._failure = None
        self._leased.add(session)
        return session

    def put(self, session: Session) -> None:
        """Take a session back; one that is not ready for another transaction is dropped."""
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
        """Tell whether another runner waits for the place of a session that has had it for long enough."""
        if self._hop.slots is None:
            return False
        _, since = self._slots.get(session, (None, math.inf))
        if monotonic() - since < SHARE:
            return False
        return self._hop.slots.wanted()

    def drop(self, session: Session) -> None:
        """Take a session back that is not to be used again."""
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
        """Close what is idle, drop what is in use."""
        for session in self._leased:
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
        """Close whose time is over, and all if another runner waits for their places."""
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
    """One session on loan, to be used as the session it stands for.

    A session that has served before may turn out to be dead or worn when it is used again: servers hang up on
    idle clients, or refuse more after so many messages, in all sorts of words. That is not the hop's trouble,
    so the session is replaced by a new one, once.
    """

    def __init__(self, pool: "Pool", hop: Hop, on_wait: OnWait | None) -> None:
        self._pool = pool
        self._hop = hop
        self._on_wait = on_wait
        self._line: _Line
        self._session: Session
        self._served = False

    async def __aenter__(self) -> Self:
        self._line = line = self._pool.line(self._hop)
        line.users += 1
        if not self._hop.per_minute and (session := line.take_at_once()):
            self._session, self._served = session, True
            return self
        since = monotonic()
        try:
            await self._place()
            try:
                # Before there is a session: many servers hang up on one that says nothing for a while.
                if self._hop.per_minute:
                    await self._pool.turn(self._hop)
                self._session, self._served = await self._line.take(since)
            except BaseException:
                self._line.leave_place()
                raise
        except BaseException:
            self._leave()
            raise
        return self

    async def _place(self) -> None:
        """Wait for a place, and tell if the turn after it is far off."""
        if not self._hop.per_minute:
            await self._line.place()
            return
        wait = self._pool.until_turn(self._hop, self._line.turnless)
        if self._on_wait and wait >= NOTABLE:
            self._on_wait(str(self._hop), wait, self._hop.per_minute)
        self._line.turnless += 1
        try:
            await self._line.place()
        finally:
            self._line.turnless -= 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._line.put(self._session)
        self._line.leave_place()
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
        """As `Session.transact`.

        Raises:
            HopTrouble: besides SessionLost, when a dead session's successor cannot be opened.
        """
        outcomes = await self._transact(message, recipients, on_commit)
        if [one for one in outcomes if one.status is Status.DEFERRED and slows_down(one)]:
            self._line.ease()
        return outcomes

    async def _transact(
        self, message: Message, recipients: Sequence[Recipient], on_commit: Commit
    ) -> list[Outcome]:
        if not self._served or self._session.alive:
            try:
                outcomes = await self._session.transact(message, recipients, on_commit)
            except SessionLost as lost:
                if not self._served or not _may_be_the_sessions(lost):
                    raise
            else:
                if not (self._served and self._session.worn):
                    self._served = True
                    return outcomes
        self._line.drop(self._session)
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
    """At most `limit` sessions to one hop at a time, reused while they are fresh.

    An async context manager; on exit idle sessions end with QUIT, and those still on loan are dropped.
    """

    def __init__(
        self, opener: Opener, *, limit: int, idle: float = IDLE, places: Places | None = None
    ) -> None:
        """Keep sessions that `opener` opens.

        Args:
            opener: `Session.open` with its time-outs.
            limit: sessions to one hop at a time, at least 1; `Hop.max_sessions` overrules it.
            idle: seconds that an unused session is kept.
            places: takes the slots of hops that have some (`Hop.slots`).
        """
        self.opener = opener
        self.idle = idle
        self.places = places or Places()
        self._limit = limit
        self._turns: dict[Hop, float] = {}
        """When the next transaction may begin, at hops that have a limit."""
        self._lines: dict[Hop, _Line] = {}
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

    def session(self, hop: Hop, on_wait: OnWait | None = None) -> Lease:
        """A session to the hop, for `async with`: waits while `limit` are in use, and raises HopTrouble.

        `on_wait` is called if it is to wait for its turn for `NOTABLE` seconds or more.
        """
        return Lease(self, hop, on_wait)

    def hangs(self, hop: Hop) -> bool:
        """Tell whether nobody has answered there for long; whoever waits already goes on waiting."""
        line = self._lines.get(hop)
        return line is not None and line.hangs

    def line(self, hop: Hop) -> _Line:
        line = self._lines.get(hop)
        if line is None:
            line = self._lines[hop] = _Line(self, hop, hop.max_sessions or self._limit)
        return line

    async def turn(self, hop: Hop) -> None:
        """Wait until the next transaction may begin by `Hop.per_minute`; they are spread evenly."""
        now = monotonic()
        if len(self._turns) > _TURNS:
            self._turns = {other: turn for other, turn in self._turns.items() if turn > now}
        turn = max(now, self._turns.get(hop, now))
        self._turns[hop] = turn + 60 / hop.per_minute
        if turn > now:
            await asyncio.sleep(turn - now)

    def until_turn(self, hop: Hop, before: int) -> float:
        """Seconds until a turn that `before` others get theirs before."""
        now = monotonic()
        return max(0.0, self._turns.get(hop, now) - now) + before * 60 / hop.per_minute

    def forget_if_vacant(self, hop: Hop) -> None:
        """A run that visits a million hosts must not remember them all."""
        line = self._lines.get(hop)
        if line and line.vacant:
            del self._lines[hop]

    def retire(self, session: Session, slot: "Slot | None" = None) -> None:
        """Close in the background, then give up its place; leaving the pool waits for it."""
        task = asyncio.get_running_loop().create_task(_close(session, slot))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
