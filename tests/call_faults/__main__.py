"""Puts every fault at every system call of the commands, and goes on where the last run stopped."""

# ruff: noqa: T201 - a command that prints

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

from fault_runs import record

from call_faults.faults import Point
from call_faults.rows import ROWS
from call_faults.trial import Trial, points_of, try_at

_TELL_EVERY = 10.0


def main() -> int:
    """Run what is asked for; 1: a promise was broken."""
    asked = _arguments()
    if asked.point:
        (row,) = asked.rows
        trial = try_at(row, Point.of(asked.point), record.STATE / "evidence")
        print(trial.outcome, *trial.wrong, sep="\n")
        return 1 if trial.wrong else 0
    rows = asked.rows or list(ROWS)
    state = record.STATE / "calls" / record.version()
    state.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * asked.minutes
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn")) as workers:
        broken = _run(workers, {row: _left(row, state) for row in rows}, state, end, asked.jobs)
    for row in rows:
        _publish(row, state)
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/faults calls", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all if none is named")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--point", help="one trial again: FAULT:CALL:NUMBER")
    return parser.parse_args()


def _left(row: str, state: Path) -> list[Point]:
    """What was not tried yet, in an order that is the same each time."""
    listed = state / f"{row}.points"
    if not listed.exists():
        listed.write_text("\n".join(map(str, points_of(row))) + "\n")
    every = [Point.of(line) for line in listed.read_text().splitlines()]
    random.Random(row).shuffle(every)
    done = {trial["point"] for trial in _done(row, state)}
    return [point for point in every if str(point) not in done]


def _done(row: str, state: Path) -> list[dict[str, str]]:
    file = state / f"{row}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _in_turn(left: dict[str, list[Point]]) -> Iterator[tuple[str, Point]]:
    """One of each row after the other, so that a short run has some of all."""
    while any(left.values()):
        for row, points in left.items():
            if points:
                yield row, points.pop()


def _run(
    workers: ProcessPoolExecutor, left: dict[str, list[Point]], state: Path, end: float, jobs: int
) -> int:
    """Try until the time is over; give how many broke a promise."""
    broken = tried = 0
    order, running = _in_turn(left), dict[Future[Trial], str]()
    last = time.monotonic()
    while True:
        while len(running) < jobs and time.monotonic() < end and (following := next(order, None)):
            running[workers.submit(try_at, *following, record.STATE / "evidence")] = following[0]
        if not running:
            return broken
        for ended in wait(running, return_when=FIRST_COMPLETED).done:
            row, trial = running.pop(ended), ended.result()
            tried += 1
            with (state / f"{row}.jsonl").open("a") as file:
                file.write(json.dumps({"point": str(trial.point), "outcome": trial.outcome}) + "\n")
            if trial.wrong:
                broken += 1
                print(
                    f"{row}, {trial.point}:", *trial.wrong, f"see {trial.evidence}", sep="\n    ", flush=True
                )
        if time.monotonic() - last > _TELL_EVERY:
            last = time.monotonic()
            print(f"{tried} tried, {broken} broken, {sum(map(len, left.values()))} left", flush=True)


def _publish(row: str, state: Path) -> None:
    done = _done(row, state)
    listed = (state / f"{row}.points").read_text().splitlines()
    outcomes = Counter(trial["outcome"] for trial in done)
    faults = Counter(trial["point"].split(":")[0] for trial in done if trial["outcome"] in {"held", "broken"})
    record.note("calls", row, {"points": len(listed), "outcomes": outcomes, "faults": faults})


if __name__ == "__main__":
    sys.exit(main())
