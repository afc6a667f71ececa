"""Messages that a run has given up because their files cannot be moved or written.

Taken over again at once, such a message would keep the run busy for ever, and grow by a line each time; and
a second fsync of a file whose first one failed would succeed and lie.
"""

import errno
from collections.abc import Callable

_FIRST, _LONGEST = 60.0, 3600.0
"""Seconds that a message is left, the first time and at most; each time twice as long as the one before."""
_MOST = 20_000
"""Messages that are remembered. With more, nothing is right with the spool."""

_ADVICE = {
    errno.EEXIST: "the same id is there already: look at both, and move one of them out of the spool",
    errno.EACCES: "give the spool and all in it to the user that runs this, with chown -R",
    errno.EPERM: "give the spool and all in it to the user that runs this, with chown -R; see lsattr too",
    errno.ENOENT: "a directory of the spool is missing: mkdir it with mode 0700, or start mailer-send anew",
    errno.ENOTDIR: "something else lies in the place of that directory: move it out of the spool",
    errno.EIO: "the disk fails: see the kernel's log",
}


class GivenUp:
    """The names of messages that this run leaves where they are."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Args: now: a clock that only goes forward, in seconds."""
        self._now = now
        self._until: dict[str, tuple[float, float]] = {}
        """Until when each is left, and how long that was in all."""
        self.for_good = True
        """Nothing is taken up again, as befits a run that ends when its work is done."""

    def __contains__(self, name: object) -> bool:
        if not self._until or name not in self._until:
            return False
        return self.for_good or self._now() < self._until[str(name)][0]

    @property
    def full(self) -> bool:
        """No more of them can be remembered: the run must not go on as if nothing were wrong."""
        return len(self._until) >= _MOST

    def add(self, name: str, error: OSError) -> float:
        """Leave a message from here on; return for how many seconds, if it is taken up again at all."""
        if len(self._until) >= _MOST // 2 and not self.for_good:
            now = self._now()
            self._until = {name: left for name, left in self._until.items() if now < left[0]}
        known = self._until.pop(name, None)
        pause = _FIRST if known is None else min(2 * known[1], _LONGEST)
        if error.errno == errno.EIO:
            pause = _LONGEST
        self._until[name] = self._now() + pause, pause
        return pause

    def again(self, seconds: float) -> str:
        """Say when a message that is left for so long is taken up again."""
        return "by the next run" if self.for_good else f"in {seconds:.0f} seconds"


def what_failed(error: OSError) -> str:
    """Name the system's error and the files that it is about, relative to the spool."""
    files = [str(name) for name in (error.filename, error.filename2) if name]
    return f"{error.strerror or error}: {' -> '.join(files)}" if files else error.strerror or str(error)


def advice(error: OSError) -> str:
    """Say what the operator may do about it."""
    return _ADVICE.get(error.errno or 0, "see the message's journal with mailer spool show")
