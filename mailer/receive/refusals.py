"""How many drops of each user were refused for good lately, by this program and by all others."""

from collections import Counter

from mailer.mail.clock import Clock
from mailer.spool import drop
from mailer.spool.drop import Kind
from mailer.spool.layout import Spool

_MOST = 20
"""Drops of one user that are refused for good within `_WINDOW`, each with a line in the ledger; then the rest
of theirs wait: the ledger, and the operator's list, are not for any user of the host to fill."""
_WINDOW = 3600.0


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
