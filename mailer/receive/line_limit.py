"""Limits the log lines that clients without a login can cause: they must not fill a disk, nor hide others."""

from collections.abc import Callable

from mailer.maillog.events import MailLog
from mailer.receive.peers import source

MAX_LINES = 10
"""Log lines for one source within `_WINDOW`."""
_WINDOW = 60.0
"""Seconds."""
_MAX_SOURCES = 1000
"""Sources that are counted separately; the others share their lines."""


class LineLimit:
    """Counts log lines by source, in windows of time that begin together."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Args: now: monotonic seconds."""
        self._now = now
        self._lines: dict[str, int] = {}
        self._until = float("-inf")

    def allows(self, log: MailLog, peer: str) -> bool:
        """Return whether to log another refusal of a peer; log it when that is no longer so."""
        now = self._now()
        if now >= self._until:
            self._lines.clear()
            self._until = now + _WINDOW
        key = source(peer)
        if key not in self._lines and len(self._lines) >= _MAX_SOURCES:
            key = ""
        count = self._lines[key] = self._lines.get(key, 0) + 1
        if count == MAX_LINES + 1:
            log.notice("more refusals of this client are not logged in this minute", peer=peer)
        return count <= MAX_LINES
