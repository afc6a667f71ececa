"""System calls on a disk in memory, for several programs: descriptors, flock, paths, errors."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from lab.disk import Disk, Inode, Write, trouble
from lab.status import Entries, Entry, Room, Stat

FIRST = 1_000_000
"""Descriptors from here on are ours; smaller ones are the real system's."""
ROOT = "/lab"
"""Paths from here on are ours."""
_WRITABLE = os.O_WRONLY | os.O_RDWR


class Open:
    """An open file description: what dup(2) shares, and flock(2) belongs to."""

    __slots__ = ("heard", "node", "references")

    def __init__(self, node: Inode) -> None:
        self.node = node
        self.heard = node.errors
        """The errors of its file that it was told of, or that were before it."""
        self.references = 1


class Channel(Inode):
    """A pipe: what was written to it, and is not read yet."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        super().__init__(0, stat.S_IFIFO | 0o600, directory=False)
        self.ended = False
        """One of its two ends was closed."""


class Kernel:
    """The files of all programs. `enter` is called at each call: to be stopped, failed, or passed by."""

    next_number = FIRST
    """Of no two kernels alike: what is left of a dead program may close a descriptor late."""

    def __init__(self, disk: Disk, enter: Callable[..., str], clock: Callable[[], float]) -> None:
        self.disk = disk
        self._enter = enter
        self._clock = clock
        self._files: dict[int, Open] = {}
        self._owners: dict[int, object] = {}
        self._gone: set[int] = set()
        self._first = Kernel.next_number
        self.owner: object = None
        """The program that runs."""
        self._refused: set[tuple[object, Inode]] = set()
        self.on_refusal: Callable[..., None] = lambda _node, *, again: None
        """Called when the disk refuses to sync a file, and when a program that was told so tries `again`."""
        self.block: Callable[[], None] = lambda: None
        """Called while a program waits for a lock: others go on."""
        self.renamed_by: object = None
        """The program that last gave a file another name."""
        self.user = -1
        """Its user id; -1: ours."""

    # Descriptors.

    def _file(self, fd: int) -> Open:
        try:
            return self._files[fd]
        except KeyError:
            raise trouble(errno.EBADF) from None

    def _number(self, file: Open) -> int:
        fd, Kernel.next_number = Kernel.next_number, Kernel.next_number + 1
        self._files[fd] = file
        self._owners[fd] = self.owner
        return fd

    def _drop(self, fd: int) -> None:
        file = self._files.pop(fd)
        del self._owners[fd]
        file.references -= 1
        if not file.references and file.node.lock is file:
            file.node.lock = None
        if not file.references and isinstance(file.node, Channel):
            file.node.ended = True

    def end(self, owner: object) -> None:
        """A program has ended, one way or another: its descriptors and locks go."""
        for fd in [fd for fd, of in self._owners.items() if of is owner]:
            self._drop(fd)
            self._gone.add(fd)

    def open_files(self, owner: object) -> int:
        return sum(1 for of in self._owners.values() if of is owner)

    # Paths.

    def _resolve(self, path: Any, dir_fd: int | None) -> tuple[Inode, str, Inode | None]:
        """Return the parent, the last name, and what is called that."""
        text = os.fspath(path)
        if isinstance(text, bytes):
            text = os.fsdecode(text)
        if text.startswith("/proc/self/fd/"):
            node = self._file(int(text[14:])).node
            return node, "", node
        if text.startswith("/"):
            node = self.disk.inodes[1]
            text = text[len(ROOT) :]
        else:
            assert dir_fd is not None
            node = self._file(dir_fd).node
        parts = _parts(text)
        if not parts:
            return node, "", node
        inodes = self.disk.inodes
        for part in parts[:-1]:
            if node.entries is None:
                raise trouble(errno.ENOTDIR, text)
            number = node.entries.get(part)
            if number is None:
                raise trouble(errno.ENOENT, text)
            node = inodes[number]
        if node.entries is None:
            raise trouble(errno.ENOTDIR, text)
        number = node.entries.get(parts[-1])
        return node, parts[-1], None if number is None else inodes[number]

    # Calls.

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        self._enter("open" if not flags & os.O_CREAT else "creat", None, path)
        parent, name, node = self._resolve(path, dir_fd)
        if node is None:
            if not flags & os.O_CREAT or not parent.links:
                raise trouble(errno.ENOENT, str(path))
            node = self.disk.make(parent, name, mode & 0o7777, owner=self.user)
            node.mtime = node.ctime = parent.ctime = parent.mtime = self._clock()
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise trouble(errno.EEXIST, str(path))
        if stat.S_ISLNK(node.mode):
            if flags & os.O_NOFOLLOW:
                raise trouble(errno.ELOOP, str(path))
            return self.open(node.data.decode(), flags, mode)
        if node.entries is None and flags & os.O_DIRECTORY:
            raise trouble(errno.ENOTDIR, str(path))
        if node.entries is not None and flags & _WRITABLE:
            raise trouble(errno.EISDIR, str(path))
        if flags & os.O_TRUNC and node.data:
            self.disk.change_data(node, Write(0, None))
        return self._number(Open(node))

    def close(self, fd: int) -> None:
        if fd < self._first or fd in self._gone:
            return  # Python tidies up after a program that is dead.
        self._file(fd)
        self._enter("close", None)
        self._drop(fd)

    def closerange(self, low: int, high: int) -> None:
        self._enter("close_range", None)
        for fd in [fd for fd in range(low, high) if self._owners.get(fd) is self.owner]:
            self._drop(fd)

    def dup(self, fd: int) -> int:
        file = self._file(fd)
        self._enter("dup", None)
        file.references += 1
        return self._number(file)

    def pipe(self, reader: object, writer: object) -> tuple[int, int]:
        """Make a pipe between two programs; return the descriptor of each."""
        channel = Channel()
        ends = self._number(Open(channel)), self._number(Open(channel))
        self._owners[ends[0]], self._owners[ends[1]] = reader, writer
        return ends

    def read(self, fd: int, length: int) -> bytes:
        node = self._file(fd).node
        if not isinstance(node, Channel):
            raise trouble(errno.ENOSYS)
        self._enter("read", None)
        while not node.data and not node.ended:
            self.block()
        piece, node.data = node.data[:length], node.data[length:]
        return piece

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        node = self._file(fd).node
        how = self._enter("pread", node)
        data = node.data[offset : offset + length]
        return data[: max(1, len(data) // 2)] if how == "short" else data

    def write(self, fd: int, data: Any) -> int:
        file = self._file(fd)
        how = self._enter("write", file.node)
        octets = bytes(data)
        if how == "short":
            octets = octets[: max(1, len(octets) // 2)]
        if isinstance(file.node, Channel):
            if file.node.ended:
                raise trouble(errno.EPIPE)
            file.node.data += octets
            return len(octets)
        file.node.mtime = file.node.ctime = self._clock()
        try:
            # What is opened without O_APPEND is written from its beginning on, its length put in by pwrite.
            return self.disk.write(file.node, len(file.node.data), octets)
        except OSError as error:
            if error.errno == errno.EROFS:
                self.on_refusal(file.node, again=False)
            raise

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        file = self._file(fd)
        how = self._enter("pwrite", file.node)
        octets = bytes(data)
        if how == "short":
            octets = octets[: max(1, len(octets) // 2)]
        file.node.mtime = file.node.ctime = self._clock()
        return self.disk.write(file.node, offset, octets)

    def ftruncate(self, fd: int, length: int) -> None:
        node = self._file(fd).node
        self._enter("ftruncate", node)
        self.disk.change_data(node, Write(length, None))

    def fdatasync(self, fd: int) -> None:
        self._sync(fd, "fdatasync")

    def fsync(self, fd: int) -> None:
        self._sync(fd, "fsync")

    def _sync(self, fd: int, name: str) -> None:
        file = self._file(fd)
        node = file.node
        try:
            self._enter(name, node)
        except OSError:
            self.disk.lose(node)
            file.heard = node.errors
            self.on_refusal(node, again=False)
            self._refused.add((self.owner, node))
            raise
        if (self.owner, node) in self._refused and node.entries is None:
            self.on_refusal(node, again=True)
        if file.heard != node.errors:
            file.heard = node.errors
            raise trouble(errno.EIO)
        self.disk.sync(node)

    def fstat(self, fd: int) -> Stat:
        node = self._file(fd).node
        self._enter("fstat", node)
        return Stat(node)

    def stat(self, path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> Stat:
        if isinstance(path, int):
            return self.fstat(path)
        self._enter("stat", None, path)
        _, _, node = self._resolve(path, dir_fd)
        if node is None:
            raise trouble(errno.ENOENT, str(path))
        if follow_symlinks and stat.S_ISLNK(node.mode):
            return self.stat(node.data.decode())
        return Stat(node)

    def fchmod(self, fd: int, mode: int) -> None:
        node = self._file(fd).node
        self._enter("fchmod", node)
        node.mode = node.mode & ~0o7777 | mode

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._enter("mkdir", None, path)
        parent, name, node = self._resolve(path, dir_fd)
        if node is not None:
            raise trouble(errno.EEXIST, str(path))
        made = self.disk.make(parent, name, mode, directory=True)
        made.mtime = made.ctime = self._clock()

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._enter("rmdir", None, path)
        parent, name, node = self._resolve(path, dir_fd)
        if node is None:
            raise trouble(errno.ENOENT, str(path))
        if node.entries is None:
            raise trouble(errno.ENOTDIR, str(path))
        if node.entries:
            raise trouble(errno.ENOTEMPTY, str(path))
        self.disk.unlink(parent, name)
        node.links = 0

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._enter("unlink", None, path)
        parent, name, node = self._resolve(path, dir_fd)
        if node is None:
            raise trouble(errno.ENOENT, str(path))
        if node.entries is not None:
            raise trouble(errno.EISDIR, str(path))
        self.disk.unlink(parent, name)
        parent.ctime = parent.mtime = node.ctime = self._clock()

    def link(
        self,
        source: Any,
        target: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        self._enter("link", None, source, target)
        _, _, node = self._resolve(source, src_dir_fd)
        parent, name, there = self._resolve(target, dst_dir_fd)
        if node is None:
            raise trouble(errno.ENOENT, str(source))
        if there is not None:
            raise trouble(errno.EEXIST, str(target))
        self.renamed_by = self.owner
        self.disk.link(node, parent, name)
        parent.ctime = parent.mtime = node.ctime = self._clock()

    def rename(
        self, source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        self._rename(source, src_dir_fd, target, dst_dir_fd, replace=True)

    def rename_exclusive(self, source: Any, src_dir_fd: int, target: Any, dst_dir_fd: int) -> None:
        self._rename(source, src_dir_fd, target, dst_dir_fd, replace=False)

    def _rename(
        self, source: Any, src_dir_fd: int | None, target: Any, dst_dir_fd: int | None, *, replace: bool
    ) -> None:
        self._enter("rename", None, source, target)
        old, old_name, node = self._resolve(source, src_dir_fd)
        new, new_name, there = self._resolve(target, dst_dir_fd)
        if node is None:
            raise trouble(errno.ENOENT, str(source))
        if there is not None and not replace:
            raise trouble(errno.EEXIST, str(target))
        if there is node:
            return
        if self.disk.full and there is None and old is not new:
            raise trouble(errno.ENOSPC, str(target))
        self.renamed_by = self.owner
        self.disk.rename(old, old_name, new, new_name)
        old.ctime = old.mtime = new.ctime = new.mtime = node.ctime = self._clock()

    def scandir(self, path: Any = ".") -> Entries:
        self._enter("getdents", None)
        node = self._file(path).node if isinstance(path, int) else self._resolve(path, None)[2]
        if node is None:
            raise trouble(errno.ENOENT, str(path))
        if node.entries is None:
            raise trouble(errno.ENOTDIR, str(path))
        inodes = self.disk.inodes
        return Entries(
            [Entry(name, inodes[n]) for name, n in node.entries.items()],
            lambda: self._enter("getdents", None),
        )

    def fstatvfs(self, fd: int) -> Room:
        self._file(fd)
        return Room()

    def removexattr(self, fd: int, name: str) -> None:
        self._file(fd)
        self._enter("removexattr", None)
        raise trouble(errno.EROFS if self.disk.aborted else errno.ENODATA)

    def utime(self, fd: int, times: tuple[float, float]) -> None:
        node = self._file(fd).node
        self._enter("utimensat", node)
        node.mtime = times[1]

    def flock(self, fd: int, operation: int) -> None:
        file = self._file(fd)
        self._enter("flock", None)
        if operation & fcntl.LOCK_UN:
            if file.node.lock is file:
                file.node.lock = None
            return
        while file.node.lock not in {None, file}:
            if operation & fcntl.LOCK_NB:
                raise trouble(errno.EWOULDBLOCK)
            self.block()
        file.node.lock = file

    # Those that Python lacks.

    def fallocate(self, fd: int, offset: int, length: int) -> None:
        node = self._file(fd).node
        self._enter("fallocate", node)
        self.disk.reserve(node, offset + length)

    def syncfs(self) -> None:
        self._enter("syncfs", None)
        self.disk.sync_all()

    def content(self, fd: int) -> bytes:
        node = self._file(fd).node
        self._enter("read", node)
        return node.data


@lru_cache(4096)
def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part and part != ".")
