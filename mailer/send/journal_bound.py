"""Bound the length of one message's journal.

A message to 20,000 recipients, none of which can be reached for five days, would write gigabytes: sixty times
a line for each recipient, with a reply of up to 1,500 octets, and a line for each server that failed. So

1. a reply is cut to each recipient's share of `REPLIES`; the ledger has the whole reply;
2. in a message to many, recipients that were deferred again with the same reply share one line (`as-before`);
3. from `SOFT` on, every recipient that is deferred again is in that line, whatever the reply, and failed
   servers are recorded only in the ledger;
4. from `HARD` on, recipients that would be tried again are given up, and the notification says why.

What one attempt can add beyond each mark is bounded by the number of recipients: at most some 20 MiB.
"""

from collections.abc import Mapping

from mailer.mail.outcome import Outcome, Status
from mailer.spool.message_state import Standing

MANY = 50
"""The least number of recipients for which `as-before` is written; with fewer, each has its own line."""
REPLIES = 4 * 2**20
"""Octets that the replies of one attempt may take, shared by all recipients."""
SHORTEST_REPLY = 200
"""Octets of a reply that are always kept: enough for the code and the reason."""
SOFT = 8 * 2**20
"""Octets of a journal from which on repeated deferrals are shortened."""
HARD = 32 * 2**20
"""Octets of a journal from which on no recipient is tried again."""


class JournalBound:
    """The limits of one message's journal."""

    def __init__(self, recipients: int) -> None:
        self._many = recipients >= MANY
        self._reply_limit = max(SHORTEST_REPLY, REPLIES // max(1, recipients))

    def cut(self, reply: str) -> str:
        """Return a reply, cut to the length that the journal keeps."""
        return reply if len(reply) <= self._reply_limit else reply[: self._reply_limit - 1] + "…"

    def as_before(self, outcome: Outcome, known: Standing, length: int) -> bool:
        """Tell whether a recipient's outcome says nothing that the journal does not say already.

        Args:
            outcome: the outcome of this attempt.
            known: the recipient's state before.
            length: the length of the journal, in octets.
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
        """Tell whether a failed server is recorded only in the ledger; never if a recipient is uncertain."""
        return length >= SOFT and all(standings[address].status is not Status.UNCERTAIN for address in to)

    @staticmethod
    def is_spent(length: int) -> bool:
        """Tell whether the journal is so long that no recipient may be tried again."""
        return length >= HARD


SPENT = f"given up early: the journal of this message has reached {HARD // 2**20} MiB"
