"""Explores stories by number, says which seeded defects that shows, and writes the page of results."""

# ruff: noqa: T201 - a command that prints

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seeded_defects.__main__ import ROOT, copy_of_the_product
from seeded_defects.catalogue import DEFECTS

from lab.explore import Counts, Failure, explore, shortest
from lab.results import DEFECTS_FILE, PAGE, TOTALS, VERSION, commit, page

_SEEN = (
    "spool/",
    "ground/durable.py",
    "mail/budget.py",
    "send/record.py",
    "send/worker.py",
    "send/journals.py",
)
"""Where the defects are that a simulated disk could show."""


def _seeds(first: int, minutes: float) -> Iterator[int]:
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        yield first
        first += 1


def _tell(failure: Failure) -> None:
    print(f"seed {failure.story.seed} fails; what it needs of its story:\n{shortest(failure)}", flush=True)


def _explore(first: int, minutes: float) -> int:
    """Go on from a number, or from where the last run stopped; totals are kept every ten seconds."""
    totals = json.loads(TOTALS.read_text()) if TOTALS.exists() else {}
    if totals.get("version") != VERSION:
        totals = {}  # The figures of another simulator say nothing of this one.
    first = first or int(totals.get("next", 0))
    # Its threads take turns: on one processor they hand over in half the time.
    os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})
    counts, began, last = Counts(), time.process_time(), time.monotonic()

    def seeds() -> Iterator[int]:
        nonlocal last
        for seed in _seeds(first, minutes):
            if time.monotonic() - last > 10:
                last = time.monotonic()
                used = time.process_time() - began
                print(
                    f"seed {seed}: {counts.points} crash points, {counts.worlds} of them started anew "
                    f"({counts.points / used:.0f} and {counts.worlds / used:.0f} a second of processor)",
                    flush=True,
                )
                so_far = dict(totals)
                _add(so_far, counts, used, first)
                _keep(so_far)
            yield seed

    failure = None
    try:
        failure = next(explore(seeds(), counts), None)
    except KeyboardInterrupt:
        print("stopped; the next run goes on from here")
    used = time.process_time() - began
    _add(totals, counts, used, first)
    totals["broken"] = totals.get("broken", 0) + (failure is not None)
    _keep(totals)
    print(f"{counts}, {used:.0f} s of processor; in all: {totals}")
    if failure:
        _tell(failure)
    return 1 if failure else 0


def _add(totals: dict[str, Any], counts: Counts, used: float, first: int) -> None:
    for name, value in (asdict(counts) | {"seconds": used}).items():
        totals[name] = round(totals.get(name, 0) + value, 1)
    totals["next"] = first + counts.stories
    totals.setdefault("broken", 0)


def _keep(totals: dict[str, Any]) -> None:
    """Write what was done so far, so that a run that is ended loses the last seconds only."""
    totals |= {"version": VERSION, "commit": commit(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
    TOTALS.parent.mkdir(parents=True, exist_ok=True)
    TOTALS.write_text(json.dumps(totals, indent=1) + "\n")


_SEARCH = """
import sys, time
from lab.explore import Counts, explore
import mailer
assert mailer.__file__.startswith(sys.argv[1])
counts, began = Counts(), time.process_time()
def seeds():
    seed = 0
    while time.process_time() - began < float(sys.argv[2]):
        yield seed
        seed += 1
for failure in explore(seeds(), counts, most=40):
    used = time.process_time() - began
    print(f"{failure.wrong[0]} | {failure.story.seed} | {counts.points} | {used:.1f} s")
    break
"""


def _defects(names: Sequence[str], seconds: float) -> int:
    """Plant each defect by itself, and search, at most 40 worlds of a story; each row is kept at once."""
    wanted = [d for d in DEFECTS if (d.name in names if names else d.module.startswith(_SEEN))]
    for defect in wanted:
        with copy_of_the_product() as copy:
            module = copy / "mailer" / defect.module
            module.write_text(defect.plant(module.read_text()))
            ran = subprocess.run(
                [sys.executable, "-P", "-c", _SEARCH, str(copy), str(seconds)],
                env=os.environ | {"PYTHONPATH": f"{copy}:{copy}/tests", "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
            )
        said = ran.stdout.strip()
        if ran.returncode:
            said = f"**not caught**: {ran.stderr.strip().splitlines()[-1][:90]} | | |"
        row = said or f"**not caught** | | | {seconds:.0f} s"
        print(f"{defect.name}: {row}", flush=True)
        _keep_row(defect.name, row)
    return 0


def _keep_row(name: str, row: str) -> None:
    rows: dict[str, str] = {}
    if DEFECTS_FILE.exists():
        rows = dict(line.split("\t", 1) for line in DEFECTS_FILE.read_text().splitlines())
    rows[name] = f"{row} | {VERSION}"
    lines = [f"{defect.name}\t{rows[defect.name]}" for defect in DEFECTS if defect.name in rows]
    DEFECTS_FILE.parent.mkdir(parents=True, exist_ok=True)
    DEFECTS_FILE.write_text("\n".join(lines) + "\n")


def main() -> int:
    """Run what is asked for; 1: a promise was broken."""
    parser = argparse.ArgumentParser(prog="scripts/lab")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--defects", action="store_true")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--results", action="store_true")
    parser.add_argument("names", nargs="*", metavar="DEFECT")
    asked = parser.parse_args()
    if asked.results:
        PAGE.write_text(page())
        print(f"written: {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
        return 0
    if asked.defects:
        return _defects(asked.names, asked.seconds)
    if asked.seed is not None:
        failures = list(explore([asked.seed], Counts(), traces=True))
        if failures:
            _tell(failures[0])
        return 1 if failures else 0
    return _explore(asked.first, asked.minutes)


if __name__ == "__main__":
    assert ROOT
    sys.exit(main())
