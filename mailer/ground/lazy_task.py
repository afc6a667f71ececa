"""Coroutines that run without a task until they need one.

Each time that a task of asyncio waits, that costs a future, a handle and an iteration of the event loop. A
`LazyTask` is continued within the call that brings what it waits for, a `Wait`. If it waits for anything
else, it becomes a task, and stays one.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_MOST = 50
"""Continuations before control returns to the event loop."""


class _Ready:
    """The coroutines that one event loop has still to start or continue."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self.current: LazyTask | None = None
        """The coroutine that runs now; None while a task runs."""
        self.started: deque[LazyTask] = deque()
        """Coroutines to start, before others are continued: those may use what these offer."""
        self.woken: deque[LazyTask] = deque()
        self.is_scheduled = False


class _Here(threading.local):
    def __init__(self) -> None:
        self.ready = _Ready(None)


_here = _Here()


class LazyTask:
    """A coroutine that is continued by whatever wakes it, or by its task once it has one."""

    __slots__ = ("_awaited", "_coroutine", "_error", "_is_woken", "_task")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Prepare; `start` begins it. The coroutine should not raise: an error is only reported."""
        self._coroutine = coroutine
        self._task: asyncio.Task[None] | None = None
        self._awaited: asyncio.Future[Any] | None = None
        """The future that it waits for, if that is not a `Wait`; when it is done, this becomes a task."""
        self._error: BaseException | None = None
        """The exception to raise in the coroutine when it continues; None: it continues normally."""
        self._is_woken = False

    def start(self) -> None:
        """Run the coroutine to its first wait when the one that runs now waits, or in the next iteration.

        It never runs within a task, where `asyncio.timeout` would cancel that task.
        """
        ready = _here.ready
        if ready.loop is not (loop := asyncio.get_running_loop()):
            # Coroutines that an earlier loop of this thread has left are neither started nor continued.
            for left in ready.started:
                left.drop()
            ready = _here.ready = _Ready(loop)
        ready.started.append(self)
        if ready.current is None:
            _schedule(ready)

    def drop(self) -> None:
        """Close the coroutine where it waits; it is not continued any more."""
        self._coroutine.close()

    def cancel(self) -> None:
        """Raise CancelledError where it waits, as `asyncio.Task.cancel` does."""
        if self._task:
            self._task.cancel()
        elif self._awaited:
            self._awaited.cancel()
        else:
            self._error = asyncio.CancelledError()
            self.wake()

    def uncancel(self) -> int:
        """Take one cancellation back; return how many there are left."""
        return self._task.uncancel() if self._task else 0

    def wake(self, *, soon: bool = True) -> None:
        """Continue in the event loop's next iteration, or when the one that runs now waits.

        Args:
            soon: False if the caller makes sure that `run_woken` is called.
        """
        ready = _here.ready
        if not self._is_woken:
            self._is_woken = True
            ready.woken.append(self)
        if soon and ready.current is None:
            _schedule(ready)

    def step(self) -> None:
        """Run the coroutine to its next wait, or to its end."""
        self._is_woken = False
        error, self._error = self._error, None
        try:
            awaited = self._coroutine.throw(error) if error else self._coroutine.send(None)
        except (StopIteration, asyncio.CancelledError):
            return
        except Exception as wrong:  # noqa: BLE001 - not the fault of the caller that wakes it
            report = {"message": "a delivery failed", "exception": wrong}
            asyncio.get_running_loop().call_exception_handler(report)
            return
        if awaited is _WAITING:
            return
        if awaited is None:
            self._become_task()
        else:
            self._awaited = awaited
            awaited.add_done_callback(self._become_task)

    def _become_task(self, _: object = None) -> None:
        self._awaited = None
        self._task = asyncio.get_running_loop().create_task(self._coroutine)


class Wait(Generic[T]):
    """A result that one coroutine waits for, in a `LazyTask` or in a task."""

    given = False
    """Whether there is a result."""
    done = False
    """Whether the wait has ended: there is a result, or it was cancelled."""
    _result: T
    _waiter: LazyTask | None = None
    _future: asyncio.Future[None] | None = None

    def give(self, result: T, *, soon: bool = True) -> None:
        """Continue the waiting coroutine with this result; args: `soon` as in `LazyTask.wake`."""
        self._result = result
        self.given = self.done = True
        if self._waiter:
            self._waiter.wake(soon=soon)
        elif self._future and not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done:
            try:
                self._waiter = waiter = _here.ready.current
                if waiter:
                    yield _WAITING
                else:
                    self._future = asyncio.get_running_loop().create_future()
                    yield from self._future
            finally:
                self.done = True
        return self._result


_WAITING = object()


def current() -> LazyTask:
    """Return the lazy task that runs now and has not become a task."""
    running = _here.ready.current
    assert running
    return running


async def in_task() -> None:
    """Make sure that the caller runs in a task, as `asyncio.timeout` demands."""
    if _here.ready.current:
        await asyncio.sleep(0)


def run_woken() -> None:
    """Continue the woken coroutines now. They may call the caller's object, so its state must be valid."""
    ready = _here.ready
    if ready.current is None:
        _run(ready)


def _schedule(ready: _Ready) -> None:
    if not ready.is_scheduled:
        ready.is_scheduled = True
        asyncio.get_running_loop().call_soon(_run_scheduled, ready)


def _run_scheduled(ready: _Ready) -> None:
    ready.is_scheduled = False
    run_woken()


def _run(ready: _Ready) -> None:
    """Run the started and the woken coroutines, and those that they start or wake, up to `_MOST` in a row."""
    started, woken = ready.started, ready.woken
    try:
        for _ in range(_MOST):
            some = started or woken
            if not some:
                return
            ready.current = task = some.popleft()
            task.step()
    finally:
        ready.current = None
    _schedule(ready)
