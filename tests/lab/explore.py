"""Runs a story, ends its world at every point, and sees what the programs make of what is left."""

import gc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from lab import judge
from lab.disk import PROFILES, Disk, Write, put
from lab.hops import REFUSED, Log, token_of
from lab.moving import LONGEST, finish, move
from lab.operating import first_token, hold_again, operator, plant, rotate
from lab.programs import ROUNDS, drain, runner
from lab.seam import installed
from lab.story import LATER_RUN, Story
from lab.submitting import make_spool, receiver, replayer, user
from lab.telling import teller
from lab.themes import story_of
from lab.threads import Stuck
from lab.world import BEGIN, OTHER, SPOOL, World

KILLED, CUT, END = "kill -9 of all programs", "power cut", "no fault"
_OF_ONE = {
    name: f"power cut at the machine of /{name}, kill -9 of all programs" for name in ("spool", "other")
}
_CUT = {CUT, *_OF_ONE.values()}
_LATER = 5.0
"""Seconds after the last program has ended: what is not durable then never was to be."""
_LATE_CUTS = 6
_WRITTEN_BACK = 60.0
"""Seconds after which all that was written is durable, whoever has died meanwhile."""
_AGAIN = 0.15
"""How often programs that were started on what was left are ended, too."""
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
        return any(
            path.split("/")[0] in {"new", "cur", "retry"} and path.rpartition("/")[2] not in self.log.planted
            for path, _ in judge.messages(self.disk)
        ) or any(path.startswith(f"{judge.SPOOL}drop/") for path in self.disk.tree())

    def in_tmp(self) -> bool:
        return any(path.startswith("tmp/") for path, _ in judge.messages(self.disk))


class Main(Image):
    """The world of the story."""

    def __init__(self, story: Story, disk: Disk, log: Log) -> None:
        super().__init__(story, disk, log, start=BEGIN, random=Random(f"run {story.seed}"))
        self.scheduler._eagerness = story.eagerness
        self.scheduler.on_wait = self._waited
        self.pace = story.pace
        self.faults = bool(story.faults)
        submitted = [mail for mail in story.mails if not mail.user and not mail.replays]
        for number in sorted({mail.receiver for mail in submitted}):
            self.start(f"receiver {number}", receiver([m for m in submitted if m.receiver == number]))
        for number in sorted({mail.user for mail in story.mails} - {0}):
            self.start(f"user {number}", user([m for m in story.mails if m.user == number]), user=number)
        self._start_senders(story)
        for number in sorted({command.by for command in story.commands}):
            self.start(f"operator {number}", operator([c for c in story.commands if c.by == number]))
        if story.plants:
            self.start("another user", plant(sorted(story.plants, key=lambda p: p.after)))
        for number, after in enumerate((0.1, *story.runners) if story.events else ()):
            self.start(f"teller {number}", teller(3, every=1.0), after)
        for number, after in enumerate(story.rotations):
            self.start(f"rotation {number}", rotate, after)

    def _start_senders(self, story: Story) -> None:
        for number, mail in enumerate(mail for mail in story.mails if mail.replays):
            self.start(f"replay {number}", replayer(mail))
        for number, after in enumerate(story.runners):
            self.start(f"runner {number}", runner, after)
            if story.moves:
                self.start(f"other runner {number}", partial(runner, path=OTHER), after)
        for number, after in enumerate(story.moves):
            self.start(f"mover {number}", partial(move, number=number), after)

    def _waited(self, seconds: float) -> None:
        """Have the kernel write back what nobody has synced (vm.dirty_expire_centisecs)."""
        if seconds > _WRITTEN_BACK:
            self.disk.sync_all()

    def restart(self, name: str, after: float) -> None:
        if name.startswith("runner"):
            self.start("runner again", runner, after)
        if name.startswith(("mover", "target")):
            self.start("mover again", partial(move, resumes=True), after)

    def id_of(self, token: str) -> str:
        file = judge.file_of(self.disk, token)
        return file.name if file else ""


