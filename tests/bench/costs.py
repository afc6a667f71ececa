"""What a server's processes use: processor time, memory, and the system calls that make things durable."""

import os
import re
import resource
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.waiting import until

TICKS = os.sysconf("SC_CLK_TCK")
LOOK_EVERY = 0.2
"""Seconds between looks at memory: reading it costs the server nothing, but the machine something."""
SYNCS = ("fsync", "fdatasync", "syncfs", "sync")


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants that live."""
    children = defaultdict(list)
    for process, fields in _processes():
        children[int(fields[1])].append(process)
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += children[found[-1]]
    return found


def processor_seconds(pid: int) -> float:
    """Return the user and system time of a process, its descendants, and those of them that it has reaped."""
    wanted = set(tree(pid))
    # From utime on: utime, stime, cutime, cstime (proc(5), of which the first two fields are cut off).
    return sum(sum(map(int, fields[11:15])) for process, fields in _processes() if process in wanted) / TICKS


def reaped_seconds() -> float:
    """Return the user and system time of the processes that we have waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _processes() -> Iterator[tuple[int, list[str]]]:
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            stat = (directory / "stat").read_text()
        except OSError:
            continue  # It has ended.
        yield int(directory.name), stat[stat.rindex(")") + 2 :].split()


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants, what they share counted once (PSS)."""
    total = 0
    for process in tree(pid):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(kb) for kb in re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)) * 1024
    return total


@dataclass
class Peak:
    """The largest memory seen, in bytes."""

    bytes: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def watch(self, pid: int) -> None:
        while not self.stop.wait(LOOK_EVERY):
            self.bytes = max(self.bytes, proportional_bytes(pid))


@contextmanager
def peak_memory(pid: int, *, wanted: bool = True) -> Iterator[Peak]:
    """Watch a server's memory while the block runs; not beside a measurement of time, which it disturbs."""
    peak = Peak()
    watcher = threading.Thread(target=peak.watch, args=(pid,))
    if wanted:
        watcher.start()
    try:
        yield peak
    finally:
        if wanted:
            peak.stop.set()
            watcher.join()
            peak.bytes = max(peak.bytes, proportional_bytes(pid))


def traced(summary: Path) -> list[str]:
    """The command that runs another and counts its system calls that make things durable.

    With -DDD the command keeps its process id, and so hears its signals; strace is in a session of its own.
    """
    return [
        "strace",
        "-DDD",
        "-f",
        "-c",
        "-qq",
        "-U",
        "name,calls",
        "-e",
        f"trace={','.join(SYNCS)}",
        "-o",
        str(summary),
    ]


def syncs(summary: Path) -> int:
    """Add up what `traced` counted; strace writes it when the last process has ended."""
    until(lambda: summary.stat().st_size, "strace's summary")
    counted = re.findall(rf"^\s*({'|'.join(SYNCS)})\s+(\d+)", summary.read_text(), re.MULTILINE)
    return sum(int(calls) for _, calls in counted)
