"""A deadline that is moved much more often than it expires, as each command or reply moves a connection's."""

import asyncio
from collections.abc import Callable
from math import inf


class DeadlineTimer:
    """One timer that serves all deadlines of a connection, one after another.

    Setting a timer of the event loop for each command would cost an allocation and a heap operation, and
    the loop would keep all the cancelled ones until they are due. So the timer is set only if none is
    pending, or if the new deadline is earlier than the pending one's. A later deadline is only noted: when
    the timer fires before it, it is set again. Most transactions set no timer at all.
    """

    __slots__ = ("_deadline", "_expire", "_fires_at", "_handle", "_loop", "armed_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[], object]) -> None:
        """Create a timer without a deadline.

        Args:
            loop: runs the timer; all times are its time.
            expire: called in the loop when a deadline has passed, once for each `arm` at most.
        """
        self._loop = loop
        self._expire: Callable[[], object] | None = expire
        self._handle: asyncio.TimerHandle | None = None
        self._fires_at = inf
        """When the pending timer fires; inf: none is pending; -inf: closed, and no deadline is earlier."""
        self._deadline = inf
        """When to call `expire`; inf: suspended."""
        self.armed_at = loop.time()
        """The loop's time at the last `arm`; before the first, at the creation."""

    def arm(self, seconds: float) -> None:
        """Set the deadline, in place of the one before; after `close`, do nothing.

        Args:
            seconds: from now until `expire` is called, unless this, `suspend` or `close` is called before.
        """
        self.armed_at = now = self._loop.time()
        self._deadline = deadline = now + seconds
        if deadline < self._fires_at:
            self._set(deadline)

    def suspend(self) -> None:
        """Have no deadline until the next `arm`."""
        self._deadline = inf

    def close(self) -> None:
        """Have no deadline any more, and release `expire`, which usually refers to the timer's owner."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._expire = None
        self._fires_at = -inf

    def _set(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._fires_at = when
        self._handle = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._fires_at = inf
        if self._deadline == inf or self._expire is None:
            return
        if self._loop.time() < self._deadline:
            self._set(self._deadline)
        else:
            self._expire()
