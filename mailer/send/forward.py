"""The forward route: through a provider's smarthost."""

from collections.abc import Sequence

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome
from mailer.send.hop import Hop
from mailer.send.outgoing import Outgoing
from mailer.send.pool import Pool
from mailer.send.route import OnCommit


class ForwardRoute:
    """Delivers through one provider."""

    attempts = 1

    def __init__(self, hop: Hop, pool: Pool, *, batch_size: int, batch_delay: float) -> None:
        """Prepare; nothing is opened yet.

        Args:
            hop: the provider.
            pool: keeps sessions to it.
            batch_size: recipients in one transaction, at most.
            batch_delay: seconds between the transactions of one message.
        """
        self._hop = hop
        self._pool = pool
        self.name = str(hop)
        self.batch_size = batch_size
        self.batch_delay = batch_delay

    def groups(self, recipients: Sequence[Recipient]) -> list[list[Recipient]]:
        """Make one group: all go to the provider."""
        return [list(recipients)]

    async def deliver(
        self, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit
    ) -> list[Outcome]:
        """Send one transaction to the provider; see `Route`."""
        async with self._pool.session(self._hop) as session:
            return await session.transact(
                outgoing, recipients, lambda accepted: on_commit(accepted, session.label)
            )

    def leads_to(self, hop: str) -> bool:
        """Compare name and port; the address in `name[address]:port` may differ from day to day."""
        name, _, port = hop.rpartition(":")
        return f"{name.partition('[')[0]}:{port}" == self.name
