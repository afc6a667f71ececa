"""Power cuts of real file systems, as many as there is time for; goes on where the last run stopped."""

# ruff: noqa: T201 - a command that prints

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import count, product
from pathlib import Path
from typing import Any

from power_cuts.lab import in_namespaces
from power_cuts.scenes import MAIL
from testbed.filesystem import FILE_SYSTEMS

from fault_runs import record

_IMAGES = 1000
"""Of one recording at most, and what is lost when a run is killed; then the scene is played anew."""
_DRAINED = 100
"""Of these at most; see `power_cuts.lab.check`."""
_OTHERS_FIRST = ("nice", "-n", "19")
_AHEAD = 2
"""Scenes that are played while images are judged: a recording takes 35 s, and nearly no processor time."""


@dataclass(frozen=True)
class Batch:
    """The images of one recording, drawn with its number as the seed.

    Attributes:
        images: how many different ones were judged as the power cut had left them.
        drained: on how many of these the programs were started.
        broken: how many show a broken promise.
    """

    system: str
    scene: str
    number: int
    images: int = 0
    drained: int = 0
    broken: int = 0

    @property
    def directory(self) -> Path:
        """The recording's."""
        return _state() / f"{self.system.replace(' ', '-')}-{self.scene}-{self.number}"


@cache
def _state() -> Path:
    return record.STATE / "power-cuts" / record.version()


def main() -> int:
    """Run what is asked for; 1: a promise was broken."""
    asked = _arguments()
    if asked.image:
        system, scene, number, cut = asked.image
        return _again(Batch(system, scene, int(number)), int(cut))
    file = _state() / "batches.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    done = [Batch(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
    order = _turns(asked.systems or list(FILE_SYSTEMS), done, asked.images)
    end, wrong = time.monotonic() + 60 * asked.minutes, 0
    playing, judging = threading.Semaphore(_AHEAD), threading.Semaphore(asked.jobs)
    with ThreadPoolExecutor(asked.jobs + _AHEAD) as workers:
        running: set[Future[Batch]] = set()
        while True:
            while len(running) < asked.jobs + _AHEAD and time.monotonic() < end:
                if (batch := next(order, None)) is None:
                    break
                running.add(workers.submit(_cut, batch, playing, judging, end))
            if not running:
                break
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for batch in (each.result() for each in ended if each.result().images):
                done.append(batch)
                wrong += batch.broken
                with file.open("a") as kept:
                    kept.write(json.dumps(asdict(batch)) + "\n")
                _publish(batch.system, done)
                images = _images(batch.system, done)
                print(f"{batch.system}, {batch.scene}: {images:,} images, {wrong} wrong", flush=True)
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/faults power-cuts", description=__doc__)
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"of {', '.join(FILE_SYSTEMS)}")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--images", type=int, default=sys.maxsize, help="of each file system, with earlier runs"
    )
    parser.add_argument("--jobs", type=int, default=1, help="how many judge at once")
    parser.add_argument(
        "--image", nargs=4, metavar=("SYSTEM", "SCENE", "BATCH", "CUT"), help="one of them again"
    )
    return parser.parse_args()


def _turns(systems: Sequence[str], done: Sequence[Batch], wanted: int) -> Iterator[Batch]:
    """One recording of each scene on each file system after the other, while it has too few images."""
    known = {(batch.system, batch.scene, batch.number) for batch in done}
    for number in count():
        for scene, system in product((each.name for each in MAIL), systems):
            if (system, scene, number) not in known and _images(system, done) < wanted:
                yield Batch(system, scene, number)
        if all(_images(system, done) >= wanted for system in systems):
            return


def _images(system: str, done: Sequence[Batch]) -> int:
    return sum(batch.images for batch in done if batch.system == system)


def _cut(batch: Batch, playing: threading.Semaphore, judging: threading.Semaphore, end: float) -> Batch:
    """Play a scene, cut the power of its disk, and see what is left, on fewer images when time is up."""
    with playing:
        if time.monotonic() > end:
            return batch
        shutil.rmtree(batch.directory, ignore_errors=True)
        batch.directory.mkdir(parents=True)
        _lab("record", batch.scene, batch.system, str(batch.directory))
    with judging:
        *found, last = _lab(
            "check", str(batch.directory), str(_IMAGES), str(batch.number), str(_DRAINED), str(end)
        )
    for finding in found:
        again = (
            f"--image '{batch.system}' {batch.scene} {batch.number} {finding['evidence'].rpartition('-')[2]}"
        )
        print(f"{finding['story']}\n    see {finding['evidence']}; again: {again}", flush=True)
    if not found:
        shutil.rmtree(batch.directory)
    broken = len({finding["evidence"] for finding in found})
    return replace(batch, images=last["cuts"], drained=last["drained"], broken=broken)


def _lab(*arguments: str) -> list[Any]:
    """Run the lab to its end, and give what it printed.

    Other work comes before judging; not before a recording, whose programs would be late.
    """
    others_first = () if arguments[0] == "record" else _OTHERS_FIRST
    ran = subprocess.run(
        [*others_first, *in_namespaces(*arguments)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"{arguments}: {ran.stderr}"
    return [json.loads(line) for line in ran.stdout.splitlines()]


def _again(batch: Batch, cut: int) -> int:
    """Make one image anew, and judge it alone."""
    *found, _ = _lab("check", str(batch.directory), str(_IMAGES), str(batch.number), "1", "inf", str(cut))
    print(*(finding["story"] for finding in found), f"{len(found)} broken promises", sep="\n")
    return 1 if found else 0


def _publish(system: str, done: Sequence[Batch]) -> None:
    of_it = [batch for batch in done if batch.system == system]
    figures = {name: sum(getattr(batch, name) for batch in of_it) for name in ("images", "drained", "broken")}
    record.note("power cuts", system, {"recordings": len(of_it), **figures})


if __name__ == "__main__":
    sys.exit(main())
