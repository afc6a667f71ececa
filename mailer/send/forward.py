"""The forward route: through a provider's smarthost."""

from collections.abc import Sequence
from dataclasses import dataclass

from mailer.mail.envelope import Envelope, Recipient
from mailer.mail.outcome import Outcome
from mailer.send.hop import Hop
from mailer.send.pool import Pool
from mailer.send.route import OnCommit
from mailer.spool.claim import Claim


class ForwardRoute:
    """Delivers through one provider."""

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

    async def deliver(
        self, claim: Claim, recipients: Sequence[Recipient], on_commit: OnCommit
    ) -> list[Outcome]:
        """Send one transaction to the provider; see `Route`."""
        async with self._pool.session(self._hop) as session:
            return await session.transact(
                _Spooled(claim), recipients, lambda accepted: on_commit(accepted, session.label)
            )

    def leads_to(self, hop: str) -> bool:
        """Compare name and port; the address in `name[address]:port` may differ from day to day."""
        name, _, port = hop.rpartition(":")
        return f"{name.partition('[')[0]}:{port}" == self.name


@dataclass(frozen=True, slots=True)
class _Spooled:
    """A claimed message as the SMTP client wants it."""

    claim: Claim

    @property
    def envelope(self) -> Envelope:
        return self.claim.entry.envelope

    @property
    def size(self) -> int:
        return self.claim.entry.length

    def read(self, offset: int, length: int) -> bytes:
        return self.claim.held.read_message(self.claim.entry, offset, length)
