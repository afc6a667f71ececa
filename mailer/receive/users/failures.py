"""Counts failed logins, to delay the replies to them and to refuse remote hosts that fail too often.

A right password is never delayed: guessing from this host must not lock out its own applications, nor must
guessing a user's password lock out that user. So only the reply to a failed login is delayed.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mailer.mail.reply import printable
from mailer.maillog.events import MailLog
from mailer.receive.line_limit import LineLimit
from mailer.receive.peers import source

WINDOW = 600.0
"""Seconds after which a series of failures is forgotten."""
MAX_DELAY = 1.0
"""Seconds of the longest delay."""
MAX_REMOTE_FAILURES = 30
"""Failures of one remote address in a series after which it is refused until the series is forgotten."""
_FIRST_DELAY = 0.05
"""Seconds of the delay after the first failure; it doubles with each."""
_MAX_SERIES = 10_000
"""Series in memory."""
_MAX_LINES = 10
"""Log lines for one source within `_SUMMARY_INTERVAL`, each with a user name; then failures are counted."""
_SUMMARY_INTERVAL = 60.0
"""Seconds that each summary line covers."""
_MAX_SOURCES = 1000
"""Sources that are logged separately; the others share their lines."""
_MAX_NAME = 100
"""Characters of a user name in the log. RFC 4954 lets a client send 9 KB."""


@dataclass(slots=True)
class _Series:
    count: int = 0
    until: float = 0.0


@dataclass(slots=True)
class _LogWindow:
    """What was logged of one source's failures since the first of them, within `_SUMMARY_INTERVAL`."""

    lines: int = 0
    unlisted: int = 0
    peer: str = ""
    user: str = ""


@dataclass(slots=True)
class Failures:
    """Counts failures by source and by user name, and logs them."""

    now: Callable[[], float]
    """Monotonic seconds."""
    _series: dict[str, _Series] = field(default_factory=dict)
    _told: dict[str, _LogWindow] = field(default_factory=dict)
    refusals: LineLimit = field(init=False)
    """Limits the lines about commands that are refused before a login."""

    def __post_init__(self) -> None:
        self.refusals = LineLimit(self.now)

    def count(self, peer: str, user: str) -> float:
        """Count a failure; return the seconds to delay the reply to it."""
        count = max(self._add(f"peer {source(peer)}"), self._add(f"user {user[:255]}"))
        return min(MAX_DELAY, _FIRST_DELAY * 2.0 ** min(count - 1, 10))

    def log(self, log: MailLog, peer: str, user: str) -> None:
        """Log a failure, or only count it if its source has had many in this minute.

        Clients without a login must not be able to fill the disk; so names are truncated, too.
        """
        name, key = printable(user, _MAX_NAME), source(peer)
        if key not in self._told and len(self._told) >= _MAX_SOURCES:
            key = ""
        told = self._told.get(key)
        if told is None:
            told = self._told[key] = _LogWindow()
            asyncio.get_running_loop().call_later(_SUMMARY_INTERVAL, self._tell_rest, log, key)
        if told.lines < _MAX_LINES:
            told.lines += 1
            log.login_failed(peer=peer, user=name)
        else:
            told.unlisted += 1
            told.peer, told.user = peer, name

    def close(self, log: MailLog) -> None:
        """Log the failures that have only been counted so far."""
        for key in tuple(self._told):
            self._tell_rest(log, key)

    def _tell_rest(self, log: MailLog, key: str) -> None:
        told = self._told.pop(key, None)
        if told is not None and told.unlisted:
            log.login_failed(peer=told.peer, user=told.user, more=told.unlisted - 1)

    def is_blocked(self, peer: str, *, local: bool) -> bool:
        """Return whether a source is refused because of too many failures; one on this host never is."""
        series = self._series.get(f"peer {source(peer)}")
        return (
            not local
            and series is not None
            and series.count >= MAX_REMOTE_FAILURES
            and series.until > self.now()
        )

    def _add(self, key: str) -> int:
        now = self.now()
        if len(self._series) >= _MAX_SERIES:
            self._series = {key: series for key, series in self._series.items() if series.until > now}
        if len(self._series) >= _MAX_SERIES:
            self._series.clear()
        series = self._series.setdefault(key, _Series())
        if series.until <= now:
            series.count = 0
        series.count += 1
        series.until = now + WINDOW
        return series.count
