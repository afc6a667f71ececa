"""The forward route: delivery through a provider's smarthost or HTTP interface."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.send.outgoing import Outgoing
from mailer.send.presentation import Presentation
from mailer.send.routes import alike
from mailer.send.routes.providers import Breaker
from mailer.send.routes.route import OnCommit, OnTrouble
from mailer.send.smtp.client import Letter
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.pool import Pool
from mailer.send.trouble import Hardness, HopTrouble, Resting, SessionLost, rule
from mailer.spool.state.provider_state import Witness

if TYPE_CHECKING:
    from mailer.send.budgets import BudgetShare

_SENT = Status.SENT


class ForwardRoute:
    """Delivers through one provider, as long as its circuit breaker admits the message."""

    attempts = 1
    retries_unclear_refusals = True

    def __init__(  # noqa: PLR0913 - all that a provider is; its caller names each
        self,
        hop: Hop,
        pool: Pool,
        breaker: Breaker,
        presentation: Presentation,
        *,
        batch_size: int,
        batch_delay: float,
        budget: "BudgetShare | None" = None,
    ) -> None:
        """Prepare; opens nothing yet.

        Args:
            hop: the provider.
            pool: keeps sessions to the provider.
            breaker: the provider's circuit breaker.
            presentation: the form in which the provider takes messages.
            batch_size: the most recipients in one transaction.
            batch_delay: seconds between the transactions of one message.
            budget: the provider's budget; None if it has none.
        """
        self._hop = hop
        self._pool = pool
        self._breaker = breaker
        self.presentation = presentation
        self.name = str(hop)
        # A gateway that answers 504 may do so each time, and each time the mail may arrive.
        self.holds_second_doubt = hop.api is not None
        self.batch_size = batch_size
        self.batch_delay = batch_delay
        self.budget = budget

    def groups(self, recipients: Sequence[Recipient]) -> list[list[Recipient]]:
        """Return one group: all recipients go to the provider."""
        return [list(recipients)]

    async def deliver(
        self, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit, on_trouble: OnTrouble
    ) -> list[Outcome]:
        """Send one transaction to the provider; see `Route`."""
        del on_trouble  # A provider is one hop.
        probe = await self._breaker.admit(self.name, outgoing.claim.id)
        try:
            if self._pool.hangs(self._hop):
                raise self._breaker.hanging(self.name)
            return await self._transact(outgoing, recipients, on_commit)
        finally:
            if probe:
                self._breaker.probed()

    async def _transact(
        self, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit
    ) -> list[Outcome]:
        recipients = self.presentation.recipients(outgoing.claim.entry.envelope, recipients)
        try:
            message_id = outgoing.claim.entry.block.id
            letter = Letter(outgoing, recipients)
            async with self._pool.session(self._hop, outgoing.on_wait, message_id, letter) as session:
                outcomes = await session.transact(
                    outgoing, recipients, lambda accepted: on_commit(accepted, session.label)
                )
        except Resting:
            raise  # The provider was not tried.
        except HopTrouble as trouble:
            if rule(trouble.scope, trouble.hardness, hops_left=False).breaker:
                # A session that breaks within a transaction may break because of that mail.
                began = isinstance(trouble, SessionLost)
                mail = _witness(outgoing, [recipient.address for recipient in recipients])
                self._breaker.failed(trouble.scope, trouble.text, mail if began else None)
            raise
        for outcome in outcomes:
            if outcome.status is _SENT:
                self._breaker.succeeded()
                return outcomes
        return self._take_note(outgoing, outcomes)

    def _take_note(self, outgoing: Outgoing, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Report a transaction in which no recipient was sent to the breaker.

        Returns the outcomes, in which refusals that other mails met as well are the provider's trouble.
        """
        mail = _witness(outgoing, [outcome.address for outcome in outcomes])
        counts = [outcome for outcome in outcomes if _counts(outcome)]
        lost = [outcome for outcome in outcomes if outcome.status is Status.UNCERTAIN]
        if counts:
            self._breaker.failed(counts[0].scope, counts[0].reply, mail)
        elif lost:
            # Whether the mail was taken is unknown, but the provider certainly failed.
            self._breaker.failed(Scope.HOST, lost[0].reply, mail)
        struck = self._struck(outgoing, outcomes)
        if not (counts or lost or struck) and all(map(alike.is_clear, outcomes)):
            self._breaker.succeeded(taken=False)
        return [
            replace(outcome, status=Status.DEFERRED, scope=Scope.PROVIDER) if outcome in struck else outcome
            for outcome in outcomes
        ]

    def _struck(self, outgoing: Outgoing, outcomes: Sequence[Outcome]) -> set[Outcome]:
        """Return the refusals that unrelated mails met with the same words."""
        mail = _witness(outgoing, ())
        groups: dict[str, list[Outcome]] = {}
        for outcome in filter(alike.may_be_provider_wide, outcomes):
            groups.setdefault(alike.digest(outcome, mail), []).append(outcome)
        return {
            outcome
            for words, group in groups.items()
            if self._breaker.refused(words, group[0], _witness(outgoing, [one.address for one in group]))
            for outcome in group
        }

    def leads_to(self, hop: str) -> bool:
        return self._hop.is_named(hop)


def _witness(outgoing: Outgoing, addresses: Iterable[str]) -> Witness:
    entry = outgoing.claim.entry
    return alike.witness(entry.id, entry.envelope.sender, addresses)


def _counts(outcome: Outcome) -> bool:
    if outcome.status in {Status.SENT, Status.PENDING}:
        return False
    return rule(outcome.scope, Hardness.of(outcome), hops_left=False).breaker
