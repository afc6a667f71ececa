"""The interface of a route, which is one way for messages to leave; the attempt uses nothing else of it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope
from mailer.send.outgoing import Outgoing
from mailer.send.presentation import Presentation

if TYPE_CHECKING:
    from mailer.send.budgets import BudgetShare

OnCommit = Callable[[Sequence[Recipient], str], None]
"""Called with the recipients and the hop immediately before the step that cannot be undone.

If it raises, the route sends nothing and propagates the exception.
"""

OnTrouble = Callable[[str, str, Scope, Sequence[Recipient]], None]
"""Called when a hop fails and the route tries another of its hops.

The arguments are the hop, its reply, the scope of the trouble, and the recipients, none of which was sent.
"""


class Route(Protocol):
    """One way to deliver."""

    name: str
    """The operator's name for it: `local`, or `smtp.example.com:587`."""
    batch_size: int
    """The most recipients in one transaction."""
    batch_delay: float
    """Seconds between the transactions of one message to one destination."""
    budget: "BudgetShare | None"
    """The budget for all mail over this route; None if it has none."""
    presentation: Presentation
    """The form in which the route takes messages."""
    retries_unclear_refusals: bool
    """Whether an unclear permanent refusal is retried once; see `Action.SECOND_OPINION`."""
    holds_second_doubt: bool
    """Whether a message that is uncertain here twice in a row is held, whatever the policy says."""
    attempts: int
    """Attempts at a message after which trouble with this route makes it go to the next one."""

    def groups(self, recipients: Sequence[Recipient]) -> list[list[Recipient]]:
        """Group recipients by destination: trouble with one destination says nothing about another."""

    async def deliver(
        self, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit, on_trouble: OnTrouble
    ) -> list[Outcome]:
        """Try one transaction.

        Returns:
            One outcome per recipient, in order.

        Raises:
            HopTrouble: the route cannot be used now; nothing was sent.
            OSError: the trouble is local (`on_commit` raised it); nothing was sent.
        """

    def leads_to(self, hop: str) -> bool:
        """Tell whether this route leads to a hop, named as in an outcome."""
