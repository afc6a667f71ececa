"""Puts the simulated system below the product: `os`, `fcntl`, libc, clocks, threads.

Functions that are called with a descriptor or a path of ours go to the kernel at work, all others to the real
system. Nothing of the product is replaced but the names by which its modules know the standard library.
"""

import asyncio
import ctypes
import errno
import fcntl
import importlib
import io
import os
import pkgutil
import queue
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from random import Random
from typing import Any

import mailer
from lab.kernel import FIRST, ROOT, Kernel, trouble
from lab.threads import Future, Loop, Present, Queue, Threading
from mailer.ground.lazy_task import LazyTask
from mailer.ground.libc import libc

_MOUNT = 7
EPOCH = 1_795_000_000.0
"""When worlds begin: an evening in November 2026."""


class At:
    """What is at work."""

    kernel: Kernel
    random: Random
    pid = 0


def _of_first_descriptor(name: str) -> Callable[..., Any]:
    real = getattr(os, name)

    def call(fd: Any, *rest: Any, **named: Any) -> Any:
        if isinstance(fd, int) and fd >= FIRST:
            return getattr(At.kernel, name)(fd, *rest, **named)
        return real(fd, *rest, **named)

    return call


def _of_path(name: str) -> Callable[..., Any]:
    real = getattr(os, name)

    def call(path: Any, *rest: Any, **named: Any) -> Any:
        if (fd := named.get("dir_fd")) is not None:
            ours = fd >= FIRST
        else:
            ours = path >= FIRST if isinstance(path, int) else _is_ours(path)
        return getattr(At.kernel, name)(path, *rest, **named) if ours else real(path, *rest, **named)

    return call


def _is_ours(path: Any) -> bool:
    text = os.fspath(path)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    return text.startswith(ROOT) or (text.startswith("/proc/self/fd/") and int(text[14:] or 0) >= FIRST)


def _of_two_paths(name: str) -> Callable[..., Any]:
    real = getattr(os, name)

    def call(source: Any, target: Any, **named: Any) -> Any:
        ours = named.get("src_dir_fd", 0) >= FIRST
        return (getattr(At.kernel, name) if ours else real)(source, target, **named)

    return call


def _scandir(real: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: Any = ".") -> Any:
        ours = path >= FIRST if isinstance(path, int) else _is_ours(path)
        return At.kernel.scandir(path) if ours else real(path)

    return call


def _listdir(real: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: Any = ".") -> Any:
        ours = path >= FIRST if isinstance(path, int) else _is_ours(path)
        return [entry.name for entry in At.kernel.scandir(path)] if ours else real(path)

    return call


