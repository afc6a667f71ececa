"""What a power cut may leave of a spool's directories where a rename can be torn, without a power cut.

There each directory reaches the disk apart, in any of the states that it has had since its last fsync. So a
file has a name for certain only while some directory has named it in all of these. What has once been certain
must stay so until the file is removed.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mailer.spool import syscalls
from mailer.spool.directory import Spool


class Torn:
    """Follows the states of every directory, and which files are certain to have a name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._states = {path: [inodes] for path, inodes in self._look().items()}
        self._not_in_parent: set[Path] = set()
        """Directories that a power cut may take as a whole."""
        self._certain: set[int] = set()
        self._lock = threading.Lock()
        self.lost: list[str] = []
        """The calls after which a power cut could have left a file no name."""
        self.moved = 0
        self._judge("at first")

    def _look(self) -> dict[Path, frozenset[int]]:
        return {
            Path(path): frozenset(os.lstat(f"{path}/{name}").st_ino for name in names)
            for path, _, names in os.walk(self._root)
        }

    def changed(self, call: str) -> None:
        """A name was made or removed."""
        with self._lock:
            self.moved += 1
            now = self._look()
            for path, inodes in now.items():
                if path not in self._states:
                    self._not_in_parent.add(path)
                    self._states[path] = [frozenset()]
                if self._states[path][-1] != inodes:
                    self._states[path].append(inodes)
            for path in self._states.keys() - now.keys():
                del self._states[path]
            self._judge(call)

    def forget(self, path: Path) -> None:
        """What is in a directory now was never synced."""
        self._states[path].insert(0, frozenset())
        self._certain.clear()
        self._judge("at first")

    def synced(self, path: Path) -> None:
        """A directory, or a file, was synced."""
        with self._lock:
            if path in self._states:
                self._states[path] = [self._look().get(path, frozenset())]
                self._not_in_parent -= {child for child in self._not_in_parent if child.parent == path}
                self._judge(f"fsync {path}")

    def _judge(self, call: str) -> None:
        present = frozenset[int]().union(*(states[-1] for states in self._states.values()))
        certain = frozenset[int]().union(
            *(
                states[0].intersection(*states)
                for path, states in self._states.items()
                if path not in self._not_in_parent
            )
        )
        if (self._certain & present) - certain:
            self.lost.append(call)
        self._certain = (self._certain & present) | certain


@contextmanager
def torn_renames(spool: Spool) -> Iterator[Torn]:
    """Have this open spool move mail as where a rename may be torn; watch every call of this process."""
    spool.renames_are_whole = False
    torn = Torn(spool.path)
    real = {name: getattr(os, name) for name in ("link", "unlink", "fsync")}
    renameat2 = syscalls._libc.renameat2

    def naming(name: str) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            result = real[name](*arguments, **keywords)
            torn.changed(f"{name} {arguments}")
            return result

        return call

    def renaming(*arguments: Any) -> int:
        result: int = renameat2(*arguments)
        torn.changed(f"rename {arguments}")
        return result

    def syncing(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        real["fsync"](fd)
        torn.synced(path)

    os.link, os.unlink, os.fsync = naming("link"), naming("unlink"), syncing
    syscalls._libc.renameat2 = renaming
    try:
        yield torn
    finally:
        os.link, os.unlink, os.fsync = real["link"], real["unlink"], real["fsync"]
        syscalls._libc.renameat2 = renameat2
