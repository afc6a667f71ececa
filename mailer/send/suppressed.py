"""Which recipients of a message get nothing, because the operator's list has them.

They are looked up when the message is about to be tried, not when it is submitted: an entry then counts for
what is queued already, whichever door the message came through, and the other recipients get theirs from
clients that would give up all of them for one 550.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mailer.config.model import BOUNCE_OFF, BOUNCE_SENDER, Config
from mailer.config.own_name import own_name
from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.mail.outcome import SUPPRESSION_LIST, Outcome, Scope, Status
from mailer.mail.patterns import compared
from mailer.mail.reply import printable
from mailer.spool.layout import SUPPRESSED, Spool

if TYPE_CHECKING:
    from mailer.spool.state.suppression import Entry


class Suppressed:
    """The list of a spool."""

    def __init__(self, config: Config, spool: Spool, clock: Clock) -> None:
        postmasters = {f"postmaster@{name}" for name in (own_name(config), config.origin_domain) if name}
        told = set() if config.bounce in {BOUNCE_OFF, BOUNCE_SENDER} else {config.bounce}
        self._exempt = frozenset(map(compared, postmasters | told))
        """Our own addresses, which get their mail whatever the list says."""
        self._spool = spool
        self._clock = clock

    def outcomes(self, addresses: Iterable[str]) -> list[Outcome]:
        """Return what becomes of those of some recipients that are on the list.

        Raises:
            OSError: it cannot be looked up; then none must be mailed.
        """
        if not self._spool.has_directory(SUPPRESSED):
            return []
        from mailer.spool.state import suppression  # noqa: PLC0415 - most spools have no list

        now = clock.rfc3339(self._clock())
        asked = (address for address in addresses if not self.exempts(address))
        found = ((address, suppression.find(self._spool, address, now)) for address in asked)
        return [_refused(address, entry) for address, entry in found if entry]

    def exempts(self, address: str) -> bool:
        """Tell whether the list does not concern an address."""
        return compared(address) in self._exempt


def _refused(address: str, entry: "Entry") -> Outcome:
    why = printable(f": {entry.reason}" if entry.reason else "", 300)
    words = f"550 5.7.1 {printable(entry.address, 320)} is on this host's suppression list{why}"
    return Outcome(address, Status.BOUNCED, SUPPRESSION_LIST, words, Scope.RECIPIENT)
