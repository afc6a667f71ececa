"""Whose drops are left for later: of users with many that were refused, or with some that had to wait.

Each try of a drop that is not taken makes a line in the ledger, and users leave as many drops as they like.
"""

from collections import Counter

from mailer.mail.clock import Clock
from mailer.spool import drop
from mailer.spool.drop import Kind
from mailer.spool.layout import Spool

_MOST = 20
"""Drops of one user that are refused for good within `_WINDOW`, each with a line in the ledger; then the rest
of theirs wait: the ledger, and the operator's list, are not for any user of the host to fill."""
_WINDOW = 3600.0
_FIRST, _LONGEST = 10.0, 300.0
"""Seconds until a user's drops that had to wait (a rate limit, a full disk) are tried again; they double."""


class Pauses:
    """Until when one program leaves the drops of users alone, since the last ones had to wait."""

    def __init__(self, clock: Clock) -> None:
        """Begin with none."""
        self._clock = clock
        self._until: dict[int, tuple[float, float]] = {}
        """By user id: how long the pause is, and when it began."""

    def waited(self, uid: int) -> None:
        """Pause, longer than the last time."""
        longer = 2 * self._until[uid][0] if uid in self._until else _FIRST
        self._until[uid] = min(longer, _LONGEST), self._clock()

    def went(self, uid: int) -> None:
        """Forget that there was a pause: a drop was taken in, or put by."""
        self._until.pop(uid, None)

    def lasts(self, uid: int) -> bool:
        length, begun = self._until.get(uid, (0.0, 0.0))
        return 0 <= self._clock() - begun < length


class Refusals:
    """The refusals of the last hour, for one program as long as it runs.

    Two counts, of which the larger holds. The files in `drop/` also tell what other programs, and earlier
    runs, have refused; but their user may remove them. This program's own count does not go by the files.
    """

    def __init__(self, clock: Clock) -> None:
        """Begin with none."""
        self._clock = clock
        self._own, self._since = Counter[int](), clock()
        """By this program, within the window that began then."""
        self._files = Counter[int]()
        self.pauses = Pauses(clock)

    def look(self, spool: Spool) -> None:
        """Count the files that were refused within the last hour; raises OSError.

        The rename that refuses a file sets its ctime, which its user can only set to the present. What seems
        to come from the future does not count: else it would for as long as a wrong clock was ahead.
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
        """Count one more."""
        self._own[uid] += 1
        self._files[uid] += 1

    def too_many(self, uid: int) -> bool:
        """Tell that no other drop of this user is to be looked at for now."""
        return max(self._own[uid], self._files[uid]) >= _MOST
