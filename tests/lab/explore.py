"""Runs a story, ends its world at every point, and sees what the programs make of what is left."""

import gc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

from lab import judge
from lab.disk import Disk, Write, put
from lab.hops import Log, token_of
from lab.programs import ROUNDS, drain, operator, receiver, runner
from lab.seam import installed
from lab.story import LATER_RUN, Story, story_of
from lab.threads import Stuck
from lab.world import World, new_disk

KILLED, CUT, END = "kill -9 of all programs", "power cut", "no fault"
_LATER = 5.0
"""Seconds after the last program has ended: what is not durable then never was to be."""
_LATE_CUTS = 6
_CUTS = 3
"""Subsets of what was not synced that are tried at a point, beside the empty one."""


@dataclass(slots=True)
class Counts:
    """How much was tried."""

    stories: int = 0
    calls: int = 0
    points: int = 0
    """Crash points: a system call, and what a fault at it left."""
    worlds: int = 0
    """Of these, those that differ: programs were started on each until nothing was left to do."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong."""

    story: Story
    fault: str
    at_call: int
    wrong: tuple[str, ...]
    calls: tuple[str, ...] = ()
    """The last ones before the fault that changed something."""

    def __str__(self) -> str:
        return "\n".join(
            [*self.wrong, f"  after {self.fault} at call {self.at_call}", str(self.story), *self.calls]
        )


class Image(World):
    """What a fault left, and the programs that are started on it."""

    def waiting(self) -> bool:
        return any(path.split("/")[0] in {"new", "cur", "retry"} for path, _ in judge.messages(self.disk))

    def in_tmp(self) -> bool:
        return any(path.startswith("tmp/") for path, _ in judge.messages(self.disk))


class Main(Image):
    """The world of the story."""

    def __init__(self, story: Story, disk: Disk) -> None:
        super().__init__(story, disk, Log(), start=1.0, random=Random(f"run {story.seed}"))
        self.scheduler._eagerness = story.eagerness
        self.pace = story.pace
        self.faults = bool(story.faults)
        for number in sorted({mail.receiver for mail in story.mails}):
            self.start(f"receiver {number}", receiver([m for m in story.mails if m.receiver == number]))
        for number, after in enumerate(story.runners):
            self.start(f"runner {number}", runner, after)
        if story.commands:
            self.start("operator 0", operator(sorted(story.commands, key=lambda c: c.after)))

    def restart(self, name: str, after: float) -> None:
        if name.startswith("runner"):
            self.start("runner again", runner, after)

    def id_of(self, token: str) -> str:
        file = judge.file_of(self.disk, token)
        return file.name if file else ""


