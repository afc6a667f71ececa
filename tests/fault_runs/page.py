"""Writes the page of the long runs from `tests/lab/runs.json`; `fuzzed` first adds what was fuzzed to that.

scripts/faults page
scripts/fuzz 600 | scripts/faults fuzzed
"""

# ruff: noqa: E501 - the page's own lines

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from call_faults.faults import FAULTS
from call_faults.rows import ROWS

from fault_runs import record

PAGE = Path(__file__).with_name("RESULTS.md")
_HEAD = """# Long runs of real faults: what was run

`scripts/faults page` writes this page from `tests/lab/runs.json`, which the runs write; `tests/end_to_end/test_call_faults.py` fails
when it is another. The simulator's figures are in `tests/lab/RESULTS.md`.

**The promise**: what was acknowledged is delivered, bounced with one notification, or stands in the spool; nobody gets it
twice, unless a file says that the reply was lost, or it was in the last second before a power cut; what was refused is not
delivered; a command that says "done" has done it; the queue drains when the fault is over.
"""
_LIMITS = """
## Limits of the method

- A fault comes at a call on the spool, or to a peer. `missed`: threads did not count alike and it did not come. `elsewhere`:
  an error came at another thing, such as a pipe of the event loop, where a disk's error means nothing. Neither counts.
- Between two calls that change nothing a kill leaves the same as at the next that does; other calls are not killed at.
- Programs are forked from a process that has loaded the product; loading it is not under test here.
- The disk of a power cut is a file in memory, and what it kept is drawn; the images of one recording differ in what they
  kept. All are mounted and **walked**: a reader that shares no code with the product compares the spool with what clients
  and servers had seen, and finds mail that is lost, damaged, or would be sent again. Only some are **drained** by the
  programs, at most 100 of a recording: the first of each shape (names, places, journals), and one in 20. That all is
  delivered once in the end was seen of these alone. Images before 2026-11-30 were all drained.
- For as long as programs waited for a processor, a delivery before a cut may go unrecorded without being counted: on a busy
  machine, second copies of the first seconds of a recording are not seen.
"""


def main(verb: str) -> int:
    """Do what is asked for."""
    if verb == "fuzzed":
        _add(sys.stdin.read())
    PAGE.write_text(page())
    return 0


def _add(printed: str) -> None:
    known = record.read().get("fuzz", {})
    for target, executed in re.findall(
        r"^(\w+), .*\n(?:.*\n)*?stat::number_of_executed_units: (\d+)", printed, re.MULTILINE
    ):
        before = known.get(target, {}).get("executions", 0)
        record.note("fuzz", target, {"executions": before + int(executed)})


def page() -> str:
    runs = record.read()
    parts = [_calls(runs.get("calls", {})), _cuts(runs.get("power cuts", {})), _fuzz(runs.get("fuzz", {}))]
    parts.insert(2, _hosts(runs.get("hosts", {})))
    return "\n".join([_HEAD, *(line for part in parts for line in part)]) + "\n" + _LIMITS


Part = Mapping[str, Mapping[str, Any]]


def _calls(rows: Part) -> Iterator[str]:
    yield "## Faults at system calls: `scripts/faults calls`\n"
    yield (
        "| command | what | points | held | broken | missed, elsewhere | "
        + " | ".join(FAULTS)
        + " | commit |"
    )
    yield "| --- | --- " * (len(FAULTS) // 2 + 3) + "| --- " * (1 + len(FAULTS) % 2) + "|"
    for name, row in ROWS.items():
        if (run := rows.get(name)) is None:
            continue
        came = run["outcomes"]
        not_here = came.get("missed", 0) + came.get("elsewhere", 0)
        faults = " | ".join(str(run["faults"].get(fault, 0)) for fault in FAULTS)
        figures = f"{run['points']} | {came.get('held', 0)} | {came.get('broken', 0)} | {not_here}"
        yield f"| `{name}` | {row.what} | {figures} | {faults} | {run['commit']} |"


def _cuts(systems: Part) -> Iterator[str]:
    yield "\n## Power cuts: `scripts/faults power-cuts`\n"
    yield "| file system | recordings | images, walked | of these drained | with a broken promise | day, commit |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, run in systems.items():
        figures = f"{run['recordings']} | {run['images']:,} | {run['drained']:,} | {run['broken']}"
        yield f"| {name} | {figures} | {run['date']}, {run['commit']} |"


def _hosts(grounds: Part) -> Iterator[str]:
    yield "\n## Several hosts on one directory: `scripts/hosts_lab`\n"
    yield (
        "Three hosts under load. In each round one is killed, stopped or cut off, or said to be off and is not; "
        "another one takes its mail\nover, and it comes back. On CephFS, in memory, the mount is killed, stopped, or "
        "cut off with the programs, and evicted."
    )
    yield "\n| directory | rounds | acknowledged | lost | arrived twice | by a fenced host | broken promises | day, commit |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, run in grounds.items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(run["faults"].items()))
        figures = f"{run['rounds']} ({kinds}) | {run['acknowledged']:,} | {run['lost']}"
        twice = f"{run['duplicates']}, {run['most']} after one fault at most"
        when = f"{run['date']}, {run['commit']}"
        yield f"| {name} | {figures} | {twice} | {run['fenced']} | {run['broken']} | {when} |"


def _fuzz(targets: Part) -> Iterator[str]:
    yield "\n## Fuzz: `scripts/fuzz SECONDS | scripts/faults fuzzed`\n"
    yield "| target | executions | day, commit |"
    yield "| --- | --- | --- |"
    for name, run in targets.items():
        yield f"| {name} | {run['executions']:,} | {run['date']}, {run['commit']} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
