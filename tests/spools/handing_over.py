"""Two spools, and a handover between them that is cut anywhere; judged without the product's code."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from mailer.spool.directory import Spool
from mailer.spool.handover.arriving import serve
from mailer.spool.handover.leaving import MOVABLE
from mailer.spool.handover.mover import Mover, Outcome
from mailer.spool.handover.wire import Broken, Greeting, Pipe
from mailer.spool.layout import Spot
from mailer.spool.mark import identity
from mailer.spool.run.sweep import requeue_due
from mailer.spool.scan import spots
from spools.crash import Boundary, Crash
from spools.runner import HORIZON, claims_of, run_once
from spools.walk import QUEUE, Found, walk

Ends = tuple[int, int, int, int]
"""What the source reads and writes, and what the target reads and writes."""


def owned(root: Path) -> dict[str, Found]:
    """The messages that are this spool's to send, hold or keep as failed."""
    return {name: found for name, found in walk(root).items() if found.intact and not found.is_parked}


def wrong_between(source: Path, target: Path, names: set[str], sent: Counter[str]) -> list[str]:
    """Say what must not be, at any instant: a message on two sides, or on none, or sent by two."""
    mine, theirs = owned(source), owned(target)
    everywhere = walk(source).keys() | walk(target).keys()
    return [
        *(f"{name} is on both sides" for name in mine.keys() & theirs.keys()),
        *(f"{name} was sent {count} times" for name, count in sent.items() if count > 1),
        *(f"{name} was sent, and is still to be sent" for name in sent if name in mine or name in theirs),
        *(f"{name} is nowhere" for name in names - everywhere - sent.keys()),
    ]


def wrong_at_the_end(source: Path, target: Path, names: set[str], sent: Counter[str]) -> list[str]:
    """Say what must not be once the handover has been finished: anything left between the two."""
    left = [name for root in (source, target) for name, found in walk(root).items() if found.is_parked]
    wrong = wrong_between(source, target, names, sent)
    return [*wrong, *(f"{name} is left between" for name in left), *_litter(source, target)]


def _litter(*roots: Path) -> Iterator[str]:
    """Name files that have one id and stand in two places of one spool, which `walk` would hide."""
    for root in roots:
        names = [name for place in QUEUE for _, _, files in os.walk(root / place) for name in files]
        yield from (f"{name} stands twice in {root}" for name, count in Counter(names).items() if count > 1)


def run_both(source: Path, target: Path, sent: Counter[str]) -> None:
    """Have a runner send what is due on both sides."""
    for root in (source, target):
        with Spool.open(root) as spool:
            list(requeue_due(spool, claims_of(spool, time.time()), time.time(), HORIZON))
            run_once(spool, time.time(), lambda name, _: sent.update([name]))


def pipes() -> Ends:
    """Make the connection; each side closes its two ends."""
    there, back = os.pipe(), os.pipe()
    return (back[0], there[1], there[0], back[1])


class Cut:
    """A connection that passes on so many octets in each direction, and then ends in both."""

    def __init__(self, *, there: int = 1 << 30, back: int = 1 << 30) -> None:
        self.source, self.target = pipes(), pipes()
        self.passed: dict[str, int] = {}
        ways = (
            ("there", self.source[2], self.target[1], there),
            ("back", self.target[0], self.source[3], back),
        )
        self._threads = [threading.Thread(target=self._pass_on, args=way) for way in ways]
        for thread in self._threads:
            thread.start()

    def _pass_on(self, way: str, reading: int, writing: int, most: int) -> None:
        count = 0
        with suppress(OSError):
            while count < most and (data := os.read(reading, min(most - count, 1 << 16))):
                os.write(writing, data)
                count += len(data)
        self.passed[way] = count
        _close(writing)
        _close(reading)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def hand_over(source: Path, ends: Ends, *, resumes: bool, dies: Boundary | None = None) -> list[Outcome]:
    """Be the source, to the end or to the loss of the connection; then the connection is closed."""
    outcomes: list[Outcome] = []
    if dies:
        dies.thread = threading.get_ident()
    try:
        with Spool.open(source) as spool:
            pipe = Pipe(ends[0], ends[1])
            where = pipe.greet(Greeting("source:/spool", ""))
            mover = Mover(spool, pipe, "alice", time.time, where)
            chosen = [spot for spot in spots(spool, MOVABLE) if not resumes or _is_begun(source, spot)]
            outcomes.extend(mover.move(chosen, resumes=resumes))
    except (Broken, Crash):
        pass
    finally:
        _close(ends[0])
        _close(ends[1])
    return outcomes


def _is_begun(root: Path, spot: Spot) -> bool:
    found = walk(root)[spot.name]
    return found.is_parked and not any(event["event"] == "arriving" for event in found.events)


def take_in(
    target: Path, ends: Ends, began: Callable[[], None] = lambda: None, min_free: int = 0
) -> threading.Thread:
    """Be the target, in a thread, until the connection ends."""

    def work() -> None:
        began()
        try:
            with Spool.open(target) as spool:
                pipe = Pipe(ends[2], ends[3])
                here = Greeting("target:/spool", identity(spool.root))
                serve(spool, pipe, here, time.time, min_free=min_free, on_arrival=lambda *_: None)
        except (Broken, Crash):
            pass
        finally:
            _close(ends[2])
            _close(ends[3])

    thread = threading.Thread(target=work)
    thread.start()
    return thread


_close = os.close
"""Not the one that a dead side calls: the kernel closes its pipes."""
