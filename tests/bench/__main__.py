"""The command line: see `scripts/bench --help`."""

# ruff: noqa: T201 - a command that prints

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from testbed.tools import MissingToolError

from bench import growth, limits, record, report, start_up
from bench.earlier import earlier
from bench.load import Load
from bench.report import Figures, Row
from bench.servers import Again, Mailer, OfPostfix
from bench.works import Work, works

_HELP = """\
Measures mailer against Postfix, and beside them Exim, OpenSMTPD, dma and nullmailer where they do the work
and do not need minutes for it, on the same work in one run, taking turns in fresh directories: what is done
in each second of processor time, which holds on a busy machine as well, and the rate. Mailer takes part
twice: how far the two lie apart is how little a difference may mean. Then what starting our commands costs,
and the machine's own limits; with --growth also how our figures change with the depth of the queue and the
number of clients. Prints Markdown; progress goes to standard error. It needs root, as Postfix does.
"""
_EXAMPLES = """\
examples:
  scripts/bench --quick                      a few minutes, figures that wobble
  scripts/bench --only 'accept' --rounds 5   only works with this in their name
  scripts/bench --growth --json bench.json   everything, and the figures as JSON too
  scripts/bench --under /srv/disk            on another filesystem
  scripts/bench --quick --against HEAD~20    what the last twenty commits saved or cost
"""


def main() -> int:
    options = _parse()
    parent = options.under or Path(tempfile.gettempdir())
    found = {"machine": report.machine(parent)}
    print(f"Measured on: {', '.join(f'{name} {value}' for name, value in found['machine'].items())}\n")
    scale = 0.2 if options.quick else options.scale
    chosen = [work for work in works(scale) if options.only in work.name]
    rival = OfPostfix.name
    with ExitStack() as installed:
        if options.against:
            _say(f"installing {options.against}")
            other = installed.enter_context(earlier(options.against))
            chosen = [replace(work, contestants=(Mailer, other, Again)) for work in chosen]
            rival = other.name
        if chosen:
            rows = list(_race(chosen, parent, options.rounds, rival))
            print(report.works_table(rows))
            found["works"] = [row.as_json() for row in rows]
    if options.only in start_up.NAME and not options.against:
        _say(start_up.NAME)
        found["start_up"] = start_up.above_python(parent, max(1, int(30 * scale)))
        print(f"\n{start_up.table(found['start_up'])}")
    if not options.only and not options.against:
        found["limits"] = _limits(parent, scale)
    if options.growth:
        depths = growth.DEPTHS[:3] if options.quick else growth.DEPTHS
        points = list(growth.by_depth(parent, depths, _say))
        clients = list(growth.by_clients(parent, growth.CLIENTS, _say))
        print(f"\n{report.curves(points, 'messages deferred')}\n\n{report.curves(clients, 'connections')}")
        found["growth"] = report.as_json(points) + report.as_json(clients)
    if options.record and chosen:
        record.add(found, scale=scale)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/bench",
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="a fifth of the work, and no million of messages"
    )
    parser.add_argument("--scale", type=float, default=1.0, metavar="N", help="N times the work (1)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each work and contestant (3); the median counts"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only works with TEXT in their name")
    parser.add_argument(
        "--growth", action="store_true", help="also by depth of the queue, and by connections"
    )
    parser.add_argument("--under", type=Path, metavar="DIR", help="where spools and queues are made (/tmp)")
    parser.add_argument(
        "--against", metavar="COMMIT", help="beside this commit of ours instead of Postfix and the others"
    )
    parser.add_argument(
        "--record", action="store_true", help="add the run to the page of all runs, tests/bench/RESULTS.md"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    if options.record and options.against:
        parser.error("the page of all runs has ratios to Postfix: --record and --against exclude each other")
    return options


def _race(chosen: list[Work], parent: Path, rounds: int, rival: str) -> Iterator[Row]:
    for number, work in enumerate(chosen, start=1):
        samples = {kind: [] for kind in work.contestants}
        for turn in range(rounds):
            # In turns, and the next time the other way round: a machine gets faster or slower meanwhile.
            for kind in list(samples)[:: -1 if turn % 2 else 1]:
                _say(f"{number}/{len(chosen)} {work.name}, round {turn + 1}/{rounds}: {kind.name}")
                try:
                    samples[kind].append(work.measure(kind, parent))
                except MissingToolError as error:
                    _say(f"{kind.name} is left out: {error}")
                    del samples[kind]
        figures = {}
        for kind, measured in samples.items():
            wanted = work.rest is not None and kind.traceable and kind is not Again
            if wanted:
                _say(f"{number}/{len(chosen)} {work.name}, what it takes: {kind.name}")
            figures[kind.name] = Figures(measured, work.rest(kind, parent) if wanted else None)
        row = Row(work, figures, rival)
        compared = row.per_core_second("mailer")
        by_core = f", {compared[0]:.2f} times for each core-second" if compared else ""
        _say(f"{work.name}: {row.ratio():.2f} times {rival}{by_core}")
        yield row


def _limits(parent: Path, scale: float) -> dict[str, float]:
    _say("what the machine can do without a relay")
    load = Load(int(20_000 * scale), reuse=True)
    found = {
        "files written, fsynced, renamed, directory fsynced, 16 threads, per second": limits.durable_files(
            parent, int(10_000 * scale)
        ),
        "messages from smtp-source straight to smtp-sink, per second": limits.bare_sink(parent, load),
        "RSA-2048 signatures of OpenSSL on one core, per second": limits.rsa_signatures(),
    }
    print("\n| limit | figure |\n| --- | --- |")
    for name, value in found.items():
        print(f"| {name} | {value:,.0f} |")
    return found


_began = time.monotonic()


def _say(text: str) -> None:
    print(f"[{time.monotonic() - _began:5.0f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
