"""Keeps the figures of all runs, and writes the page of them: the worst of the runs counts, not the best."""

# ruff: noqa: E501 - the page's own lines

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

RUNS = Path(__file__).with_name("runs.json")
PAGE = Path(__file__).with_name("RESULTS.md")
_HEAD = """# Speed beside Postfix: all runs

`scripts/bench --record` adds a run to this page; `tests/house/test_bench_page.py` fails when it is another than
`tests/bench/runs.json` makes. Every run is there, the worst counts. Ratios are to Postfix on the same machine in the same
minutes: of what a second of processor time does, and of the rate. The control is mailer against itself; a ratio says no
more than the control's distance from 1 allows.
"""


def add(found: Mapping[str, Any], *, scale: float) -> None:
    """Keep a run that `bench` has made as JSON, and write the page anew."""
    ran = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    run = {"commit": ran.stdout.strip(), "scale": scale, "machine": found["machine"], "works": found["works"]}
    RUNS.write_text(json.dumps([*read(), run], indent=1) + "\n")
    PAGE.write_text(page(read()))


def read() -> list[dict[str, Any]]:
    """Return all runs, the oldest first."""
    return list(json.loads(RUNS.read_text())) if RUNS.exists() else []


def page(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of all runs."""
    return "\n".join([_HEAD, *_ratios(runs), "", *_machines(runs)]) + "\n"


def _ratios(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    numbers = range(1, len(runs) + 1)
    yield f"| work | wanted | worst | {' | '.join(f'run {number}' for number in numbers)} |"
    yield f"| --- | --- | --- |{' --- |' * len(runs)}"
    works = dict.fromkeys(work["work"] for run in runs for work in run["works"])
    for name in works:
        of_runs = [{work["work"]: work for work in run["works"]}.get(name) for run in runs]
        known = [work for work in of_runs if work]
        worst = min(work["ratio"] for work in known)
        wanted = known[-1]["wanted"]
        yield (
            f"| {name} | {wanted:g} | **{worst:.2f}**{'' if worst >= wanted else ' (not reached)'} | "
            f"{' | '.join(_cell(work) if work else '' for work in of_runs)} |"
        )


def _cell(work: Mapping[str, Any]) -> str:
    cores, control = work["ratio_per_core_second"], work["control"]
    return f"{work['ratio']:.2f}; core-second {cores[0]:.2f}; control {control[0]:.2f}"


def _machines(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| run | when, commit | machine | load when it began | part of the full work |"
    yield "| --- | --- | --- | --- | --- |"
    for number, run in enumerate(runs, start=1):
        on = run["machine"]
        machine = f"{on['processors']} {on['model']}, kernel {on['kernel']}, Python {on['python']}"
        yield (
            f"| {number} | {on['at'][:16].replace('T', ' ')}, {run['commit']} | {machine}, "
            f"{on['filesystem'].split()[0]} | {on['load']:.1f} | {run['scale']:g} |"
        )
