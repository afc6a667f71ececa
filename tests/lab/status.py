"""What calls say of files: fstat(2), fstatvfs(3), and the entries of a directory."""

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

from lab.disk import Inode

DEVICE = 0x7FFF01
UID = os.geteuid()


class Stat:
    """What fstat(2) says."""

    __slots__ = (
        "st_ctime",
        "st_dev",
        "st_gid",
        "st_ino",
        "st_mode",
        "st_mtime",
        "st_mtime_ns",
        "st_nlink",
        "st_size",
        "st_uid",
    )

    def __init__(self, node: Inode) -> None:
        self.st_mode = node.mode
        self.st_ino = node.number
        self.st_dev = DEVICE
        self.st_nlink = node.links
        self.st_uid = UID if node.owner < 0 else node.owner
        self.st_gid = UID
        self.st_size = len(node.data)
        self.st_mtime, self.st_ctime = node.mtime, node.ctime
        self.st_mtime_ns = int(node.mtime * 1e9)


class Room(NamedTuple):
    """What fstatvfs(3) says, as far as it is asked."""

    f_blocks: int = 1 << 21
    f_bavail: int = 1 << 20
    f_frsize: int = 4096
    f_favail: int = 1 << 20
    f_files: int = 1 << 21
    f_flag: int = 0


class Entry:
    """One entry of a directory that is read."""

    __slots__ = ("_node", "name")

    def __init__(self, name: str, node: Inode) -> None:
        self.name = name
        self._node = node

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._node.entries is not None

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return stat.S_ISREG(self._node.mode)

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self._node.mode)

    def inode(self) -> int:
        return self._node.number

    def stat(self, *, follow_symlinks: bool = True) -> Stat:
        return Stat(self._node)


class Entries:
    """A directory that is read, as os.scandir gives it; its end is met by whoever reads on."""

    def __init__(self, entries: list[Entry], between: Callable[[], object]) -> None:
        self._entries = iter(entries)
        self._between = between

    def __iter__(self) -> Iterator[Entry]:
        return self

    def __next__(self) -> Entry:
        self._between()
        return next(self._entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass
