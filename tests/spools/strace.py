"""Run the programs of `programs` under strace: watched, refused by the kernel, or killed at a call."""

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from testbed.capability import attacher
from testbed.modules import module_command

CHANGES = "openat,flock,write,pwrite64,fsync,fdatasync,renameat2,linkat,mkdirat,unlinkat,fallocate"
"""The calls with which the spool is changed."""

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)(.*)$")


@dataclass(frozen=True)
class Call:
    """One finished system call."""

    thread: str
    name: str
    arguments: str
    result: int
    injected: bool

    @property
    def path(self) -> str:
        """The file behind the descriptor, as `strace -y` shows it."""
        found = re.match(r"\d+<([^>]*)>", self.arguments)
        return found.group(1) if found else ""


@dataclass(frozen=True)
class Ran:
    """What a program said, and what it asked of the kernel."""

    said: list[str]
    calls: list[Call]
    status: int

    def said_after(self, word: str) -> list[str]:
        return [line.split(" ", 1)[1] for line in self.said if line.startswith(word + " ")]


def straced(
    log: Path, *program: str, inject: tuple[str, ...] = (), only: str = "", trace: str = CHANGES
) -> Ran:
    """Run a program to its end, or to the death that was injected.

    Args:
        log: where strace writes.
        program: arguments of `programs`.
        inject: strace's expressions, such as `fsync:signal=KILL:when=2`; counted from the start of its work.
        only: a path as the program names it; other calls than those with it are let alone.
        trace: the calls to watch.
    """
    running = subprocess.Popen(
        module_command("spools.programs", *program),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdin
    assert running.stdout
    assert running.stdout.readline() == "ready\n"
    watcher = attach(running.pid, log, inject=inject, only=only, trace=trace)
    said, _ = running.communicate("\n")
    watcher.communicate()
    return Ran(said.splitlines(), calls_in(log), running.returncode)


def attach(
    pid: int, log: Path, *, inject: tuple[str, ...] = (), only: str = "", trace: str = CHANGES
) -> subprocess.Popen[str]:
    """Begin to watch a process with all its threads; arguments as `straced`. The watcher ends with it."""
    options = [option for expression in inject for option in ("-e", f"inject={expression}")]
    if only:
        options += ["-P", only]
    argv = [attacher(), "-f", "-y", "-s", "256", "-o", str(log), "-e", f"trace={trace}", *options]
    watcher = subprocess.Popen([*argv, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    assert watcher.stderr
    attached = watcher.stderr.readline()
    assert "attached" in attached, attached
    return watcher


def calls_in(log: Path) -> list[Call]:
    """Read strace's log, joining the calls that it shows in two halves."""
    calls: list[Call] = []
    begun: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        thread = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[thread] = line.removesuffix("<unfinished ...>").rstrip()
            continue
        whole = begun.pop(thread, "") + line.split(" resumed>", 1)[1] if " resumed>" in line else line
        if found := _CALL.match(whole):
            thread, name, arguments, result, rest = found.groups()
            calls.append(Call(thread, name, arguments, int(result), "INJECTED" in rest))
    return calls


def points(calls: list[Call]) -> list[tuple[str, int]]:
    """Name every call to inject something at: its name, and which of its kind it is in its thread."""
    most: dict[str, int] = {}
    for (_, name), count in Counter((call.thread, call.name) for call in calls).items():
        most[name] = max(most.get(name, 0), count)
    return [(name, number) for name, count in sorted(most.items()) for number in range(1, count + 1)]
