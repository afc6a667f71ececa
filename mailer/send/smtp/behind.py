"""Transactions begun behind the final dot of the one before, on the same session (RFC 2920 3.1).

    ours     A's message . MAIL RCPT DATA     B's message . MAIL RCPT DATA     C's message ...
    theirs                               250 250 250 354                  250 250 250 354

MAIL, RCPT and DATA of message B are written together with the dot of message A, so that a message takes one
round trip instead of two. Nothing is recorded earlier: B's journal says `committing` before B's own dot.
If the session ends before that, B was sent to nobody, and goes over another session as if nothing had been.

RFC 2920 allows it with every server that offers PIPELINING. One that does not take it might end the
connection before it has answered A's dot, which makes A uncertain. So one session tries it, and the others
only after the server has accepted MAIL behind a dot. If it has not, it is not tried again.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from mailer.ground.lazy_task import Wait
    from mailer.send.smtp.client import Letter
    from mailer.send.smtp.session import Session

PATIENCE = 1.0
"""Seconds for the reply to a dot, after which the message behind it may take another session. A server may
need minutes for one message, and the next must not wait for it while others are sent. The session is lost
then, so nothing more is begun behind the dots of such a server: beside its time, a round trip is nothing."""

_MAX_KNOWN = 10_000
"""The most servers to remember."""


class Waiting(msgspec.Struct, eq=False):
    """A lease that waits for a place at a hop."""

    turn: "Wait[Session | None]"
    """Its result: the session that has begun the transaction already; or None, if a place is free."""
    letter: "Letter | None"
    """The transaction that it will begin with, if it is known."""
    since: float = 0.0
    """Since when it is begun behind a dot, by the monotonic clock."""


class Known:
    """Which servers take commands behind the dot, by name and port, as far as this run has found out."""

    def __init__(self) -> None:
        self._takes: dict[str, bool] = {}

    def get(self, hop: str) -> bool | None:
        """Tell whether a server takes them; None if it has not been tried."""
        return self._takes.get(hop)

    def note(self, hop: str, *, takes: bool) -> None:
        """Remember the result of the first try."""
        if len(self._takes) >= _MAX_KNOWN:
            self._takes = {other: good for other, good in self._takes.items() if not good}
        self._takes.setdefault(hop, takes)


class Behind:
    """The waiting transactions of one hop that were begun behind a dot."""

    def __init__(self, hop: str, known: Known, give_up: Callable[[Waiting], None]) -> None:
        """Prepare.

        Args:
            hop: the server's name and port.
            known: what is known about servers.
            give_up: called with a transaction that has been behind an unanswered dot for `PATIENCE` seconds;
                the session cannot be used any more once it is answered.
        """
        self._hop = hop
        self._known = known
        self._give_up = give_up
        self._begun: dict[Session, Waiting] = {}
        """Each behind the dot of the message that the session sends, the oldest first."""
        self._trying: Session | None = None
        """The session that tries whether the server takes it."""
        self.is_open = known.get(hop) is not False
        """Whether another session may begin a transaction behind its dot."""
        self._is_slow = False
        """Whether the server has needed `PATIENCE` seconds for a message."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, session: "Session", waiting: Waiting) -> None:
        """Note that a session begins this transaction behind its dot."""
        if self._known.get(self._hop) is None:
            self._trying, self.is_open = session, False
        waiting.since = monotonic()
        self._begun[session] = waiting
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._look)

    def end(self, session: "Session") -> Waiting | None:
        """Return what a session has begun behind a dot that is now answered or lost; None: nothing."""
        return self._begun.pop(session, None)

    def judge(self, session: "Session") -> None:
        """End the try, if this session makes it: the server has accepted MAIL behind a dot, or it has not."""
        if session is not self._trying:
            return
        takes = session.took_behind
        if takes is None and not session.underway:
            takes = False  # The dot was not answered, which may be because of what was behind it.
        self._trying, self.is_open = None, takes is not False and not self._is_slow
        if takes is not None:
            self._known.note(self._hop, takes=takes)

    def _look(self) -> None:
        self._timer = None
        now = monotonic()
        for session, waiting in list(self._begun.items()):
            if now - waiting.since < PATIENCE:
                break
            del self._begun[session]
            self._is_slow, self.is_open = True, False
            self._give_up(waiting)
        if self._begun:
            since = next(iter(self._begun.values())).since
            self._timer = asyncio.get_running_loop().call_later(since + PATIENCE - now, self._look)
