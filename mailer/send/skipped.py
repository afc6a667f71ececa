"""Messages that a run skips because their files cannot be moved or written.

If it were claimed again immediately, such a message would keep the run busy for ever and grow by a line each
time. Also, after a failed fsync a second one of the same file would succeed although data was lost.
"""

import errno
from collections.abc import Callable

from mailer.mail.duration import duration

_FIRST_PAUSE, _MAX_PAUSE = 60.0, 3600.0
"""Seconds that a message is skipped: the first time, and the most; each time doubles the last."""
_MAX_NAMES = 20_000
"""The most messages to remember. If there are more, the whole spool is considered broken."""

_ADVICE = {
    errno.EEXIST: "a file with that id is there already: compare the two, and move one out of the spool",
    errno.EACCES: "give the spool and all files in it to the user that runs mailer-send, with chown -R",
    errno.EPERM: "give the spool and all files in it to the user that runs mailer-send, with chown -R;"
    " if that is refused, see lsattr",
    errno.ENOENT: "a directory of the spool is missing: create it with mode 0700, or restart mailer-send",
    errno.ENOTDIR: "a file is in the place of that directory: move it out of the spool",
    errno.EIO: "the disk fails: see the kernel's log",
}


class Skipped:
    """The names of messages that this run skips."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Prepare; `now` is a monotonic clock, in seconds."""
        self._now = now
        self._until: dict[str, tuple[float, float]] = {}
        """By name, until when the message is skipped, and the length of that pause in seconds."""
        self.for_good = True
        """Whether messages are skipped until the run ends, as in a run that ends when its work is done."""

    def __contains__(self, name: object) -> bool:
        if not self._until or name not in self._until:
            return False
        return self.for_good or self._now() < self._until[str(name)][0]

    @property
    def full(self) -> bool:
        """Whether no more names can be remembered, so that the run must stop."""
        return len(self._until) >= _MAX_NAMES

    def add(self, name: str, error: OSError) -> float:
        """Skip a message from now on; return for how many seconds, unless `for_good` is set."""
        if len(self._until) >= _MAX_NAMES // 2 and not self.for_good:
            now = self._now()
            self._until = {name: left for name, left in self._until.items() if now < left[0]}
        known = self._until.pop(name, None)
        pause = _FIRST_PAUSE if known is None else min(2 * known[1], _MAX_PAUSE)
        if error.errno == errno.EIO:
            pause = _MAX_PAUSE
        self._until[name] = self._now() + pause, pause
        return pause

    def again(self, seconds: float) -> str:
        """Return words for when a message that is skipped for some seconds is tried again."""
        return "by the next run" if self.for_good else f"in {duration(seconds)}"


def what_failed(error: OSError) -> str:
    """Return the system's error message and the files that it is about, relative to the spool."""
    files = [str(name) for name in (error.filename, error.filename2) if name]
    return f"{error.strerror or error}: {' -> '.join(files)}" if files else error.strerror or str(error)


def advice(error: OSError) -> str:
    """Return what the operator can do about an error."""
    return _ADVICE.get(error.errno or 0, "see the message's journal with mailer spool show ID")
