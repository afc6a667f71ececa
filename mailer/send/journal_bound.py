"""How long the journal of one message may become.

A message to 20,000 recipients of whom none can be reached for five days would write gigabytes: a line for
each, each with a reply of up to 1,500 octets, and one for each server that was tried in vain, sixty times
over. So

1. a reply is cut to what `REPLIES` allows each recipient; the ledger has all of it;
2. of a message to many, those who were deferred again in the same words as before share one line
   (`as-before`);
3. from `SOFT` on, every recipient that was deferred before counts as that, whatever was said, and servers
   that were tried in vain are left to the ledger;
4. from `HARD` on, recipients that would be tried again are given up, and the sender is notified why.

What one attempt can add beyond each mark is bounded by the recipients: at most some 20 MiB.
"""

from collections.abc import Mapping

from mailer.mail.outcome import Outcome, Status
from mailer.spool.journal import Standing

MANY = 50
"""Recipients from which on `as-before` is written: below it, each has its own words."""
REPLIES = 4 * 2**20
SHORTEST_REPLY = 200
"""Octets that a reply is never cut below: the code and the reason."""
SOFT = 8 * 2**20
HARD = 32 * 2**20


class JournalBound:
    """What may still be written about one message."""

    def __init__(self, recipients: int) -> None:
        self._many = recipients >= MANY
        self._reply_limit = max(SHORTEST_REPLY, REPLIES // max(1, recipients))

    def cut(self, reply: str) -> str:
        """Return as much of a reply as the journal keeps."""
        return reply if len(reply) <= self._reply_limit else reply[: self._reply_limit - 1] + "…"

    def as_before(self, outcome: Outcome, known: Standing, length: int) -> bool:
        """Tell whether a recipient's outcome says nothing that the journal does not say already.

        Args:
            outcome: what the attempt came to.
            known: how the recipient stood before.
            length: of the journal, in octets.
        """
        if outcome.status is not Status.DEFERRED or known.status is not Status.DEFERRED:
            return False
        if outcome.unclear and not known.unclear:
            return False
        if length >= SOFT:
            return True
        return self._many and (outcome.hop, self.cut(outcome.reply)) == (known.hop, known.reply)

    @staticmethod
    def leaves_out_trouble(standings: Mapping[str, Standing], to: tuple[str, ...], length: int) -> bool:
        """Tell whether a server that was tried in vain is left to the ledger; not where it ends a doubt."""
        return length >= SOFT and all(standings[address].status is not Status.UNCERTAIN for address in to)

    @staticmethod
    def is_spent(length: int) -> bool:
        """Tell whether nobody may be tried again for want of room."""
        return length >= HARD


SPENT = f"given up early: the journal of this message has reached {HARD // 2**20} MiB"
