"""One message's recipients at one destination, cut into the batches that its server takes."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.send.trouble import too_many

_MOST_ENDED = 5
"""Sessions that a server may end, with a 421 about one recipient, before the other ones wait as well."""

_MAY_BE_OPEN = {Status.PENDING, Status.DEFERRED}


class Batches:
    """Gives one batch after the other.

    A server may take fewer at a time than we thought (RFC 5321 4.5.3.1.10: 452 for each RCPT too many).
    Those that were too many come first in the next batch, at once and over the same session, and from then on
    no batch is larger than what it took. Where it has said before how many it takes (RFC 9422), the session
    leaves the others `pending`, and they follow in the same way. A limit of domains makes no batch smaller.
    """

    def __init__(self, recipients: Sequence[Recipient], size: int) -> None:
        self.left = list(recipients)
        """Not given out yet, or to be given out again."""
        self.pause = False
        """`batchDelay` is due before the batch that was given out last."""
        self._size = size
        self._begun = False
        self._ended = 0
        """Sessions that were ended for one of the recipients."""
        self._over = 0
        """How many at the head of `left` are there again."""

    def next(self) -> list[Recipient]:
        """Return the next batch; empty when there is none."""
        batch, self.left = self.left[: self._size], self.left[self._size :]
        self.pause = self._begun and not self._over
        self._begun, self._over = True, max(0, self._over - len(batch))
        return batch

    def keep(self, batch: list[Recipient], count: int) -> list[Recipient]:
        """Take back those of a batch beyond so many: they follow at once."""
        self.left = batch[count:] + self.left
        self._over += len(batch) - count
        return batch[:count]

    def settle(
        self, batch: Sequence[Recipient], outcomes: Sequence[Outcome]
    ) -> tuple[list[Recipient], list[Outcome]]:
        """Take back those of a batch that were too many, and return the others with their outcomes.

        Each time somebody's case is decided, or the next batch is smaller: it comes to an end.
        """
        if not [outcome for outcome in outcomes if outcome.status in _MAY_BE_OPEN]:
            return list(batch), list(outcomes)
        outcomes = self._cut_short(outcomes)
        pairs = zip(batch, outcomes, strict=True)
        decided = [(recipient, outcome) for recipient, outcome in pairs if not _undecided(outcome)]
        # None was taken: half of them, then. One that is too many alone is just deferred.
        size = len(decided) or len(batch) // 2
        if len(decided) == len(batch) or not size:
            return list(batch), list(outcomes)
        settled = {recipient for recipient, _ in decided}
        again = [recipient for recipient in batch if recipient not in settled]
        self.left = again + self.left
        self._over += len(again)
        if not any(map(_left_open, outcomes)):
            beyond = [one for one, outcome in zip(batch, outcomes, strict=True) if is_unasked(outcome)]
            domains = settled and beyond and _are_other_domains(beyond, settled)
            self._size = self._size if domains else size
        return [recipient for recipient, _ in decided], [outcome for _, outcome in decided]

    def _cut_short(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Defer those whose case was left open, once their server has ended too many sessions for others."""
        if not any(map(_left_open, outcomes)):
            return outcomes
        self._ended += 1
        if self._ended <= _MOST_ENDED:
            return outcomes
        return [replace(one, status=Status.DEFERRED) if _left_open(one) else one for one in outcomes]


def _left_open(outcome: Outcome) -> bool:
    """Tell whether the server ended the session; else the recipient was beyond its limits, and not asked."""
    return outcome.status is Status.PENDING and outcome.scope is Scope.HOST


def is_unasked(outcome: Outcome) -> bool:
    """Tell whether the server was not asked about a recipient, since it takes no more at once (RFC 9422)."""
    return outcome.status is Status.PENDING and outcome.scope is not Scope.HOST


def _are_other_domains(again: Iterable[Recipient], settled: Iterable[Recipient]) -> bool:
    """Tell whether a limit of domains in one transaction (RFC 9422) may be why these were not asked."""
    return {_domain(one) for one in again}.isdisjoint(map(_domain, settled))


def _undecided(outcome: Outcome) -> bool:
    return outcome.status is Status.PENDING or too_many(outcome)


def _domain(recipient: Recipient) -> str:
    return recipient.address.rpartition("@")[2].lower()
