"""One thread at a time, chosen by a seed, in virtual time: what queues, futures and event loops wait on.

Every thread of a simulated program is a real one that runs while it has the baton. It hands it on where it
waits, and, as the seed says, at any system call. When all wait, the clock jumps to the first one's time.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent import futures
from queue import Empty
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mailer.ground.lazy_task import LazyTask

TURN = 1e-7
"""Seconds that a turn of an event loop takes."""


class Killed(BaseException):
    """The program is dead; no call of it has an effect any more."""


class Stuck(Exception):
    """Every thread waits, and for nothing that time would bring."""


class Worker(threading.Thread):
    """A real thread that runs one simulated thread after the other: to start one costs 50 us."""

    idle: ClassVar[list["Worker"]] = []

    def __init__(self) -> None:
        super().__init__(daemon=True, name="lab")
        self._baton = threading.Lock()
        self._baton.acquire()
        self.work: Callable[[], None] | None = None
        self.start()

    def run(self) -> None:
        while True:
            self._baton.acquire()
            work, self.work = self.work, None
            if work is None:
                return
            work()

    def wake(self) -> None:
        self._baton.release()

    def rest(self) -> None:
        self._baton.acquire()

    @classmethod
    def take(cls) -> "Worker":
        return cls.idle.pop() if cls.idle else cls()

    @classmethod
    def end_all(cls) -> None:
        while cls.idle:
            worker = cls.idle.pop()
            worker.wake()
            worker.join()


class Task:
    """A simulated thread of one program."""

    __slots__ = ("body", "deadline", "ended", "joiners", "number", "program", "ready", "worker")

    def __init__(self, program: Any, number: int, body: Callable[[], None]) -> None:
        self.program = program
        self.number = number
        self.body = body
        self.worker: Worker | None = None
        self.ready = True
        self.deadline: float | None = None
        self.ended = False
        self.joiners: list[Task] = []


class Scheduler:
    """Who runs."""

    def __init__(self, random: Random, eagerness: float, start: float) -> None:
        """Args: eagerness: how often a thread is preempted at a system call; start: of the clock, seconds."""
        self._random = random
        self._eagerness = eagerness
        self._host = threading.Lock()
        self._host.acquire()
        self._tasks: list[Task] = []
        self._spawned = 0
        self.current: Task | None = None
        self.now = start
        self.switches = 0
        self.failure: BaseException | None = None
        self.on_switch: Callable[[Task], None] = lambda _: None
        self.on_wait: Callable[[float], None] = lambda _: None
        """Called with the seconds by which the clock is about to jump."""

    def spawn(self, program: Any, body: Callable[[], None]) -> Task:
        self._spawned += 1
        task = Task(program, self._spawned, body)
        self._tasks.append(task)
        return task

    def run(self) -> None:
        """Run all threads to their ends."""
        if self._tasks:
            self._go(self._choose())
            self._host.acquire()
        if self.failure is not None:
            raise self.failure

    def _choose(self) -> Task | None:
        """Return the next to run; None: there is none left. The clock jumps if all wait."""
        now = self.now
        ready = [t for t in self._tasks if t.ready or (t.deadline is not None and t.deadline <= now)]
        if not ready:
            deadlines = [t.deadline for t in self._tasks if t.deadline is not None]
            if not deadlines:
                if self._tasks and self.failure is None:
                    self.failure = Stuck(", ".join(sorted({str(t.program) for t in self._tasks})))
                return None
            now = min(deadlines)
            self.on_wait(now - self.now)
            self.now = now
            ready = [t for t in self._tasks if t.deadline is not None and t.deadline <= now]
        return ready[0] if len(ready) == 1 else self._random.choice(ready)

    def _go(self, task: Task | None) -> None:
        """Give the baton away; the caller then waits for it."""
        self.current = task
        if task is None:
            self._host.release()
            return
        task.ready, task.deadline = True, None
        self.switches += 1
        self.on_switch(task)
        if task.worker is None:
            task.worker = Worker.take()
            task.worker.work = lambda: self._body(task)
        task.worker.wake()

    def _body(self, task: Task) -> None:
        try:
            task.body()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - the host shall see it
            if self.failure is None:
                self.failure = error
        task.ended = True
        self._tasks.remove(task)
        for joiner in task.joiners:
            joiner.ready = True
        assert task.worker is not None
        Worker.idle.append(task.worker)
        self._go(None if self.failure is not None else self._choose())

    def switch(self) -> None:
        """Let the seed say who goes on."""
        me = self.current
        chosen = self._choose()
        if chosen is not me:
            assert me is not None
            assert me.worker is not None
            self._go(chosen)
            me.worker.rest()
        elif me is not None:
            me.ready, me.deadline = True, None

    def at_call(self) -> None:
        if self._eagerness and len(self._tasks) > 1 and self._random.random() < self._eagerness:
            self.switch()

    def wait(self, deadline: float | None = None) -> None:
        """Wait to be woken, or for a time; the caller looks again what it waited for."""
        me = self.current
        assert me is not None
        if me.program.dead:
            raise Killed
        me.ready, me.deadline = False, deadline
        self.switch()
        if me.program.dead:
            raise Killed

    def wake(self, task: Task | None) -> None:
        if task is not None:
            task.ready = True

    def programs(self) -> list[Any]:
        return list({id(task.program): task.program for task in self._tasks}.values())

    def wake_all_of(self, program: Any) -> None:
        for task in self._tasks:
            if task.program is program:
                task.ready = True


class Present:
    """The scheduler that is at work; queues and futures are made by code that knows none."""

    scheduler: Scheduler


class Queue:
    """As queue.SimpleQueue."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiting: list[Task] = []

    def put(self, item: Any) -> None:
        self._items.append(item)
        if self._waiting:
            Present.scheduler.wake(self._waiting.pop(0))

    def get(self, timeout: float | None = None) -> Any:
        scheduler = Present.scheduler
        deadline = None if timeout is None else scheduler.now + timeout
        while not self._items:
            if deadline is not None and scheduler.now >= deadline:
                raise Empty
            me = scheduler.current
            assert me is not None
            self._waiting.append(me)
            try:
                scheduler.wait(deadline)
            finally:
                if me in self._waiting:
                    self._waiting.remove(me)
        return self._items.popleft()

    def empty(self) -> bool:
        return not self._items

    def get_nowait(self) -> Any:
        if not self._items:
            raise Empty
        return self._items.popleft()

    @classmethod
    def __class_getitem__(cls, _: Any) -> Any:
        return cls


