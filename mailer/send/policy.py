"""The policy of a run: made once from the configuration, the same for every message."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailer.mail.clock import Clock
from mailer.maillog.events import MailLog
from mailer.send.backoff import Backoff
from mailer.send.destination_status import DestinationStatus
from mailer.send.dkim.signer import Signer
from mailer.send.journals import Journals
from mailer.send.routes.table import Table
from mailer.send.staging import Staging
from mailer.send.suppressed import Suppressed
from mailer.spool.state.clock_guard import ClockGuard

if TYPE_CHECKING:
    from mailer.send.budgets import Budgets
    from mailer.send.unknown import Unknown


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run goes by."""

    routes: Table
    backoff: Backoff
    hold_uncertain: bool
    log: MailLog
    clock: Clock
    random: Callable[[], float]
    signer: Signer | None = None
    """Signs what leaves this host; None: nothing is to be signed."""
    archive_max_age: float = math.inf
    """Seconds that `sent/` keeps a copy."""
    idempotency_window: float = math.inf
    """Seconds that an idempotency key is kept."""
    guard: ClockGuard | None = None
    """Knows whether the clock is one to delete and to give up by; None: it is."""
    journals: Journals | None = None
    """Makes durable what is recorded of messages in hand; None: nobody does."""
    destinations: DestinationStatus | None = None
    """How the direct route's destinations do; None: it is off."""
    budgets: "Budgets | None" = None
    """How much may be sent to a recipient domain; None: anything."""
    staging: Staging | None = None
    """What may leave; None: everything."""
    suppressed: Suppressed | None = None
    """Who gets no mail; None: everybody does."""
    unknown: "Unknown | None" = None
    """Adds to those; None: only operators do."""

    def trusts_clock(self) -> bool:
        """Tell whether a decision by age may be made at this moment."""
        return self.guard is None or self.guard.trusts()