class _Raw(io.RawIOBase):
    """A small file that is read or written as a whole, by os.fdopen."""

    def __init__(self, fd: int, *, writing: bool) -> None:
        self._fd, self._writing = fd, writing
        self._rest = b"" if writing else At.kernel.content(fd)

    def readable(self) -> bool:
        return not self._writing

    def writable(self) -> bool:
        return self._writing

    def readinto(self, buffer: Any) -> int:
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def write(self, data: Any) -> int:
        return At.kernel.write(self._fd, data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self._fd in At.kernel._files:
                At.kernel.close(self._fd)


def _fdopen(real: Callable[..., Any]) -> Callable[..., Any]:
    def call(fd: int, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if fd < FIRST:
            return real(fd, mode, *rest, **named)
        raw = _Raw(fd, writing="w" in mode)
        return io.BufferedWriter(raw) if "w" in mode else io.BufferedReader(raw)

    return call


class _Libc:
    """The calls that the product makes through ctypes."""

    def renameat2(self, old: int, source: bytes, new: int, target: bytes, flags: int) -> int:
        if not flags:
            return _told(lambda: At.kernel.rename(source, target, src_dir_fd=old, dst_dir_fd=new))
        return _told(lambda: At.kernel.rename_exclusive(source, old, target, new))

    def fallocate(self, fd: int, _mode: int, offset: int, length: int) -> int:
        return _told(lambda: At.kernel.fallocate(fd, offset, length))

    def sync_file_range(self, *_: Any) -> int:
        return 0

    def syncfs(self, _fd: int) -> int:
        return _told(At.kernel.syncfs)

    def fstatfs(self, *_: Any) -> int:
        return -1


def _told(call: Callable[[], None]) -> int:
    try:
        call()
    except OSError as error:
        ctypes.set_errno(error.errno or errno.EIO)
        return -1
    return 0


def _open(path: Any, *rest: Any, **named: Any) -> Any:
    """What /proc says of the mount."""
    text = str(path)
    if text.startswith("/proc/self/fdinfo/"):
        return io.StringIO(f"mnt_id:\t{_MOUNT}\n")
    if text == "/proc/self/mountinfo":
        return io.StringIO(f"{_MOUNT} 1 0:0 / {ROOT} rw - {At.kernel.disk.profile.kind} lab rw\n")
    return open(path, *rest, **named)  # noqa: PTH123


def _modules() -> Iterator[Any]:
    for room in ("mail", "spool", "maillog", "send", "events"):
        for info in pkgutil.walk_packages([f"{mailer.__path__[0]}/{room}"], f"mailer.{room}."):
            importlib.import_module(info.name)
    for name, module in list(sys.modules.items()):
        if name.startswith("mailer."):
            yield module


_DESCRIPTORS = (
    "close",
    "dup",
    "fchmod",
    "fdatasync",
    "fstat",
    "fstatvfs",
    "fsync",
    "ftruncate",
    "pread",
    "pwrite",
    "read",
    "removexattr",
    "utime",
    "write",
)
_PATHS = ("mkdir", "open", "rmdir", "stat", "unlink")
_TWO_PATHS = ("link", "rename")


@contextmanager
def installed() -> Iterator[None]:  # noqa: C901 - one list of what is put in place
    """Have the product work on the simulated system for as long as the block runs."""
    saved: list[tuple[Any, str, Any]] = []

    def put(module: Any, name: str, value: Any) -> None:
        saved.append((module, name, getattr(module, name, _MISSING)))
        setattr(module, name, value)

    modules = list(_modules())
    monotonic, real_flock, real_fcntl = time.monotonic, fcntl.flock, fcntl.fcntl
    names = {
        id(monotonic): lambda: Present.scheduler.now,
        id(time.thread_time): lambda: 0.0,
        id(time.sleep): _sleep,
        id(time.time): lambda: EPOCH + Present.scheduler.now,
        id(queue.SimpleQueue): Queue,
        id(futures.Future): Future,
        id(sys.modules["threading"]): Threading,
        id(libc): _Libc(),
    }
    try:
        for name in _DESCRIPTORS:
            put(os, name, _of_first_descriptor(name))
        for name in _PATHS:
            put(os, name, _of_path(name))
        for name in _TWO_PATHS:
            put(os, name, _of_two_paths(name))
        put(os, "scandir", _scandir(os.scandir))
        put(os, "listdir", _listdir(os.listdir))
        put(os, "fdopen", _fdopen(os.fdopen))
        put(os, "closerange", _of_first_descriptor("closerange"))
        put(os, "urandom", lambda n: At.random.randbytes(n))  # noqa: PLW0108 - of the world that is at work
        put(os, "getpid", lambda: At.pid)
        put(fcntl, "flock", lambda fd, op: At.kernel.flock(fd, op) if fd >= FIRST else real_flock(fd, op))
        put(
            fcntl,
            "fcntl",
            lambda fd, *rest: At.kernel.dup(fd) if fd >= FIRST else real_fcntl(fd, *rest),
        )
        put(fcntl, "ioctl", _no_ioctl)
        put(LazyTask, "start", _start_lazily(LazyTask.start))
        put(ctypes, "CDLL", lambda *_, **__: _Libc())
        for module in modules:
            for name, value in list(vars(module).items()):
                if (other := names.get(id(value))) is not None:
                    put(module, name, other)
            if module.__name__ == "mailer.spool.syscalls":
                put(module, "open", _open)
            if module.__name__ == "mailer.spool.ids":
                put(module.new_id, "__defaults__", (os.urandom,))
        yield
    finally:
        for module, name, value in reversed(saved):
            if value is _MISSING:
                delattr(module, name)
            else:
                setattr(module, name, value)


_MISSING = object()


def _sleep(seconds: float) -> None:
    scheduler = Present.scheduler
    until = scheduler.now + seconds
    while scheduler.now < until:
        scheduler.wait(until)


def _start_lazily(start: Callable[[LazyTask], None]) -> Callable[[LazyTask], None]:
    """Have the loop know its lazy tasks, of which asyncio knows nothing; `bury` ends them."""

    def known(task: LazyTask) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        loop.lazy.append(task)
        start(task)

    return known


def _no_ioctl(*_: Any) -> int:
    raise trouble(errno.ENOTTY)
