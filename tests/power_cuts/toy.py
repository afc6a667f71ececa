"""A program so small that it can be seen to be right, or wrong: what the power-cut lab itself is proved with.

power_cuts.toy careful|careless DIRECTORY    prints the number of each file that it has put into `new/`
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.modules import module_command

from power_cuts.books import Books, Event
from power_cuts.image import Cut
from power_cuts.standing import Standing
from power_cuts.story import Finding

_FILES = 20


def _content(number: str) -> bytes:
    return f"file {number}\n".encode() * 200


@dataclass(frozen=True)
class ToyScene:
    """Files that are written to `tmp/` and renamed to `new/`, with every fsync that this needs, or none."""

    name: str
    seconds: float = 3.0

    def play(self, mount: Path, directory: Path, books: Books) -> None:
        """Note as accepted what the program says is done."""
        del directory  # it has no configuration
        began = time.monotonic()
        argv = module_command("power_cuts.toy", self.name, str(mount))
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as toy:
            assert toy.stdout
            for line in toy.stdout:
                books.note("accepted", line.strip())
        assert toy.returncode == 0
        time.sleep(max(0.0, began + self.seconds - time.monotonic()))
        books.note("end")

    def walk(self, mount: Path, cut: Cut, promised: Sequence[Event]) -> Standing:
        """See whether each file that was promised is there, whole, and under one name."""
        findings = []
        for event in (event for event in promised if event.kind == "accepted" and event.at < cut.at):
            file = mount / "new" / event.token
            if not file.exists() or file.read_bytes() != _content(event.token):
                findings.append(Finding("lost", f"{file} is missing or damaged"))
            elif (mount / "tmp" / event.token).exists():
                findings.append(Finding("two names", f"{file} is in tmp/ as well"))
        return Standing(findings, "")

    def examine(
        self, mount: Path, directory: Path, cut: Cut, promised: Sequence[Event]
    ) -> tuple[list[Finding], str]:
        """Find nothing more: there is no program that would go on with the files."""
        del mount, directory, cut, promised
        return [], ""


def _main(name: str, directory: str) -> None:
    os.chdir(directory)
    for place in ("tmp", "new"):
        Path(place).mkdir()
    careful = name == "careful"
    if careful:
        _sync(".")
    for number in map(str, range(_FILES)):
        Path("tmp", number).write_bytes(_content(number))
        if careful:
            _sync(f"tmp/{number}")
        Path("tmp", number).rename(Path("new", number))
        if careful:
            # The destination first: at no instant may the name be in neither.
            _sync("new")
            _sync("tmp")
        print(number, flush=True)  # noqa: T201 - what the lab reads
        time.sleep(0.05)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


if __name__ == "__main__":
    _main(*sys.argv[1:])
