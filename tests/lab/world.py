"""One world: a disk, a scheduler, programs; and the points at which it might end."""

import errno
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from lab import judge
from lab.disk import Disk, Inode, trouble
from lab.hops import Hop, Log, token_of
from lab.kernel import ROOT, Kernel
from lab.seam import EPOCH, At
from lab.story import Story
from lab.threads import Killed, Present, Scheduler, Stuck, bury, run
from mailer.mail.clock import Clocks

BEGIN = 1.0
"""Seconds after that, when the programs of a story begin."""
CALL = 2e-5
"""Seconds that a system call takes."""
LOOK = 0.01
"""Seconds between two looks at a lock that another program has."""


MOST_CALLS = 20_000
"""Beyond that a world goes round in circles."""
_QUIET = {"read", "close", "dup", "fstat", "getdents", "stat", "pread", "removexattr", "flock"}
"""Calls that change nothing: a trace goes without them."""


class Program:
    """A process."""

    def __init__(self, name: str, pid: int, user: int) -> None:
        self.name = name
        self.pid = pid
        self.user = user
        """Its user id; -1: the spool's owner."""
        self.dead = False
        self.tears = False
        """It dies in the middle of its next write."""
        self.torn = False
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
        self.begun = EPOCH + start
        self.scheduler = Scheduler(random, 0.0, start)
        self.scheduler.on_switch = self._switched
        self.kernel = Kernel(disk, self.enter, self.wall)
        self.kernel.on_refusal = self._refused
        self.kernel.block = lambda: self.scheduler.wait(self.scheduler.now + LOOK)
        self.cuts: tuple[float, ...] = ()
        """When the power failed before this world began, by `time`."""
        self.booted = 0.0
        """When this machine's kernel began."""
        self.examines = False
        """Somebody runs `fsck` at its end."""
        self._sessions: list[Program] = []
        """Of the hop, those that are open, by the program that has them."""
        self.excused = False
        """Programs died before this world began: what hops answered them may be lost."""
        self.calls = 0
        self.ends_at = MOST_CALLS
        """The call at which all programs die, or are stopped as they do not come to an end."""
        self.ended = False
        """They did."""
        self._back_after = 0.0
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

    @property
    def boot(self) -> str:
        return f"boot {self.booted}"

    def time(self) -> float:
        """What the time is, in seconds since the epoch."""
        return EPOCH + self.scheduler.now

    def wall(self) -> float:
        """What the machine's clock says of that."""
        now = self.scheduler.now - BEGIN
        wrong = (jump.by for jump in self.story.jumps if jump.after <= now < jump.after + jump.lasts)
        return self.time() + sum(wrong)

    def clocks(self) -> Clocks:
        return Clocks(self.wall, lambda: self.scheduler.now - self.booted, self.boot)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keep account of the sessions with the hop."""
        assert self.scheduler.current is not None
        program = self.scheduler.current.program
        self._sessions.append(program)
        if (count := sum(not one.dead for one in self._sessions)) > self.story.sessions:
            self.log.violations.append(f"{count} sessions, and the hop allows {self.story.sessions}")
        try:
            yield
        finally:
            self._sessions.remove(program)

    def hop(self) -> Hop:
        answers = {(token, to): given for token, to, given in self.story.answers}
        contents = {
            mail.token: content_of(mail.replays or mail.token, mail.size) for mail in self.story.mails
        }
        pace = self.pace
        return Hop(
            self.log,
            answers,
            contents,
            self.time,
            self._objection,
            self._waits,
            self.begun,
            lambda: self.random.uniform(0, pace) if pace else 0.0,
            self._die,
            {mail.token: EPOCH + BEGIN + mail.wait for mail in self.story.mails if mail.wait},
            batch_size=self.story.batch,
            limits=self.story.limits,
            session=self.session,
        )

    def _waits(self, token: str, to: str) -> float:
        # By a clock that jumps a pause may end at any time.
        return 0.0 if self.story.jumps else judge.waits_until(self.disk, token, to)

    def _objection(self, token: str, to: str) -> str:
        return judge.objection(
            self.disk,
            self.log,
            token,
            to,
            cuts=self.cuts,
            excused=self.excused or self.story.loses_replies,
        )

    def _refused(self, node: Inode, *, again: bool) -> None:
        if again:
            # The kernel has dropped what it could not write, and now says that all is well.
            self.log.violations.append("a file is synced again after its sync has failed")
        elif node.entries is None:
            self.log.unsure.add(token_of(node.data))

    def _die(self) -> None:
        assert self.scheduler.current is not None
        self._kill(self.scheduler.current.program)
        raise Killed

    def _kill(self, program: Program) -> None:
        program.dead = True
        self.kernel.end(program)
        self.scheduler.wake_all_of(program)

    def start(
        self, name: str, main: Callable[["World"], Awaitable[None]], after: float = 0.0, user: int = -1
    ) -> Program:
        """Have a program begin; trouble with the disk ends it, as it would end the real one."""
        self._programs += 1
        program = Program(name, 1000 + self._programs, user)

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
        return program

    def run(self) -> None:
        """Run to the end; raises what a program raised that was no trouble with the disk."""
        At.kernel, At.random, Present.scheduler = self.kernel, self.random, self.scheduler
        try:
            self.scheduler.run()
        finally:
            self.scheduler.current = None
            bury()

    def _switched(self, task: Any) -> None:
        self.kernel.owner, self.kernel.user = task.program, task.program.user
        At.pid = task.program.pid

    def enter(self, name: str, node: Inode | None, *names: object) -> str:
        """A call begins: look whether it is one to fail, to die at, or to let others go first."""
        scheduler = self.scheduler
        task = scheduler.current
        if task is None or task.program.dead:
            raise Killed
        self.calls += 1
        scheduler.now += CALL
        if self.on_call is None and self.trace is None and self.calls < self.ends_at:
            return ""  # Nearly every call of all worlds.
        return self._enter(task.program, name, node, *names)

    def _enter(self, program: Program, name: str, node: Inode | None, *names: object) -> str:
        scheduler = self.scheduler
        if self.calls > MOST_CALLS and scheduler.failure is None:
            scheduler.failure = Stuck(f"{MOST_CALLS} calls, and no end: {program}")
            program.dead = True
            raise Killed
        if self.trace is not None and name not in _QUIET:
            about = " ".join(map(str, names or ([f"inode {node.number}"] if node else [])))
            self.trace.append(f"{self.calls:5} {scheduler.now:9.5f} {program}: {name} {about}")
        if self.on_call is None:
            if self.calls == self.ends_at < MOST_CALLS:
                self.end_all()
            return ""
        self.on_call()
        program.calls += 1
        if program.torn:
            self._end(program, self._back_after)
        self._kill_if_due(program)
        scheduler.at_call()
        if program.dead:
            raise Killed
        if program.tears and name == "write":
            program.torn = True
            return "short"
        return self._fail_if_due(name) if self.faults else ""

    def _kill_if_due(self, program: Program) -> None:
        for kill in self.story.kills:
            if kill.program == program.name and kill.number == program.calls:
                if kill.tears:
                    program.tears, self._back_after = True, kill.back_after
                else:
                    self._end(program, kill.back_after)

    def _end(self, program: Program, back_after: float) -> None:
        self._kill(program)
        self.restart(program.name, back_after)
        raise Killed

    def end_all(self) -> None:
        """Have all programs die now."""
        self.ended = True
        for program in self.scheduler.programs():
            self._kill(program)
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
            elif fault.call == "aimed":
                if name in {"fsync", "fdatasync"} and self._renamed_by_another():
                    self._names["aimed"] += 1
                    if self._names["aimed"] == fault.number:
                        self.disk.aborted = True
                        raise trouble(errno.EIO)
            elif fault.call == name and fault.number <= number < fault.number + fault.lasts:
                if fault.kind == "short":
                    return "short"
                if fault.kind == "abort":
                    self.disk.aborted = True
                    raise trouble(errno.EIO)
                raise trouble(getattr(errno, fault.kind))
        return ""

    def _renamed_by_another(self) -> bool:
        return bool(self.disk.changes) and self.kernel.renamed_by is not self.kernel.owner


def content_of(token: str, size: int) -> bytes:
    """Return a message that has all fields that a receiver would add."""
    head = (
        f"Date: Sun, 22 Nov 2026 21:45:00 +0000\r\nMessage-ID: <{token}@example.com>\r\n"
        f"From: <app@example.com>\r\nSubject: hello\r\nX-Token: {token}\r\n\r\n"
    ).encode()
    line = b"Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod.\r\n"
    return head + line * max(1, (size - len(head)) // len(line))


SPOOL = f"{ROOT}/spool"
OTHER = f"{ROOT}/other"
"""The spool that mail is moved to."""