class Explorer:
    """Explores one story."""

    def __init__(
        self, story: Story, counts: Counts, *, traces: bool = False, most: int | None = None
    ) -> None:
        """Args: most: how many of its worlds are tried, by chance; None: all."""
        self._story = story
        self._most = most
        self.trace: list[str] | None = [] if traces else None
        self._counts = counts
        self._random = Random(f"cuts {story.seed}")
        self._seen: set[tuple[int, int, int]] = set()
        self._images: list[tuple[str, int, float, Disk, Log]] = []
        self._last: tuple[int, int] | None = None

    def failures(self) -> Iterator[Failure]:
        main = self._main = _begin(self._story)
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
        images = list(enumerate(self._images))
        if self._most is not None and len(images) > self._most:
            images = self._random.sample(images, self._most)
        for number, (fault, at, now, disk, log) in images:
            if wrong := self._judged(number, fault, now, disk, log):
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
            for name, fault in _OF_ONE.items() if main.story.moves else ():
                self._counts.points += 1
                self._add(fault, main.calls, main.disk.after_power_cut(self._random, name))

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
        since = main.time() - judge.LAST_SECOND
        old = sum(one.at < since for one in main.log.accepted) if fault in _CUT else -1
        key = disk.fingerprint(), main.log.signature(), old
        if key not in self._seen:
            self._seen.add(key)
            self._images.append((fault, at, main.scheduler.now, disk, main.log.copy()))

    def _judged(self, number: int, fault: str, now: float, disk: Disk, log: Log) -> list[str]:
        """Start programs on what a fault has left; now and then, end these as well, and start others."""
        story, random = self._story, Random(f"image {self._story.seed} {number}")
        self._counts.worlds += 1
        booted = now if fault in _CUT else self._main.booted
        world = self._world(fault, now, disk, log, random, (), booted)
        world.examines = number % 4 == 0 and story.tidy
        rotten = _let_rot(disk, random) if story.rot and fault == KILLED else ""
        deaths = len(story.kills) + (fault == KILLED)
        if random.random() < _AGAIN and not rotten:
            world.ends_at = random.randint(10, 400)
        try:
            world.run()
            if world.ended:
                deaths += 1
                fault, disk, cuts = self._again(fault, world, random)
                now = world.scheduler.now
                booted = now if fault in _CUT else world.booted
                world = self._world(fault, now, disk, log, random, cuts, booted)
                world.excused = True
                world.run()
        except Stuck as stuck:
            return [f"the programs wait for ever: {stuck}"]
        if world.ended_by:
            return world.ended_by
        terms = judge.Terms(
            {mail.token: (mail.sender, mail.recipients) for mail in story.mails},
            may_hold=story.hold_uncertain or deaths > 2,
            cut=bool(world.cuts),
            holes=not disk.profile.size_after_data,
            rotten=rotten,
            deadly=story.deadly,
            # What is held in doubt has no end yet, and `held` is not told unless it is asked for.
            refusable=_refusable(story),
            told=story.events and not (story.faults or world.cuts or story.hold_uncertain),
        )
        return judge.verdict(disk, log, terms)

    def _again(self, fault: str, world: World, random: Random) -> tuple[str, Disk, tuple[float, ...]]:
        """End a second world; by no power cut if what died before it left its last second not durable."""
        if fault not in _CUT or self._story.deadly or random.random() < 0.5:
            return KILLED, world.disk.as_seen(), world.cuts
        return CUT, world.disk.after_power_cut(random), (*world.cuts, world.time())

    def _world(  # noqa: PLR0917 - what a fault has left
        self,
        fault: str,
        now: float,
        disk: Disk,
        log: Log,
        random: Random,
        cuts: tuple[float, ...],
        booted: float,
    ) -> Image:
        """Make a world in which no call fails."""
        story = self._story
        world = Image(story, disk, log, start=now, random=random)
        world.booted = booted
        world.excused = fault != END
        world.cuts = (*cuts, world.time()) if fault in _CUT and not cuts else cuts
        log.violations += judge.pause_of(disk, log)
        log.paused[0] = None
        unheard = {mail.token for mail in story.mails if mail.key} - {ack.token for ack in log.acks}
        if unheard:
            mails = [replace(mail, after=0.0) for mail in story.mails if mail.token in unheard]
            world.start("receiver", receiver([m for m in mails if not m.replays]), random.uniform(0.0, 3.0))
            for again in (mail for mail in mails if mail.replays):
                world.start("replay", replayer(again), random.uniform(0.0, 3.0))
            world.start("mailer-send", drain, 30.0)
        if unheard and random.random() < 0.5:
            pass  # Else another one is at work while they submit.
        elif story.deadly:
            for number in range(ROUNDS):
                world.start("mailer-send", runner, 1.5 + number * LATER_RUN)
        elif story.moves:
            world.start("mover", finish, random.uniform(0.0, 3.0))
            for path in (SPOOL, OTHER):
                world.start("mailer-send", partial(runner, path=path), 1.5)
                world.start("mailer-send", partial(drain, path=path), LONGEST)
        else:
            world.start("mailer-send", drain, 1.5)
        if {*log.held} - log.kept:
            world.start("operator", hold_again, (ROUNDS + 2) * LATER_RUN)
        if story.events:
            world.start("teller", teller(), (ROUNDS + 2) * LATER_RUN)
        return world


def _begin(story: Story) -> Main:
    """Make the story's world, with the spool as its first start leaves it."""
    disk, log = Disk(PROFILES[story.profile]), Log()
    first = World(story, disk, log, start=0.0, random=Random(0))
    first.start("init", make_spool(drops=any(mail.user for mail in story.mails)))
    if story.rotations:
        first.start("login", first_token, 0.5)
    if story.events:
        first.start("teller", teller(1), 0.5)
    first.run()
    disk.sync_all()
    return Main(story, disk, log)


def _refusable(story: Story) -> frozenset[tuple[str, str]]:
    listed = {command.to for command in story.commands if command.verb == "suppress"}
    refused = {(token, to) for token, to, answers in story.answers if REFUSED in answers}
    return frozenset(
        refused | {(mail.token, to) for mail in story.mails for to in mail.recipients if to in listed}
    )


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


def explore(
    seeds: Iterable[int], counts: Counts, *, traces: bool = False, most: int | None = None
) -> Iterator[Failure]:
    """Explore story after story, at `most` so many worlds of each; the caller stops when it has enough."""
    with installed():
        gc.disable()
        try:
            for number, seed in enumerate(seeds):
                yield from Explorer(story_of(seed), counts, traces=traces, most=most).failures()
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
