"""The lines of outcomes in a message's journal, and the bounds of its length.

A message to 20,000 recipients, none of which can be reached for five days, would write gigabytes: sixty times
a line for each recipient, with a reply of up to 1,500 octets, and a line for each server that failed. So

1. a reply is cut to each recipient's share of `REPLIES`; the ledger has the whole reply;
2. in a message to many, recipients that were deferred again with the same reply share one line (`as-before`);
3. from `SOFT` on, every recipient that is deferred again is in that line, whatever the reply, and failed
   servers are recorded only in the ledger;
4. from `HARD` on, recipients that would be tried again are given up, and the notification says why.

What one attempt can add beyond each mark is bounded by the number of recipients: at most some 20 MiB.
"""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from mailer.mail import clock
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Status
from mailer.mail.reply import printable
from mailer.spool.journal import OVERDUE, Event, Kind
from mailer.spool.message_state import Standing

TRIED_AGAIN = {Status.DEFERRED, Status.UNCERTAIN}
_KINDS = {
    Status.SENT: Kind.SENT,
    Status.DEFERRED: Kind.DEFERRED,
    Status.BOUNCED: Kind.BOUNCED,
    Status.EXPIRED: Kind.EXPIRED,
    Status.UNCERTAIN: Kind.UNCERTAIN,
}
_SENT = Status.SENT  # As a global, since Python 3.11 takes 15 times as long to look up a member.

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
_MAX_REPLY = 1000
_MAX_TLS = 250
"""Characters, all printable. Each takes at most four octets in the journal, or two if JSON escapes it."""
_ROOM_FOR_LINE = 4 * (_MAX_REPLY + _MAX_TLS) + 512
"""Journal octets to reserve before the final dot for each line of the outcome, in addition to its hop and its
addresses. The rest of a line, which is names, times and numbers, takes less than 300."""


class JournalBound:
    """The limits of one message's journal."""

    def __init__(self, recipients: int) -> None:
        self._many = recipients >= MANY
        self._reply_limit = max(SHORTEST_REPLY, REPLIES // max(1, recipients))

    def cut(self, reply: str) -> str:
        """Return a reply, cut to the length that the journal keeps."""
        return reply if len(reply) <= self._reply_limit else reply[: self._reply_limit - 1] + "…"

    def event(
        self, outcome: Outcome, to: list[str], now: float, attempt: int, following: str, *, overdue: bool
    ) -> Event:
        """Return the line for recipients with equal outcomes.

        Args:
            outcome: of all of them.
            to: their addresses.
            now: seconds since the epoch.
            attempt: the number of the attempt.
            following: when those that are to be tried again will be.
            overdue: whether the message is too old, in case it is to be tried again.
        """
        again = outcome.status in TRIED_AGAIN
        return Event(
            at=clock.rfc3339(now),
            event=_KINDS[outcome.status],
            to=tuple(to),
            hop=outcome.hop,
            reply=printable(self.cut(outcome.reply), _MAX_REPLY),
            scope="" if outcome.status is _SENT else outcome.scope.value,
            attempt=attempt,
            next=following if again else "",
            reason=OVERDUE if again and overdue else "",
            tls=outcome.tls and printable(outcome.tls, _MAX_TLS),
            unclear=outcome.unclear,
            batch=outcome.batch,
            action=outcome.action,
        )

    def as_before(self, outcome: Outcome, known: Standing, length: int) -> bool:
        """Tell whether a recipient's outcome says nothing that the journal does not say already.

        Args:
            outcome: the outcome of this attempt.
            known: the recipient's state before.
            length: the length of the journal, in octets.
        """
        if outcome.status is not Status.DEFERRED or known.status is not Status.DEFERRED:
            return False
        if (outcome.unclear and not known.unclear) or (outcome.batch and outcome.batch != known.batch):
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


def room_for_outcome(recipients: Sequence[Recipient], hop: str, doubted: Mapping[str, str]) -> dict[str, int]:
    """Return how many journal octets the outcome of one final dot may take, by recipient.

    One reply settles all recipients. It makes several lines if only some of them ask for success
    notifications, or only some are uncertain at another hop.

    Args:
        recipients: of the transaction.
        hop: where it goes.
        doubted: by address, the hop of each recipient of the message that is uncertain.
    """
    room = {one.address: 2 * len(one.address.encode()) + 8 for one in recipients}
    lines, longest = 1, len(hop.encode())
    if len(recipients) > 1 or doubted:
        hops = [doubted.get(one.address, hop) for one in recipients]
        lines = len({(at, one.wants("SUCCESS")) for at, one in zip(hops, recipients, strict=True)})
        longest = max(longest, *[len(at.encode()) for at in hops])
    room[recipients[0].address] += lines * (_ROOM_FOR_LINE + 2 * longest)
    return room


def grouped(outcomes: Sequence[Outcome]) -> dict[Outcome, list[str]]:
    """Group the recipients by equal outcomes; the address in each key is without meaning.

    Sent ones come first: if the disk is full after all, the line that prevents a duplicate is written.
    """
    if len(outcomes) == 1:
        return {outcomes[0]: [outcomes[0].address]}  # The case of nearly every message.
    groups: dict[Outcome, list[str]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.status is not Status.SENT):
        groups.setdefault(replace(outcome, address=""), []).append(outcome.address)
    return groups