class Future(futures.Future):  # type: ignore[type-arg]
    """As concurrent.futures.Future, whose `result` waits in virtual time."""

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            scheduler = Present.scheduler
            me = scheduler.current
            self.add_done_callback(lambda _: scheduler.wake(me))
            while not self.done():
                scheduler.wait()
        return super().result(0)


class Thread:
    """As threading.Thread."""

    def __init__(self, target: Callable[[], None], name: str = "", *, daemon: bool = False) -> None:
        self._target = target
        self._task: Task | None = None

    def start(self) -> None:
        scheduler = Present.scheduler
        assert scheduler.current is not None
        self._task = scheduler.spawn(scheduler.current.program, self._target)

    def join(self) -> None:
        scheduler = Present.scheduler
        while self._task is not None and not self._task.ended:
            assert scheduler.current is not None
            self._task.joiners.append(scheduler.current)
            scheduler.wait()


class Threading:
    """As the module `threading`, as far as it is used."""

    Thread = Thread
    Lock = staticmethod(threading.Lock)

    @staticmethod
    def get_native_id() -> int:
        current = Present.scheduler.current
        return current.number if current else 0


class _Selector:
    """Waits for nothing but time and other threads: there are no sockets."""

    def __init__(self) -> None:
        self.woken = False
        self.task: Task | None = None

    def select(self, timeout: float | None) -> list[Any]:
        scheduler = Present.scheduler
        if scheduler.current is not None and scheduler.current.program.dead:
            raise Killed
        self.task = scheduler.current
        if timeout is not None and timeout <= 0:
            scheduler.now += TURN  # Who waits for less than the loop's resolution shall not wait for ever.
            scheduler.at_call()
        else:
            deadline = None if timeout is None else scheduler.now + timeout
            while not self.woken and (deadline is None or scheduler.now < deadline):
                scheduler.wait(deadline)
        self.woken = False
        return []


class Loop(asyncio.BaseEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Selector()
        self._clock_resolution = 1e-6
        self.lazy: list[LazyTask] = []
        """Those that were started in it."""
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        return Present.scheduler.now

    def run_in_executor(self, _executor: Any, call: Callable[..., Any], *args: Any) -> Any:
        """Have another thread of the program do it."""
        future: asyncio.Future[Any] = self.create_future()

        def settle(settle: Callable[[Any], None], value: Any) -> None:
            if not future.done():
                settle(value)

        def work() -> None:
            try:
                result = call(*args)
            except Exception as error:  # noqa: BLE001 - the caller's
                self.call_soon_threadsafe(settle, future.set_exception, error)
            else:
                self.call_soon_threadsafe(settle, future.set_result, result)

        scheduler = Present.scheduler
        assert scheduler.current is not None
        scheduler.spawn(scheduler.current.program, work)
        return future

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        self._selector.woken = True
        Present.scheduler.wake(self._selector.task)


def run(main: Any) -> Any:
    """As asyncio.run; a program that ends otherwise leaves its loop as it was, until `bury`."""
    loop = Loop()
    try:
        result = loop.run_until_complete(main)
    except BaseException:
        _dead.append(loop)
        raise
    loop.close()
    return result


_dead: list[Loop] = []


def bury() -> None:
    """End what killed programs have left in memory; nothing of it has an effect any more."""
    while _dead:
        loop = _dead.pop()
        for lazy in loop.lazy:
            with contextlib.suppress(BaseException):
                lazy.drop()
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                task.get_coro().close()  # type: ignore[union-attr]
        loop._ready.clear()
        loop.close()