class Explorer:
    """Explores one story."""

    def __init__(self, story: Story, counts: Counts, *, traces: bool = False) -> None:
        self._story = story
        self.trace: list[str] | None = [] if traces else None
        self._counts = counts
        self._random = Random(f"cuts {story.seed}")
        self._seen: set[tuple[int, int, int]] = set()
        self._images: list[tuple[str, int, float, Disk, Log]] = []
        self._last: tuple[int, int] | None = None
        self._fresh = 0

    def failures(self) -> Iterator[Failure]:
        main = self._main = Main(self._story, new_disk(self._story))
        main.on_call = self._at_call
        main.trace = self.trace
        try:
            main.run()
        except Stuck as stuck:
            yield Failure(self._story, END, main.calls, (f"the programs wait for ever: {stuck}",))
            return
        self._counts.stories += 1
        self._counts.calls += main.calls
        self._end(main)
        for fault, at, now, disk, log in self._images:
            if wrong := self._judged(fault, now, disk, log):
                calls = [line for line in self.trace or () if int(line.split()[0]) < at]
                yield Failure(self._story, fault, at, tuple(wrong), tuple(calls))

    def _at_call(self) -> None:
        main = self._main
        self._counts.points += 2 + _CUTS
        versions = main.disk.version, main.log.version
        if versions == self._last:
            return  # Nothing that a fault here could show differs from the call before.
        self._last = versions
        if not main.disk.aborted:
            self._add(KILLED, main.calls, main.disk.as_seen())
        self._add(CUT, main.calls, main.disk.after_power_cut(None))
        if main.disk.changes or any(node.writes for node in main.disk.inodes.values()):
            for _ in range(_CUTS):
                self._add(CUT, main.calls, main.disk.after_power_cut(self._random))

    def _end(self, main: Main) -> None:
        story = self._story
        main.disk.full = False
        if not main.disk.aborted:
            self._add(END, main.calls, main.disk.as_seen())
        main.scheduler.now += _LATER
        if story.keeps_promises or main.disk.aborted:
            for _ in range(_LATE_CUTS):
                self._add(CUT, main.calls, main.disk.after_power_cut(self._random))

    def _add(self, fault: str, at: int, disk: Disk) -> None:
        main = self._main
        # After a power cut it matters what was delivered before the last second.
        since = main.wall() - judge.LAST_SECOND
        old = sum(one.at < since for one in main.log.accepted) if fault == CUT else -1
        key = disk.fingerprint(), main.log.signature(), old
        if key not in self._seen:
            self._seen.add(key)
            self._images.append((fault, at, main.scheduler.now, disk, main.log.copy()))

    def _judged(self, fault: str, now: float, disk: Disk, log: Log) -> list[str]:
        self._counts.worlds += 1
        world = Image(self._story, disk, log, start=now, random=Random(f"image {self._story.seed}"))
        world.boot = "boot" if fault != CUT else "another boot"
        world.excused = fault != END
        if fault == CUT:
            world.cut_at = world.wall()
        rotten = _let_rot(disk, self._random) if self._story.rot and fault == KILLED else ""
        if self._story.deadly:
            for number in range(ROUNDS):
                world.start("mailer-send", runner, 1.5 + number * LATER_RUN)
        else:
            world.start("mailer-send", drain, 1.5)
        try:
            world.run()
        except Stuck as stuck:
            return [f"the programs wait for ever: {stuck}"]
        if world.ended_by:
            return world.ended_by
        story = self._story
        terms = judge.Terms(
            {mail.token: (mail.sender, mail.recipients) for mail in story.mails},
            may_hold=story.hold_uncertain or len(story.kills) + (fault == KILLED) > 2,
            cut=fault == CUT,
            holes=not disk.profile.size_after_data,
            rotten=rotten,
            deadly=story.deadly,
        )
        return judge.verdict(disk, log, terms)


def _let_rot(disk: Disk, random: Random) -> str:
    """Change an octet in the middle of a message; return which; empty: there is none."""
    found = [
        node
        for path, node in judge.messages(disk)
        if path.startswith(("new/", "cur/", "retry/")) and token_of(node.data)
    ]
    if not found:
        return ""
    node = random.choice(found)
    token = token_of(node.data)
    if (at := node.data.find(b"Lorem")) < 0 or b"multipart/report" in node.data:
        return ""
    node.data = node.durable = put(node.data, Write(at, b"l"))
    return token


def explore(seeds: Iterable[int], counts: Counts, *, traces: bool = False) -> Iterator[Failure]:
    """Explore story after story; the caller stops when it has enough."""
    with installed():
        gc.disable()
        try:
            for number, seed in enumerate(seeds):
                yield from Explorer(story_of(seed), counts, traces=traces).failures()
                if number % 20 == 19:
                    gc.collect()
        finally:
            gc.enable()


def shortest(failure: Failure) -> Failure:
    """Leave out what a failure does not need: parts of its story, one after the other."""
    found = failure
    with installed():
        going = True
        while going:
            going = False
            for story in found.story.shorter():
                if fewer := next(Explorer(story, Counts(), traces=True).failures(), None):
                    found, going = fewer, True
                    break
    return found
