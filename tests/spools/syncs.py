"""What this process has synced, in order; and what it could not."""

import errno
import os
from pathlib import Path

import pytest


class Fsyncs:
    """Counts fsyncs by the path behind the descriptor, and fails those it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        self.failing: set[str] = set()
        self._real = {name: getattr(os, name) for name in ("fsync", "fdatasync")}
        for name in self._real:
            monkeypatch.setattr(os, name, self._wrap(name))

    def _wrap(self, name: str) -> object:
        def sync(fd: int) -> None:
            path = str(Path(f"/proc/self/fd/{fd}").readlink()).partition("/spool/")[2]
            self.paths.append(path)
            if path in self.failing:
                raise OSError(errno.EIO, "Input/output error")
            self._real[name](fd)

        return sync
