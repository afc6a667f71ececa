"""Find mail that can be settled without a budget, while all budgets are used up.

Such mail has exceeded its maximum age, has passed its Latest-Delivery-Time, has a recipient on the
suppression list, or may not leave this host. All other mail stays where it is: to claim it would move a whole
backlog into `retry/`, at the cost of two renames for each message.
"""

from collections.abc import Iterator
from itertools import islice

from mailer.send.context import RunContext
from mailer.spool.directory import SPOOL_WIDE, Spool
from mailer.spool.entry import Entry
from mailer.spool.ids import SHARES, arrival, share_of
from mailer.spool.layout import Spot
from mailer.spool.view.inspect import look

_BATCH = 100
"""Names to look at between two turns of the event loop; to read 100 files takes some 10 ms."""
_ALL_OF = 1_000
"""Messages that every scan reads. Of the rest, which may be a million, each scan reads one share of `SHARES`,
drawn at random: 5 s of processor time for a million. A message is read after 32 scans on average (half an
hour of runs each minute), and within 145 with a probability of 99 %. A share chosen by the clock would repeat
itself: runs at every second minute see only even minutes, and would never reach half of the shares."""


class Unbudgeted:
    """One scan of the waiting messages."""

    def __init__(self, spool: Spool, context: RunContext) -> None:
        """Begin a scan now."""
        self._spool = spool
        self._context = context
        self._now = context.clock()
        self._believed = context.trusts_clock()
        self._share = int(context.random() * SHARES)
        self._read = 0

    def among(self, spots: Iterator[Spot]) -> Iterator[list[Spot]]:
        """Yield the chosen messages in lists, one for each batch of names read; a list may be empty.

        Raises:
            OSError: the spool cannot be read.
        """
        while some := list(islice(spots, _BATCH)):
            yield [spot for spot in some if self._has_its_end(spot)]

    def _has_its_end(self, spot: Spot) -> bool:
        # The id's time is the message's age or earlier: the age of scheduled and requeued mail starts later.
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
            return False  # The message or the suppression list cannot be read; the attempt will report it.

    def _ends(self, entry: Entry) -> bool:
        """Tell whether `Worker` would settle the message without trying any route."""
        state, context = entry.state, self._context
        due = state.due(self._now, context.backoff.horizon)
        if state.held or not due:
            return True  # Moved here by hand, or its move was lost: `Settler` moves it where it belongs.
        if self._is_overdue(state.since):
            return True
        if self._believed and state.expires is not None and self._now > state.expires:
            return True
        if context.staging and context.staging.objection(entry.envelope):
            return True
        if context.suppressed is None or state.about:
            return False
        return bool(context.suppressed.outcomes([standing.address for standing in due]))

    def _is_overdue(self, since: float) -> bool:
        return self._believed and self._context.backoff.overdue(since, self._now)
