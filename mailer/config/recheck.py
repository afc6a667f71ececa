"""Judge the configuration file as it is now: the next start and each run of cron read it."""

import os
from pathlib import Path

from mailer.config.load import load
from mailer.config.problem import ConfigError


class Recheck:
    """Checks a configuration file again when it has changed."""

    def __init__(self, path: Path) -> None:
        """Args: path: the file, which a program has read."""
        self._path = path
        # A program that has been root since may have read a file that is closed to it now.
        self._may_read = os.access(path, os.R_OK)
        self._seen: tuple[int, ...] | None = None
        self._trouble = ""

    def trouble(self) -> str:
        """Return why the file could not be used now; empty if it could, as far as the file itself says.

        Secrets, and files that the configuration names, are not read.
        """
        if not self._may_read:
            return ""
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError as error:
            return f"{self._path}: {error.strerror}"
        if seen != self._seen:
            self._trouble = self._judged()
            self._seen = seen
        return self._trouble

    def _judged(self) -> str:
        try:
            load(self._path, os.environ)
        except ConfigError as error:
            first, *more = error.problems
            return f"{first}, and {len(more)} more" if more else str(first)
        return ""
