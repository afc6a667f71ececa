"""Routes: the ways a message can leave. The engine knows no more about them than this."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope
from mailer.send.outgoing import Outgoing
from mailer.send.presentation import Presentation

if TYPE_CHECKING:
    from mailer.send.budgets import Purse

OnCommit = Callable[[Sequence[Recipient], str], None]
"""Called with the recipients and the hop right before the step that cannot be taken back.

If it raises, the route sends nothing and lets the exception pass.
"""

OnTrouble = Callable[[str, str, Scope, Sequence[Recipient]], None]
"""Called with the hop, its words, whose trouble it is, and the recipients, to whom it has sent nothing.

Another hop of the same route is tried instead.
"""


class Route(Protocol):
    """One way to deliver."""

    name: str
    """As the operator knows it: `local`, or `smtp.example.com:587`."""
    batch_size: int
    """Recipients in one transaction, at most."""
    batch_delay: float
    """Seconds between the transactions of one message to one destination."""
    purse: "Purse | None"
    """The budget of all mail by it; None: it has none."""
    presentation: Presentation
    """The form in which it wants messages."""
    asks_twice: bool
    """A refusal for good that is not clear is asked for once more: see `Action.SECOND_OPINION`."""
    holds_second_doubt: bool
    """A message that is uncertain here for the second time in a row is held, whatever the policy says."""
    attempts: int
    """Attempts at a message after which trouble with this route sends it on to the next one."""

    def groups(self, recipients: Sequence[Recipient]) -> list[list[Recipient]]:
        """Divide recipients by destination: trouble with one says nothing about another."""

    async def deliver(
        self, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit, on_trouble: OnTrouble
    ) -> list[Outcome]:
        """Try one transaction.

        Returns:
            One outcome per recipient, in order.

        Raises:
            HopTrouble: the route cannot be used now; nothing was sent.
            OSError: ours is the trouble (what `on_commit` raised); nothing was sent.
        """

    def leads_to(self, hop: str) -> bool:
        """Tell whether a hop, as an outcome names it, was reached by this route."""
