"""Split one message's recipients at one destination into the batches that its server accepts."""

from collections.abc import Iterable, Sequence
from operator import attrgetter

from msgspec.structs import replace

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.send.trouble import too_many

_MAX_ENDED = 5
"""Sessions that a server may end, with a 421 for one recipient, before the other ones are deferred too."""
_MAX_LOST = 3
"""Batches in a row whose session breaks at a recipient, before the batches behind them are deferred too."""
_DIVISOR = 4
"""By what the batch of the next attempt is smaller after such a break: 100 recipients are 25, 6 and 1."""

_MAY_BE_OPEN = {Status.PENDING, Status.DEFERRED}

_status = attrgetter("status")


class Batches:
    """Returns one batch after another.

    A server may accept fewer recipients at a time than we send (RFC 5321 4.5.3.1.10: 452 for each RCPT too
    many). The excess ones come first in the next batch, immediately and over the same session, and later
    batches are no larger than what the server took. If the server announced its limit (RFC 9422), the session
    leaves the excess ones `pending`, and they follow in the same way. A limit on the number of domains does
    not reduce the batch size. A server may also end the session at the first one too many (421): then all
    follow in batches of those that it took before.

    A session that breaks at one recipient, for whatever reason, must not keep the mail from the others. The
    batches behind are sent all the same, and the next attempt divides this one, until the recipient is alone.
    """

    def __init__(self, recipients: Sequence[Recipient], size: int) -> None:
        self.left = list(recipients)
        """Recipients that are still to be returned by `next`, for the first time or again."""
        self.pause = False
        """Whether `batchDelay` is due before the batch that `next` returned last."""
        self._size = size
        self._begun = False
        self._ended = 0
        """Sessions that the server ended because of one of the recipients."""
        self._lost = 0
        """Batches in a row whose session broke at a recipient."""
        self._over = 0
        """How many recipients at the head of `left` were put back."""

    def next(self) -> list[Recipient]:
        """Return the next batch; empty when there is none."""
        if not self.left:
            return []
        batch, self.left = self.left[: self._size], self.left[self._size :]
        self.pause = self._begun and not self._over
        self._begun, self._over = True, max(0, self._over - len(batch))
        return batch

    def keep(self, batch: list[Recipient], count: int) -> list[Recipient]:
        """Return the first `count` of a batch, and put back the others, to follow without a pause."""
        self.left = batch[count:] + self.left
        self._over += len(batch) - count
        return batch[:count]

    def lose(self) -> bool:
        """Note that the session broke at one of a batch's recipients; return whether to try those left."""
        self._lost += 1
        return self._lost < _MAX_LOST

    def settle(
        self, batch: Sequence[Recipient], outcomes: Sequence[Outcome]
    ) -> tuple[list[Recipient], list[Outcome]]:
        """Put back the recipients of a batch that were too many, and return the others with their outcomes.

        The loop ends, since each call settles a recipient or makes the next batch smaller.
        """
        self._lost = 0
        if _MAY_BE_OPEN.isdisjoint(map(_status, outcomes)):
            return list(batch), list(outcomes)
        if fits := _fit_before_the_end(outcomes):
            self.left, self._over, self._size = [*batch, *self.left], self._over + len(batch), fits
            return [], []
        outcomes = self._cut_short(outcomes)
        pairs = zip(batch, outcomes, strict=True)
        decided = [(recipient, outcome) for recipient, outcome in pairs if not _undecided(outcome)]
        # If none was taken, try half of them. A single recipient that is "too many" is deferred.
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
        """Defer the recipients left open, once their server has ended too many sessions because of others."""
        if not any(map(_left_open, outcomes)):
            return outcomes
        self._ended += 1
        if self._ended <= _MAX_ENDED:
            return outcomes
        return [replace(one, status=Status.DEFERRED) if _left_open(one) else one for one in outcomes]


def smaller(batch: Sequence[Recipient]) -> int:
    """Return how many recipients the next transaction may have after one whose session broke; 0: no limit."""
    return max(1, len(batch) // _DIVISOR) if len(batch) > 1 else 0


def _fit_before_the_end(outcomes: Sequence[Outcome]) -> int:
    """Return how many recipients a server took before it ended the session with a 421 for one too many.

    0: it did not, or took one or none, which cannot be the limit of a transaction.
    """
    at = next((at for at, outcome in enumerate(outcomes) if too_many(outcome)), 0)
    return at if at > 1 and any(map(_left_open, outcomes)) else 0


def _left_open(outcome: Outcome) -> bool:
    """Tell whether a recipient is open because the server ended the session, not because of its limits."""
    return outcome.status is Status.PENDING and outcome.scope is Scope.HOST


def is_unasked(outcome: Outcome) -> bool:
    """Tell whether the server was not asked about a recipient because of its announced limit (RFC 9422)."""
    return outcome.status is Status.PENDING and outcome.scope is not Scope.HOST


def _are_other_domains(again: Iterable[Recipient], settled: Iterable[Recipient]) -> bool:
    """Tell whether a limit on domains in one transaction (RFC 9422) may be why these were not asked about."""
    return {_domain(one) for one in again}.isdisjoint(map(_domain, settled))


def _undecided(outcome: Outcome) -> bool:
    return outcome.status is Status.PENDING or too_many(outcome)


def _domain(recipient: Recipient) -> str:
    return recipient.address.rpartition("@")[2].lower()
