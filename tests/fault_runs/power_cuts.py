"""Power cuts of real file systems, as many as there is time for; goes on where the last run stopped."""

# ruff: noqa: T201 - a command that prints

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from power_cuts.lab import in_namespaces
from power_cuts.scenes import MAIL
from testbed.filesystem import FILE_SYSTEMS

from fault_runs import record

_IMAGES = 100
"""Of one batch: what is lost when a run is ended."""
_BATCHES = 10
"""Of one recording; then the scene is played anew, for no two recordings are alike."""
_one_at_a_time: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
"""Two batches of one recording would play it twice."""


@dataclass(frozen=True)
class Batch:
    """So many images of one recording, drawn by a seed."""

    system: str
    scene: str
    number: int
    images: int = 0
    broken: int = 0

    @property
    def directory(self) -> Path:
        """The recording's."""
        name = f"{self.system.replace(' ', '-')}-{self.scene}-{self.number // _BATCHES}"
        return _state() / name


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
    order, end, wrong = (
        _turns(asked.systems or list(FILE_SYSTEMS), done),
        time.monotonic() + 60 * asked.minutes,
        0,
    )
    with ThreadPoolExecutor(asked.jobs) as workers:
        running: set[Future[Batch]] = set()
        while running or time.monotonic() < end:
            while len(running) < asked.jobs and time.monotonic() < end:
                running.add(workers.submit(_cut, next(order)))
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for batch in (each.result() for each in ended):
                done.append(batch)
                wrong += batch.broken
                with file.open("a") as kept:
                    kept.write(json.dumps(asdict(batch)) + "\n")
                _publish(batch.system, done)
                images = sum(each.images for each in done)
                print(f"{batch.system}, {batch.scene}: {images} images, {wrong} wrong", flush=True)
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/faults power-cuts", description=__doc__)
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"of {', '.join(FILE_SYSTEMS)}")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--image", nargs=4, metavar=("SYSTEM", "SCENE", "BATCH", "CUT"), help="one of them again"
    )
    return parser.parse_args()


def _turns(systems: Sequence[str], done: Sequence[Batch]) -> Iterator[Batch]:
    """One batch of each scene on each file system after the other; without those that are done."""
    known = {(batch.system, batch.scene, batch.number) for batch in done}
    for number in count():
        for system in systems:
            for scene in (each.name for each in MAIL):
                if (system, scene, number) not in known:
                    yield Batch(system, scene, number)


def _cut(batch: Batch) -> Batch:
    """Play the scene if that was not done yet, cut the power of its disk, and see what is left of it."""
    with _one_at_a_time[batch.directory]:
        if not (batch.directory / "log").exists():
            shutil.rmtree(batch.directory, ignore_errors=True)
            batch.directory.mkdir(parents=True)
            _lab("record", batch.scene, batch.system, str(batch.directory))
        *found, last = _lab("check", str(batch.directory), str(_IMAGES), str(batch.number))
    for finding in found:
        again = (
            f"--image '{batch.system}' {batch.scene} {batch.number} {finding['evidence'].rpartition('-')[2]}"
        )
        print(f"{finding['story']}\n    see {finding['evidence']}; again: {again}", flush=True)
    return replace(batch, images=last["cuts"], broken=len({finding["evidence"] for finding in found}))


def _lab(*arguments: str) -> list[Any]:
    """Run the lab to its end, and give what it printed."""
    ran = subprocess.run(in_namespaces(*arguments), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{arguments}: {ran.stderr}"
    return [json.loads(line) for line in ran.stdout.splitlines()]


def _again(batch: Batch, cut: int) -> int:
    """Make one image anew, and judge it alone."""
    *found, _ = _lab("check", str(batch.directory), str(_IMAGES), str(batch.number), str(cut))
    print(*(finding["story"] for finding in found), f"{len(found)} broken promises", sep="\n")
    return 1 if found else 0


def _publish(system: str, done: Sequence[Batch]) -> None:
    of_it = [batch for batch in done if batch.system == system]
    recordings = len({batch.directory for batch in of_it})
    images, broken = sum(batch.images for batch in of_it), sum(batch.broken for batch in of_it)
    record.note("power cuts", system, {"recordings": recordings, "images": images, "broken": broken})


if __name__ == "__main__":
    sys.exit(main())
