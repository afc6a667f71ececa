"""Look up the recipients of a message in the suppression list.

That is done when the message is about to be tried, not when it is submitted. So an entry applies to mail that
is queued already, however it was submitted, and the other recipients get their copies even from clients that
would give up on all of them after one 550.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mailer.config.model import Config
from mailer.config.own_name import own_name
from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.mail.outcome import SUPPRESSION_LIST, Outcome, Scope, Status
from mailer.mail.patterns import compared
from mailer.mail.reply import printable
from mailer.spool.directory import Spool
from mailer.spool.layout import SUPPRESSED

if TYPE_CHECKING:
    from mailer.spool.state.suppression import Entry


class Suppressed:
    """The suppression list of a spool, as far as sending needs it."""

    def __init__(self, config: Config, spool: Spool, clock: Clock) -> None:
        postmasters = {f"postmaster@{name}" for name in (own_name(config), config.origin_domain) if name}
        told = {config.bounce_address} if config.bounce_address else set()
        self._exempt = frozenset(map(compared, postmasters | told))
        """Our own addresses, to which the list does not apply."""
        self._spool = spool
        self._clock = clock

    def outcomes(self, addresses: Iterable[str]) -> list[Outcome]:
        """Return a refusal for each of these recipients that is on the list.

        Raises:
            OSError: the list cannot be read; then nothing must be sent.
        """
        if not self._spool.has_directory(SUPPRESSED):
            return []
        from mailer.spool.state import suppression  # noqa: PLC0415 - most spools have no list

        now = clock.rfc3339(self._clock())
        asked = (address for address in addresses if not self.exempts(address))
        found = ((address, suppression.find(self._spool, address, now)) for address in asked)
        return [_refused(address, entry) for address, entry in found if entry]

    def exempts(self, address: str) -> bool:
        """Tell whether the list does not apply to an address."""
        return compared(address) in self._exempt


def _refused(address: str, entry: "Entry") -> Outcome:
    why = printable(f": {entry.reason}" if entry.reason else "", 300)
    words = f"550 5.7.1 {printable(entry.address, 320)} is on this host's suppression list{why}"
    return Outcome(address, Status.BOUNCED, SUPPRESSION_LIST, words, Scope.RECIPIENT)
