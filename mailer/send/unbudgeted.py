"""Which mail has its end without a budget: a runner looks for it while all budgets are used up.

It is older than it may become, its sender does not want it any more, a recipient is on the suppression list,
or it may not leave this host. All other mail stays where it is: to claim it would move a whole backlog into
`retry/`, at the cost of two renames each.
"""

from collections.abc import Iterator
from itertools import islice

from mailer.send.policy import Policy
from mailer.spool.entry import Entry
from mailer.spool.ids import SHARES, arrival, share_of
from mailer.spool.layout import SPOOL_WIDE, Spool, Spot
from mailer.spool.view.inspect import look

_TOGETHER = 100
"""Names between two turns of the event loop: to read so many files takes some hundredths of a second."""
_ALL_OF = 1_000
"""Messages that every look reads. Of those beyond, which may be a million, each look reads one share of
`SHARES`, drawn at random: 5 s of processor for a million. A message is read after 32 looks on average (half
an hour of runs each minute), and within 145 with a probability of 99 %. A share that follows the clock would
repeat itself: runs at every second minute see the even minutes only, and half of the shares never."""


class Unbudgeted:
    """One look at what waits."""

    def __init__(self, spool: Spool, policy: Policy) -> None:
        """Begin a look now."""
        self._spool = spool
        self._policy = policy
        self._now = policy.clock()
        self._believed = policy.trusts_clock()
        self._share = int(policy.random() * SHARES)
        self._read = 0

    def among(self, spots: Iterator[Spot]) -> Iterator[list[Spot]]:
        """Choose from messages, some at a time; a list may be empty.

        Raises:
            OSError: the spool cannot be worked with.
        """
        while some := list(islice(spots, _TOGETHER)):
            yield [spot for spot in some if self._has_its_end(spot)]

    def _has_its_end(self, spot: Spot) -> bool:
        # An id is as old as its message, or older: scheduled and requeued mail counts from later on.
        if not self._is_overdue(arrival(spot.name)):
            self._read += 1
            if self._read > _ALL_OF and share_of(spot.name) != self._share:
                return False
        try:
            seen = look(self._spool, spot)
            return bool(seen and seen.entry and self._ends(seen.entry))
        except OSError as error:
            if error.errno in SPOOL_WIDE:
                raise
            return False  # It cannot be read, or the list cannot: the attempt will tell.

    def _ends(self, entry: Entry) -> bool:
        """Tell whether `Worker` would decide something without trying any route."""
        state, policy = entry.state, self._policy
        due = state.due(self._now, policy.backoff.horizon)
        if state.held or not due:
            return True  # It lies here by hand, or its move was not durable: it goes where it belongs.
        if self._is_overdue(state.since):
            return True
        if self._believed and state.expires is not None and self._now > state.expires:
            return True
        if policy.staging and policy.staging.objection(entry.envelope):
            return True
        if policy.suppressed is None or state.about:
            return False
        return bool(policy.suppressed.outcomes([standing.address for standing in due]))

    def _is_overdue(self, since: float) -> bool:
        return self._believed and self._policy.backoff.overdue(since, self._now)
