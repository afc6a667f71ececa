"""The forward route: through a provider's smarthost."""

from collections.abc import Sequence

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.send.outgoing import Outgoing
from mailer.send.phase import Phase
from mailer.send.presentation import Presentation
from mailer.send.routes.providers import Breaker
from mailer.send.routes.route import OnCommit, OnTrouble
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.pool import Pool
from mailer.send.trouble import Hardness, HopTrouble, SessionLost, rule


class ForwardRoute:
    """Delivers through one provider, as long as its breaker lets it."""

    attempts = 1

    def __init__(
        self,
        hop: Hop,
        pool: Pool,
        breaker: Breaker,
        presentation: Presentation,
        *,
        batch_size: int,
        batch_delay: float,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            hop: the provider.
            pool: keeps sessions to it.
            breaker: keeps its health.
            presentation: the form in which it wants messages.
            batch_size: recipients in one transaction, at most.
            batch_delay: seconds between the transactions of one message.
        """
        self._hop = hop
        self._pool = pool
        self._breaker = breaker
        self.presentation = presentation
        self.name = str(hop)
        self.batch_size = batch_size
        self.batch_delay = batch_delay

    def groups(self, recipients: Sequence[Recipient]) -> list[list[Recipient]]:
        """Make one group: all go to the provider."""
        return [list(recipients)]

    async def deliver(
        self, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit, on_trouble: OnTrouble
    ) -> list[Outcome]:
        """Send one transaction to the provider; see `Route`."""
        del on_trouble  # A provider is one hop.
        probe = await self._breaker.admit(self.name)
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
        message = outgoing.claim.id
        recipients = self.presentation.recipients(outgoing.claim.entry.envelope, recipients)
        try:
            async with self._pool.session(self._hop) as session:
                outcomes = await session.transact(
                    outgoing, recipients, lambda accepted: on_commit(accepted, session.label)
                )
        except HopTrouble as trouble:
            if rule(trouble.scope, trouble.hardness, hops_left=False).breaker:
                # A session that breaks within a transaction may be that message's doing.
                began = isinstance(trouble, SessionLost) and trouble.phase is not Phase.MAIL
                self._breaker.failed(trouble.scope, trouble.text, message if began else "")
            raise
        self._take_note(outcomes, message)
        return outcomes

    def _take_note(self, outcomes: Sequence[Outcome], message: str) -> None:
        """Tell the breaker what a transaction says of the provider."""
        counts = [outcome for outcome in outcomes if _counts(outcome)]
        if counts:
            self._breaker.failed(counts[0].scope, counts[0].reply, message)
        elif any(outcome.status is not Status.UNCERTAIN for outcome in outcomes):
            self._breaker.succeeded()
        else:
            # Nobody knows about the mail; the provider itself did not work.
            self._breaker.failed(Scope.HOST, outcomes[0].reply, message)

    def leads_to(self, hop: str) -> bool:
        """Compare login, name and port; the address in `name[address]:port` may differ from day to day.

        A hop without a login was the only one at its name and port then.
        """
        login, at, server = hop.rpartition("@")
        name, _, port = server.rpartition(":")
        ours = self._hop
        return (name.partition("[")[0], port) == (ours.name, str(ours.port)) and (
            not at or login == ours.login
        )


def _counts(outcome: Outcome) -> bool:
    if outcome.status is Status.SENT:
        return False
    return rule(outcome.scope, Hardness.of(outcome), hops_left=False).breaker
