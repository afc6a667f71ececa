"""Connection pool: sessions kept open between messages, a few for each next hop.

`hop_sessions` has those to one hop, `lease` what a caller holds of them.
"""

import asyncio
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mailer.send.smtp.behind import Known
from mailer.send.smtp.client import Letter
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.hop_sessions import HopSessions
from mailer.send.smtp.lease import Lease, OnWait
from mailer.send.smtp.places import Places
from mailer.send.smtp.session import OnFailure, Opener, Session
from mailer.send.trouble import HopTrouble

if TYPE_CHECKING:
    from mailer.spool.state.slots import Slot

IDLE = 5.0
"""Seconds that an idle session is kept. Postfix's connection cache keeps it for 2; ours spans the usual pause
between a message's batches (`batchDelay`, 1 s) and is well below the minutes that servers allow."""

_MAX_TURNS = 10_000
"""Hops to remember for rate limiting; beyond that, those without a wait are dropped."""


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
        self._lines: dict[Hop, HopSessions] = {}
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
            message_id: the message that the session is for, passed to `on_failure`.
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

    def line(self, hop: Hop) -> HopSessions:
        line = self._lines.get(hop)
        if line is None:
            line = self._lines[hop] = HopSessions(self, hop, hop.max_sessions or self._limit)
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
