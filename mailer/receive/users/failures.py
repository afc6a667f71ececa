"""Failed logins: how long the answer to one is held back, and which distant hosts are turned away.

The right password is never held back: guessing from this host must not lock its own applications out, nor
guessing a user's password that user. So a delay only ever follows a failure.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mailer.mail.reply import printable
from mailer.maillog.events import MailLog
from mailer.receive.peers import source

WINDOW = 600.0
"""Seconds after which a series of failures is forgotten."""
MAX_DELAY = 1.0
MAX_FROM_AFAR = 30
"""Failures of one distant address in a series; then it is turned away until the series is forgotten."""
_FIRST_DELAY = 0.05
_MOST_KEPT = 10_000
_LINES = 10
"""Of one source, each with its name."""
_FOLD = 60.0
"""Seconds that one line stands for after those."""
_MOST_TOLD = 1000
"""Sources; those beyond share their lines."""
_LONGEST_NAME = 100
"""Characters in the log. RFC 4954 lets a client send 9 KB."""


@dataclass(slots=True)
class _Series:
    count: int = 0
    until: float = 0.0


@dataclass(slots=True)
class _Told:
    """What the log was told of one source's failures in a minute."""

    lines: int = 0
    unlisted: int = 0
    peer: str = ""
    user: str = ""


@dataclass(slots=True)
class Failures:
    """Counts by source and by user name, and tells the log."""

    now: Callable[[], float]
    """Monotonic seconds."""
    _series: dict[str, _Series] = field(default_factory=dict)
    _told: dict[str, _Told] = field(default_factory=dict)

    def note(self, peer: str, user: str) -> float:
        """Count one; return for how many seconds to hold its answer back."""
        count = max(self._add(f"peer {source(peer)}"), self._add(f"user {user[:255]}"))
        return min(MAX_DELAY, _FIRST_DELAY * 2.0 ** min(count - 1, 10))

    def tell(self, log: MailLog, peer: str, user: str) -> None:
        """Log one; of those of a source that go on for more than a few lines, one line a minute.

        What strangers send must not fill the disk: names are cut, too.
        """
        name, key = printable(user, _LONGEST_NAME), source(peer)
        if key not in self._told and len(self._told) >= _MOST_TOLD:
            key = ""
        told = self._told.get(key)
        if told is None:
            told = self._told[key] = _Told()
            asyncio.get_running_loop().call_later(_FOLD, self._tell_rest, log, key)
        if told.lines < _LINES:
            told.lines += 1
            log.login_failed(peer=peer, user=name)
        else:
            told.unlisted += 1
            told.peer, told.user = peer, name

    def close(self, log: MailLog) -> None:
        """Log what has not been told yet."""
        for key in tuple(self._told):
            self._tell_rest(log, key)

    def _tell_rest(self, log: MailLog, key: str) -> None:
        told = self._told.pop(key, None)
        if told is not None and told.unlisted:
            log.login_failed(peer=told.peer, user=told.user, more=told.unlisted - 1)

    def turned_away(self, peer: str, *, local: bool) -> bool:
        """Tell whether this source has guessed too often; never one on this host."""
        series = self._series.get(f"peer {source(peer)}")
        return (
            not local and series is not None and series.count >= MAX_FROM_AFAR and series.until > self.now()
        )

    def _add(self, key: str) -> int:
        now = self.now()
        if len(self._series) >= _MOST_KEPT:
            self._series = {key: series for key, series in self._series.items() if series.until > now}
        if len(self._series) >= _MOST_KEPT:
            self._series.clear()
        series = self._series.setdefault(key, _Series())
        if series.until <= now:
            series.count = 0
        series.count += 1
        series.until = now + WINDOW
        return series.count
