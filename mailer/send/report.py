"""Write an attempt's outcomes to the ledger, after they are in the journal."""

from collections.abc import Mapping, Sequence

import msgspec

from mailer.mail.outcome import FINAL, Outcome
from mailer.mail.reply import enhanced_status
from mailer.maillog.events import Delivery, MailLog, Times
from mailer.send.outcome_lines import TRIED_AGAIN
from mailer.spool.message_state import State
from mailer.spool.run.claim import Claim

_Groups = Mapping[Outcome, Sequence[str]]
"""Recipients grouped by equal outcomes; the address in each key is without meaning."""


class Report(msgspec.Struct, frozen=True):
    """Writes the ledger lines of one claimed message."""

    log: MailLog
    claim: Claim
    begun: float
    """When the attempt began, in seconds since the epoch."""

    def outcomes(
        self, groups: _Groups, state: State, attempt: int, following: str, handed_over: Mapping[str, float]
    ) -> None:
        """Log outcomes, one line for each group.

        Args:
            groups: the recipients by outcome.
            state: the message's state, including these outcomes.
            attempt: the number of the attempt.
            following: when recipients that are to be tried again will be.
            handed_over: when each recipient's final dot was about to be sent, if it was.
        """
        received, last = self._received, len(groups)
        for number, (outcome, to) in enumerate(groups.items(), start=1):
            self._tell(
                outcome,
                tuple(to),
                attempt,
                _came_to(state) if number == last else "",
                following if outcome.status in TRIED_AGAIN else "",
                Times(received, state.since, self.begun, handed_over.get(to[0])),
            )

    @property
    def _received(self) -> float:
        """When the message came; if it was scheduled, when it could be sent, since the sender chose that."""
        entry = self.claim.entry
        accepted = entry.state.accepted
        return entry.state.since if accepted and accepted.next else entry.block.received

    def again(self, state: State) -> None:
        """Log the outcomes of a dead runner's last attempt, which it may not have logged.

        Readers of the ledger count each (id, recipient, attempt) once.
        """
        groups: dict[Outcome, list[str]] = {}
        for standing in state.standings:
            if standing.status.final and standing.attempt == state.attempts:
                outcome = Outcome("", standing.status, standing.hop, standing.reply)
                groups.setdefault(outcome, []).append(standing.address)
        for number, (outcome, to) in enumerate(groups.items(), start=1):
            message = _came_to(state) if number == len(groups) else ""
            self._tell(outcome, tuple(to), state.attempts, message, again=True)

    def _tell(  # noqa: PLR0913 - the fields of a Delivery
        self,
        outcome: Outcome,
        to: tuple[str, ...],
        attempt: int,
        message: str,
        next: str = "",
        times: Times | None = None,
        *,
        again: bool = False,
    ) -> None:
        block = self.claim.entry.block
        self.log.delivery(
            Delivery(
                id=block.id,
                sender=block.envelope.sender,
                received=self._received if times is None else times.received,
                attempt=attempt,
                to=to,
                outcome=outcome,
                next=next,
                dsn=enhanced_status(outcome.reply),
                times=times,
                message=message,
                again=again,
            )
        )


def _came_to(state: State) -> str:
    """Return the result for the whole message; empty while some recipient is open."""
    if state.is_sent:
        return "delivered"
    for standing in state.by_address.values():
        if standing.status not in FINAL:
            return ""  # An early exit: in most calls one of the first recipients is still open.
    return "failed"
