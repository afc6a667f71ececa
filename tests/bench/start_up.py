"""What it costs to start our programs: processor time above that of a Python that does nothing."""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from spools.strategies import accept
from testbed.relay import Relay

from bench.costs import reaped_seconds
from bench.works import directory_in

NAME = "start of each command"
CEILING = 0.060
"""Seconds above bare Python that a command may take; click, msgspec and pathlib take two thirds of it."""
LIBRARIES = "import click, msgspec, pathlib"
COMMANDS = (
    LIBRARIES,
    "mailer-send --once",
    "mailer --help",
    "mailer guide",
    "mailer pause",
    "mailer spool ls",
    "mailer spool stats",
    "mailer log",
    "mailer providers",
    "mailer limits",
    "mailer route --from app@example.com --to bob@example.net",
    "mailer config check",
)


def above_python(parent: Path, rounds: int) -> dict[str, float]:
    """Return for each command the median of its processor seconds, less those of Python beside it."""
    bare = [sys.executable, "-c", "pass"]
    with directory_in(parent) as directory:
        for name in ("busy", "idle"):
            (directory / name).mkdir()
        busy, idle = Relay(directory / "busy"), Relay(directory / "idle")
        accept(busy.spool)
        idle.mailer_send("--once")
        measured: dict[str, list[float]] = {command: [] for command in COMMANDS}
        for _ in range(rounds):
            for command, samples in measured.items():
                relay = idle if command.startswith("mailer-send") else busy
                samples.append(_seconds(_argv(command), relay) - _seconds(bare, relay))
    return {command: median(samples) for command, samples in measured.items()}


def _argv(command: str) -> list[str]:
    if command == LIBRARIES:
        return [sys.executable, "-c", command]
    program, *arguments = command.split()
    return [str(Path(sys.executable).with_name(program)), *arguments]


def _seconds(argv: list[str], relay: Relay) -> float:
    before = reaped_seconds()
    known = os.environ | {"MAILER_CONFIG": str(relay.config)}
    subprocess.run(argv, env=known, check=True, capture_output=True)
    return reaped_seconds() - before


def table(found: dict[str, float]) -> str:
    lines = ["| start of | ms of processor time above Python's |", "| --- | --- |"]
    for command, seconds in found.items():
        lines.append(f"| `{command}` | {seconds * 1000:.0f}{'' if seconds <= CEILING else ' (!)'} |")
    return "\n".join(lines)
