"""The context of a run: its rules and services, built once from the configuration for all messages."""

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
    from mailer.send.unknown_recipients import Unknown


@dataclass(frozen=True, slots=True)
class RunContext:
    """The rules and services that a run uses for each message."""

    routes: Table
    backoff: Backoff
    hold_uncertain: bool
    log: MailLog
    clock: Clock
    random: Callable[[], float]
    signer: Signer | None = None
    """Signs mail that leaves this host; None if nothing is to be signed."""
    archive_max_age: float = math.inf
    """Seconds that a copy is kept in `sent/`."""
    idempotency_window: float = math.inf
    """Seconds that an idempotency key is kept."""
    guard: ClockGuard | None = None
    """Tells whether the clock can be trusted for deleting and giving up; None if it always is."""
    journals: Journals | None = None
    """Syncs the journals of active messages; None if they are not synced."""
    destinations: DestinationStatus | None = None
    """The health of the direct route's destinations; None if that route is off."""
    budgets: "Budgets | None" = None
    """How much may be sent to a recipient domain; None for no limits."""
    staging: Staging | None = None
    """Which mail may leave this host; None for all mail."""
    suppressed: Suppressed | None = None
    """The suppression list; None to send to all recipients."""
    unknown: "Unknown | None" = None
    """Adds addresses that do not exist to the suppression list; None if only operators add to it."""

    def trusts_clock(self) -> bool:
        """Tell whether a decision by age may be made now."""
        return self.guard is None or self.guard.trusts()
