"""A disk that logs what it is told: one file, served by FUSE, for a loop device.

    with WriteLogDisk(directory, image) as disk:
        ... mount disk.device, a file, with `mount -o loop` ...
    for entry in read_log(disk.log): ...

A loop device turns each flush of its file system into an fsync of its file. So the log holds the writes and
the flushes in the order in which a disk would have had them, and a power cut can be replayed from it: what
came before the last flush is there, and of what came after it any part.

The server is a process of its own, since a process that waits for its own file system would wait for ever.
"""

import ctypes
import errno
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# What the kernel's <linux/fuse.h> calls FUSE_..., protocol 7.31.
_INIT, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE = 26, 2, 3, 4, 14, 15, 16
_STATFS, _RELEASE, _FSYNC, _FLUSH, _INTERRUPT, _DESTROY, _BATCH_FORGET = 17, 18, 20, 25, 36, 38, 42
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_DIRECT_IO = 1
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x20000, 1 << 14, 1 << 18, 2
_libc = ctypes.CDLL(None, use_errno=True)
_LARGEST = 1 << 20
_ROOT, _FILE = 1, stat.S_IFREG | 0o600
_NO_REPLY = {_FORGET, _BATCH_FORGET, _INTERRUPT}
_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_AT = struct.Struct("<QQI")
"""File handle, offset, length: the beginning of a read and of a write."""
_WRITE_HEADER = 40
_ATTRIBUTES = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<cQQd")
WRITE, FLUSH = b"W", b"F"


@dataclass(frozen=True)
class Entry:
    """One line of the log.

    Attributes:
        kind: WRITE or FLUSH.
        offset: of the write, on the disk.
        length: of the write.
        at: when it was done, on CLOCK_MONOTONIC; the caller had not heard of it yet.
        data: where the write's bytes stand in the log.
    """

    kind: bytes
    offset: int
    length: int
    at: float
    data: int


def read_log(path: Path) -> Iterator[Entry]:
    """Everything that the disk was told, in order; a last entry that is not whole is left out."""
    with path.open("rb") as log:
        size = os.fstat(log.fileno()).st_size
        while len(header := log.read(_ENTRY.size)) == _ENTRY.size:
            kind, offset, length, at = _ENTRY.unpack(header)
            stored = length if kind == WRITE else 0
            if log.tell() + stored > size:
                return
            yield Entry(kind, offset, length, at, log.tell())
            log.seek(stored, os.SEEK_CUR)


class WriteLogDisk:
    """The disk, while its block runs; needs root. In its own mount namespace it leaves nothing behind."""

    def __init__(self, directory: Path, image: Path) -> None:
        """
        Args:
            directory: an empty one, where the device, the log and the faults are.
            image: what is on the disk at first; it is written to.
        """
        self.device = directory / "disk"
        self.log = directory / "log"
        self._faults = directory / "faults"
        self._image = image
        self._server: subprocess.Popen[str] | None = None

    def fail(self, *faults: tuple[str, int, int]) -> None:
        """Answer EIO to what touches these ranges, until the next call.

        Args:
            faults: each "read", "write" or "flush", an offset and a length; those of a flush mean nothing.
        """
        assert self._server
        assert self._server.stdout
        self._faults.write_text("".join(f"{kind} {at} {length}\n" for kind, at, length in faults))
        self._server.send_signal(signal.SIGHUP)
        assert self._server.stdout.readline() == "faults\n"

    def __enter__(self) -> Self:
        self.device.touch()
        argv = [sys.executable, __file__, *map(str, (self._image, self.device, self.log, self._faults))]
        self._server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._server.stdout
        assert self._server.stdout.readline() == "ready\n", "the disk's server did not start: see above"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server
        assert self._server.stdout
        subprocess.run(["umount", "--lazy", str(self.device)], check=False)
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()  # who still has the disk open reads EIO from now on
            self._server.wait()
        self._server.stdout.close()


