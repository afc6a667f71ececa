"""Power cuts in a recording, and what they leave on the disk.

A disk with a volatile write cache has kept all that was written before its last flush, and of what came after
it some: all of it, nothing, or any part; of one write also single sectors of 4 KiB. A seed draws which.
"""

import bisect
import mmap
import os
import random
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from testbed.write_log_disk import FLUSH, WRITE, Entry, read_log

from power_cuts.books import Event, read_books

SECTOR = 4096


@dataclass(frozen=True)
class Piece:
    """So many bytes of the log that are to stand at an offset of the disk."""

    offset: int
    length: int
    data: int


@dataclass(frozen=True)
class Cut:
    """One power cut.

    Attributes:
        number: its place in the draw, for names.
        whole: how many entries of the log the disk has kept whole, in order.
        kept: what it has kept of those after them.
        at: when it happened, on CLOCK_MONOTONIC.
        how: in words what was kept.
    """

    number: int
    whole: int
    kept: tuple[Piece, ...]
    at: float
    how: str


class Recording:
    """The files of one recording: `base`, `log`, `books`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.base = directory / "base"

    @cached_property
    def entries(self) -> list[Entry]:
        return list(read_log(self.directory / "log"))

    @cached_property
    def events(self) -> list[Event]:
        return read_books(self.directory / "books")

    @cached_property
    def span(self) -> tuple[float, float]:
        """From the first promise to the end."""
        first = next(event for event in self.events if event.kind != "late")
        return first.at, self.events[-1].at

    def build(self, cut: Cut, image: Path) -> None:
        """Write what the disk has after a cut, as a sparse file."""
        copy(self.base, image)
        with (
            (self.directory / "log").open("rb") as log,
            image.open("r+b") as disk,
            mmap.mmap(log.fileno(), 0, access=mmap.ACCESS_READ) as stored,
            memoryview(stored) as view,
        ):
            for piece in (*_whole(self.entries[: cut.whole]), *cut.kept):
                os.pwrite(disk.fileno(), view[piece.data : piece.data + piece.length], piece.offset)

    def cuts(self, count: int, seed: int) -> list[Cut]:
        """Draw so many cuts that leave different images; fewer if there are no more."""
        chance = random.Random(seed)
        drawn: dict[tuple[int, tuple[Piece, ...]], Cut] = {}
        for _ in range(count * 20):
            if len(drawn) == count:
                break
            cut = self._draw(chance, len(drawn))
            image = (self._writes[cut.whole], cut.kept)
            known = drawn.get(image)
            # Of one image the latest cut promises most.
            if known is None:
                drawn[image] = cut
            elif known.at < cut.at:
                drawn[image] = replace(cut, number=known.number)
        return list(drawn.values())

    def _draw(self, chance: random.Random, number: int) -> Cut:
        moment = self._moment(chance)
        last = bisect.bisect_right(self._times, moment)
        flush = 1 + max((at for at in self._flushes if at < last), default=-1)
        following = next((at for at in self._flushes if at >= last), len(self.entries))
        how = chance.choice(("all", "nothing", "some"))
        if how == "all":
            # The cut is just before the next entry: nothing else has changed on the disk until then.
            return Cut(number, last, (), self._just_before(last), how)
        # What a disk has kept of the writes until the next flush may be any part of them: so it is the latest
        # moment, when most was promised.
        share = 0.0 if how == "nothing" else chance.random()
        pieces = _sectors(self.entries[flush:following])
        kept = tuple(piece for piece in pieces if chance.random() < share)
        return Cut(number, flush, kept, self._just_before(following), how if kept else "nothing")

    def _moment(self, chance: random.Random) -> float:
        """A moment of the recording: any, just after an event, a while after one, or about a flush."""
        begin, end = self.span
        kind = chance.choice(("any", "event", "after", "flush"))
        events = [e.at for e in self.events if e.kind in {"accepted", "delivered", "told", "done"}]
        moment = chance.uniform(begin, end)
        if kind == "event":
            moment = chance.choice(events)
        elif kind == "after":
            moment = chance.choice(events) + chance.uniform(1.1, 30)
        elif kind == "flush":
            moment = self._times[chance.choice(self._flushes)] + chance.choice((-1e-6, 0))
        return moment if begin <= moment <= end else chance.uniform(begin, end)

    def _just_before(self, entry: int) -> float:
        return min(self._times[entry], self.span[1]) if entry < len(self.entries) else self.span[1]

    @cached_property
    def _writes(self) -> list[int]:
        """How many of the first 0, 1, 2, ... entries are writes."""
        return [0, *accumulate(entry.kind == WRITE for entry in self.entries)]

    @cached_property
    def _times(self) -> list[float]:
        return [entry.at for entry in self.entries]

    @cached_property
    def _flushes(self) -> list[int]:
        return [at for at, entry in enumerate(self.entries) if entry.kind == FLUSH]


def _whole(entries: Iterable[Entry]) -> Iterator[Piece]:
    return (Piece(entry.offset, entry.length, entry.data) for entry in entries if entry.kind == WRITE)


def _sectors(entries: Sequence[Entry]) -> Iterator[Piece]:
    for entry in entries:
        at, end = entry.offset, entry.offset + entry.length
        while at < end:
            length = min(SECTOR - at % SECTOR, end - at)
            yield Piece(at, length, entry.data + at - entry.offset)
            at += length


def copy(source: Path, target: Path) -> None:
    """Copy an image, sparse."""
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
