"""Limits on the drops of one user: a rate limit for refusals, and a backoff after a drop had to wait.

Each failed attempt to take in a drop writes a line to the ledger, and users can leave any number of drops.
"""

from collections import Counter

from mailer.mail.clock import Clock
from mailer.spool import drop
from mailer.spool.directory import Spool
from mailer.spool.drop import Kind

_MAX_REFUSALS = 20
"""Permanent refusals of one user's drops within `_WINDOW`. After those, the user's other drops wait, so that
no local user can flood the ledger and the operator's list of refused drops."""
_WINDOW = 3600.0
"""Seconds."""
_FIRST_PAUSE, _MAX_PAUSE = 10.0, 300.0
"""Seconds until a user's drops are tried again after one had to wait (a rate limit, a full disk): the first
delay, which doubles each time, and the longest."""


class Pauses:
    """The backoff of each user whose last drops had to wait; in memory, for one program."""

    def __init__(self, clock: Clock) -> None:
        """Begin without pauses."""
        self._clock = clock
        self._until: dict[int, tuple[float, float]] = {}
        """By user id: the length of the pause in seconds, and when it began."""

    def waited(self, uid: int) -> None:
        """Begin a pause, twice as long as the last one."""
        longer = 2 * self._until[uid][0] if uid in self._until else _FIRST_PAUSE
        self._until[uid] = min(longer, _MAX_PAUSE), self._clock()

    def went(self, uid: int) -> None:
        """Reset the backoff, because a drop was taken in or refused permanently."""
        self._until.pop(uid, None)

    def lasts(self, uid: int) -> bool:
        length, begun = self._until.get(uid, (0.0, 0.0))
        return 0 <= self._clock() - begun < length


class Refusals:
    """Counts the refusals of the last hour by user, for one program while it runs.

    There are two counts, and the larger applies. The refused files in `drop/` include refusals by other
    programs and earlier runs, but their user can remove them. The count in memory does not depend on files.
    """

    def __init__(self, clock: Clock) -> None:
        """Begin without refusals."""
        self._clock = clock
        self._own, self._since = Counter[int](), clock()
        """Refusals by this program, and when the window that they are counted in began."""
        self._files = Counter[int]()
        """Refused files in `drop/`."""
        self.pauses = Pauses(clock)

    def look(self, spool: Spool) -> None:
        """Count the files that were refused within the last hour; raises OSError.

        The rename that refuses a file sets its ctime, which its user can only set to the present. A ctime in
        the future does not count; it would otherwise count for as long as a wrong clock had been ahead.
        """
        now = self._clock()
        if not 0 <= now - self._since < _WINDOW:
            self._own, self._since = Counter(), now
        self._files = Counter(
            one.uid
            for one in drop.entries(spool)
            if one.kind is Kind.REFUSED and 0 <= now - one.since < _WINDOW
        )

    def add(self, uid: int) -> None:
        """Count one refusal."""
        self._own[uid] += 1
        self._files[uid] += 1

    def too_many(self, uid: int) -> bool:
        """Return whether the user has reached the limit, so that the user's other drops must wait."""
        return max(self._own[uid], self._files[uid]) >= _MAX_REFUSALS