class _Server:
    """Answers the kernel's requests, one after the other."""

    def __init__(self, image: Path, device: Path, log: Path, faults: Path) -> None:
        self._image = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._path = faults
        self._faults: list[tuple[str, int, int]] = []
        self._size = os.fstat(self._image).st_size
        self._fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        _mount(device, self._fuse)
        self._answers: dict[int, Callable[[memoryview], bytes]] = {
            _INIT: self._init,
            _GETATTR: self._attributes,
            _SETATTR: self._attributes,
            _OPEN: lambda _: struct.pack("<QIi", 0, _DIRECT_IO, 0),
            _READ: self._read,
            _WRITE: self._write,
            _FSYNC: self._flush,
            _STATFS: lambda _: struct.pack("<5Q4I24x", 0, 0, 0, 1, 0, 4096, 255, 4096, 0),
            **dict.fromkeys((_RELEASE, _FLUSH, _DESTROY), lambda _: b""),
        }

    def serve(self) -> None:
        """Until the file system is unmounted."""
        buffer = bytearray(_LARGEST + 4096)
        view = memoryview(buffer)
        while True:
            try:
                length = os.readv(self._fuse, [buffer])
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno == errno.ENOENT:  # the request was interrupted before it was read
                    continue
                raise
            _, code, unique, *_ = _IN.unpack_from(buffer)
            if code not in _NO_REPLY:
                self._reply(unique, code, view[_IN.size : length])

    def _reply(self, unique: int, code: int, body: memoryview) -> None:
        trouble, answer = 0, b""
        try:
            answer = self._answers[code](body)
        except KeyError:
            trouble = errno.ENOSYS
        except OSError as error:
            trouble = error.errno or errno.EIO
        try:
            os.writev(self._fuse, [_OUT.pack(_OUT.size + len(answer), -trouble, unique), answer])
        except OSError as error:
            if error.errno != errno.ENOENT:  # nobody waits for it any more
                raise

    def _init(self, body: memoryview) -> bytes:
        major, minor, ahead, offered = struct.unpack_from("<4I", body)
        flags = offered & (_BIG_WRITES | _MAX_PAGES)
        return struct.pack("<4I2H2I2H32x", major, min(minor, 31), ahead, flags, 64, 48, _LARGEST, 1, 256, 0)

    def _attributes(self, _: memoryview) -> bytes:
        sizes = (_ROOT, self._size, self._size // 512, 0, 0, 0)
        return struct.pack("<QII", 3600, 0, 0) + _ATTRIBUTES.pack(*sizes, 0, 0, 0, _FILE, 1, 0, 0, 0, 4096, 0)

    def _read(self, body: memoryview) -> bytes:
        _, offset, length = _AT.unpack_from(body)
        self._check("read", offset, length)
        return os.pread(self._image, length, offset)

    def _write(self, body: memoryview) -> bytes:
        _, offset, length = _AT.unpack_from(body)
        self._check("write", offset, length)
        data = body[_WRITE_HEADER : _WRITE_HEADER + length]
        assert os.pwrite(self._image, data, offset) == length
        self._note(WRITE, offset, data)
        return struct.pack("<II", length, 0)

    def _flush(self, _: memoryview) -> bytes:
        self._check("flush", 0, 1)
        self._note(FLUSH, 0, b"")
        return b""

    def _note(self, kind: bytes, offset: int, data: bytes | memoryview) -> None:
        entry = _ENTRY.pack(kind, offset, len(data), time.monotonic())
        assert os.writev(self._log, [entry, data]) == len(entry) + len(data)

    def _check(self, kind: str, offset: int, length: int) -> None:
        for broken, start, size in self._faults:
            if broken == kind and (kind == "flush" or (start < offset + length and offset < start + size)):
                raise OSError(errno.EIO, f"told to fail: {kind} at {offset}")

    def read_faults(self) -> None:
        lines = [line.split() for line in self._path.read_text().splitlines()]
        self._faults = [(kind, int(at), int(length)) for kind, at, length in lines]
        os.write(1, b"faults\n")


def _mount(device: Path, fuse: int) -> None:
    """Mount a file system of one file onto a file, for all but this process.

    The last process of a mount namespace unmounts what is mounted there. If that were the server, killed, it
    would wait for its own answers to what the unmounting writes.
    """
    target = os.fsencode(device)
    options = f"fd={fuse},rootmode={_FILE:o},user_id=0,group_id=0,allow_other"
    _call("mount", b"write-log-disk", target, b"fuse", ctypes.c_ulong(0), options.encode())
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
    _call("umount2", target, _MNT_DETACH)


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library that says by a number other than 0 that it failed; raises OSError."""
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def _main(image: str, device: str, log: str, faults: str) -> None:
    server = _Server(Path(image), Path(device), Path(log), Path(faults))
    signal.signal(signal.SIGHUP, lambda *_: server.read_faults())
    os.write(1, b"ready\n")
    server.serve()


if __name__ == "__main__":
    _main(*sys.argv[1:])
