"""Which faults are put at which system calls, and how strace is asked for them."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from spools.strace import Call, calls_in

_CREATE = ("openat", "linkat", "mkdirat", "mkdir", "renameat2", "renameat", "rename")
_REMOVE = ("unlinkat", "unlink", "rmdir")
_WRITE = ("write", "pwrite64", "fallocate", "ftruncate")
_SYNC = ("fsync", "fdatasync", "syncfs")
_READ = ("read", "pread64", "getdents64", "newfstatat", "lseek")
_WAY = ("connect", "sendto", "recvfrom", "accept4")
KILL, SHORT, DELAY = "kill", "short", "delay"
FAULTS: dict[str, tuple[str, ...]] = {
    KILL: (*_CREATE, *_REMOVE, *_WRITE, *_SYNC, "flock", "fchmod", "utimensat", *_WAY, "close"),
    "EIO": (*_CREATE, *_REMOVE, *_WRITE, *_SYNC, *_READ),
    "ENOSPC": (*_CREATE, *_WRITE, *_SYNC),
    "EDQUOT": (*_CREATE, *_WRITE, *_SYNC),
    "EROFS": (*_CREATE, *_REMOVE, "fchmod", "utimensat", "fallocate", "ftruncate"),
    "EMFILE": ("openat", "socket", "accept4", "pipe2", "dup", "fcntl", "epoll_create1"),
    "EINTR": ("openat", "flock", *_WRITE, "read", "pread64", "fsync", "fdatasync", *_WAY),
    SHORT: ("write",),
    DELAY: (*_CREATE, *_REMOVE, *_WRITE, *_SYNC, "flock", *_WAY),
}
TRACED = ",".join(sorted({call for calls in FAULTS.values() for call in calls}))
SECONDS = 5
_NETWORK = (*_WAY, "socket", "epoll_create1", "pipe2")


@dataclass(frozen=True, order=True)
class Point:
    """One fault at the n-th call of its name in whichever thread makes so many."""

    fault: str
    call: str
    number: int

    def __str__(self) -> str:
        return f"{self.fault}:{self.call}:{self.number}"

    @classmethod
    def of(cls, text: str) -> "Point":
        fault, call, number = text.split(":")
        return cls(fault, call, int(number))

    @property
    def injection(self) -> tuple[str, ...]:
        """How strace is asked for it; a short write is the program's own."""
        if self.fault == SHORT:
            return ()
        what = {KILL: "signal=KILL", DELAY: f"delay_exit={SECONDS * 1_000_000}"}
        return (f"{self.call}:{what.get(self.fault, f'error={self.fault}')}:when={self.number}",)


def points(log: Path, spool: Path) -> list[Point]:
    """Every fault at every call of a program that was watched: those on the spool, and those to its peers."""
    return sorted(set(_points(calls_in(log), str(spool))))


def _points(calls: list[Call], spool: str) -> Iterator[Point]:
    seen: dict[tuple[str, str], int] = {}
    for call in calls:
        number = seen[call.thread, call.name] = seen.get((call.thread, call.name), 0) + 1
        if not _is_ours(call.arguments, call.name, spool):
            continue
        for fault, names in FAULTS.items():
            if call.name in names and fault != SHORT and _possible(fault, call):
                yield Point(fault, call.name, number)
    written = sum(call.name == "write" and spool in call.arguments for call in calls)
    yield from (Point(SHORT, "write", number) for number in range(1, written + 1))


def _possible(fault: str, call: Call) -> bool:
    """Whether the kernel could answer so: to look at what is there takes no space."""
    if call.name == "openat" and fault in {"ENOSPC", "EDQUOT"}:
        return "O_CREAT" in call.arguments
    if call.name == "openat" and fault == "EROFS":
        return any(mode in call.arguments for mode in ("O_CREAT", "O_RDWR", "O_WRONLY"))
    return call.name != "fcntl" or "F_DUPFD" in call.arguments


class Met(Enum):
    """Where a fault came."""

    HERE, ELSEWHERE, NOT = "here", "elsewhere", "missed"


def met(point: Point, log: Path, spool: Path) -> Met:
    """Say whether a fault came: threads do not count alike each time, and an error may come at another call.

    A death and a delay mean the same wherever they are. An error of the disk means nothing at a pipe.
    """
    if point.fault == SHORT:
        return Met.HERE
    text = log.read_text(errors="replace") if log.exists() else ""
    if point.fault == KILL:
        return Met.HERE if "+++ killed by SIGKILL" in text else Met.NOT
    there = [line for line in text.splitlines() if "INJECTED" in line or "DELAYED" in line]
    if not there:
        return Met.NOT
    ours = point.fault == DELAY or all(_is_ours(line, point.call, str(spool)) for line in there)
    return Met.HERE if ours else Met.ELSEWHERE


def _is_ours(arguments: str, call: str, spool: str) -> bool:
    """Whether a call is about the spool, or a peer."""
    return spool in arguments or call in _NETWORK
