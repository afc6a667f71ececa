"""One world: a disk, a scheduler, programs; and the points at which it might end."""

import errno
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from lab import judge
from lab.disk import Disk, Inode, trouble
from lab.hops import Hop, Log
from lab.kernel import ROOT, Kernel
from lab.seam import At
from lab.story import Story
from lab.threads import Killed, Present, Scheduler, Stuck, bury, run

EPOCH = 1_795_000_000.0
"""When worlds begin: an evening in November 2026."""
CALL = 2e-5
"""Seconds that a system call takes."""


MOST_CALLS = 20_000
"""Beyond that a world goes round in circles."""
_QUIET = {"close", "dup", "fstat", "getdents", "stat", "pread", "removexattr", "flock"}
"""Calls that change nothing: a trace goes without them."""


class Program:
    """A process."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.dead = False
        self.calls = 0

    def __str__(self) -> str:
        return self.name


class World:
    """A machine that runs until all its programs have ended."""

    def __init__(self, story: Story, disk: Disk, log: Log, *, start: float, random: Random) -> None:
        self.story = story
        self.disk = disk
        self.log = log
        self.random = random
        self.scheduler = Scheduler(random, 0.0, start)
        self.scheduler.on_switch = self._switched
        self.kernel = Kernel(disk, self.enter, self.wall)
        self.cut_at: float | None = None
        """When the power failed before this world began, by `wall`."""
        self.boot = "boot"
        self.excused = False
        """Programs died before this world began: what hops answered them may be lost."""
        self.calls = 0
        self.on_call: Callable[[], None] | None = None
        """Called before each call has its effect."""
        self._names: Counter[str] = Counter()
        self._programs = 0
        self._dead: list[Any] = []
        self.pace = 0.0
        self.faults = False
        self.trace: list[str] | None = None
        """The calls, for whoever reads a story."""
        self.ended_by: list[str] = []
        """The trouble with the disk that programs ended with."""

    def wall(self) -> float:
        return EPOCH + self.scheduler.now

    def hop(self) -> Hop:
        answers = {(token, to): given for token, to, given in self.story.answers}
        contents = {mail.token: content_of(mail.token, mail.size) for mail in self.story.mails}
        pace = self.pace
        return Hop(
            self.log,
            answers,
            contents,
            self.wall,
            self._objection,
            lambda: self.random.uniform(0, pace) if pace else 0.0,
            self._die,
        )

    def _objection(self, token: str, to: str) -> str:
        return judge.objection(
            self.disk,
            self.log,
            token,
            to,
            cut_at=self.cut_at,
            excused=self.excused or self.story.loses_replies,
        )

    def _die(self) -> None:
        assert self.scheduler.current is not None
        self._kill(self.scheduler.current.program)
        raise Killed

    def _kill(self, program: Program) -> None:
        program.dead = True
        self.kernel.end(program)
        self.scheduler.wake_all_of(program)

    def start(self, name: str, main: Callable[["World"], Awaitable[None]], after: float = 0.0) -> None:
        """Have a program begin; trouble with the disk ends it, as it would end the real one."""
        self._programs += 1
        program = Program(name, 1000 + self._programs)

        def body() -> None:
            if after:
                self.scheduler.wait(self.scheduler.now + after)
            try:
                run(main(self))
            except OSError as error:
                self.ended_by.append(f"{name}: {error!r}")
            finally:
                if not program.dead:
                    program.dead = True
                    self.kernel.end(program)
                    self.scheduler.wake_all_of(program)

        self.scheduler.spawn(program, body)

    def run(self) -> None:
        """Run to the end; raises what a program raised that was no trouble with the disk."""
        At.kernel, At.random, Present.scheduler = self.kernel, self.random, self.scheduler
        try:
            self.scheduler.run()
        finally:
            self.scheduler.current = None
            bury()

    def _switched(self, task: Any) -> None:
        self.kernel.owner = task.program
        At.pid = task.program.pid

    def enter(self, name: str, node: Inode | None, *names: object) -> str:
        """A call begins: look whether it is one to fail, to die at, or to let others go first."""
        scheduler = self.scheduler
        task = scheduler.current
        if task is None:
            raise Killed
        program = task.program
        if program.dead:
            raise Killed
        self.calls += 1
        if self.calls > MOST_CALLS and scheduler.failure is None:
            scheduler.failure = Stuck(f"{MOST_CALLS} calls, and no end: {program}")
            program.dead = True
            raise Killed
        scheduler.now += CALL
        if self.trace is not None and name not in _QUIET:
            about = " ".join(map(str, names or ([f"inode {node.number}"] if node else [])))
            self.trace.append(f"{self.calls:5} {scheduler.now:9.5f} {program}: {name} {about}")
        if self.on_call is not None:
            self.on_call()
            program.calls += 1
            self._kill_if_due(program)
            scheduler.at_call()
            if program.dead:
                raise Killed
            if self.faults:
                return self._fail_if_due(name)
        return ""

    def _kill_if_due(self, program: Program) -> None:
        for kill in self.story.kills:
            if kill.program == program.name and kill.number == program.calls:
                self._kill(program)
                self.restart(program.name, kill.back_after)
                raise Killed

    def restart(self, name: str, after: float) -> None:
        """What brings a dead program back; nothing does, here."""

    def _fail_if_due(self, name: str) -> str:
        self._names[name] += 1
        number = self._names[name]
        self.disk.full = False
        for fault in self.story.faults:
            if fault.kind == "full":
                begun = self._names[fault.call] >= fault.number
                self.disk.full |= begun and self._names["all"] < fault.lasts
                self._names["all"] += begun
            elif fault.call == name and fault.number <= number < fault.number + fault.lasts:
                if fault.kind == "short":
                    return "short"
                if fault.kind == "abort":
                    self.disk.aborted = True
                    raise trouble(errno.EIO)
                raise trouble(getattr(errno, fault.kind))
        return ""


def content_of(token: str, size: int) -> bytes:
    head = f"From: <app@example.com>\r\nSubject: hello\r\nX-Token: {token}\r\n\r\n".encode()
    line = b"Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod.\r\n"
    return head + line * max(1, (size - len(head)) // len(line))


def new_disk(story: Story) -> Disk:
    """Make an empty spool, as its first start leaves it."""
    from lab.disk import PROFILES  # noqa: PLC0415
    from lab.programs import make_spool  # noqa: PLC0415

    disk = Disk(PROFILES[story.profile])
    world = World(story, disk, Log(), start=0.0, random=Random(0))
    world.start("init", make_spool)
    world.run()
    disk.sync_all()
    return disk


SPOOL = f"{ROOT}/spool"
