"""Decide which notifications are due (RFC 3461 4.1), from a message's state alone.

Each settlement makes one notification at most, about any number of recipients. Failures are reported as soon
as they are decided, so a sender learns of a wrong address without waiting days for another recipient's
server. A recipient's delay is reported once, and its failure once, even if the operator has it retried and it
fails again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from mailer.config.model import BOUNCE_OFF, BOUNCE_SENDER, Config
from mailer.mail.outcome import Status
from mailer.mail.patterns import AddressPatterns
from mailer.spool.message_state import Standing, State


class Action(StrEnum):
    """RFC 3464 2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    """Handed to a server that does not send notifications."""


@dataclass(frozen=True, slots=True)
class Told:
    """One recipient, and what to report about it to the sender."""

    standing: Standing
    action: Action


_SENT = Status.SENT


def may_owe(state: State) -> bool:
    """Tell whether `owed` may return anything; a quick test for mail sent to all without NOTIFY=SUCCESS."""
    for standing in state.by_address.values():  # noqa: SIM110 - a generator takes twice the time for one
        if standing.action or standing.status is not _SENT:
            return True
    return False


def owed(state: State, now: float, delay_warning: float) -> tuple[Told, ...]:
    """Return what the sender is still to be notified of.

    Args:
        state: the message's state.
        now: seconds since the epoch.
        delay_warning: the age in seconds from which a recipient is late; 0 if none ever is.
    """
    late = bool(delay_warning) and not state.held and now - state.since >= delay_warning
    actions = ((standing, _action(standing, late=late)) for standing in state.standings)
    return tuple(Told(standing, action) for standing, action in actions if action)


def _action(standing: Standing, *, late: bool) -> Action | None:
    wants, status = standing.recipient.wants, standing.status
    if standing.notice:
        return None
    if not status.final:
        tried = status in {Status.DEFERRED, Status.UNCERTAIN}
        return Action.DELAYED if late and tried and not standing.warned and wants("DELAY") else None
    if status is Status.SENT:
        return Action(standing.action) if standing.action in set(Action) and wants("SUCCESS") else None
    return Action.FAILED if wants("FAILURE") else None


Destination = Callable[[str], str]
"""Returns the address for notifications to a sender; empty if none is to be made."""


def destination(config: Config) -> Destination:
    """Return the function that chooses the address for notifications, by the configuration.

    Mail from the null sender is never reported, because notifications themselves have it, and two servers
    could notify each other for ever (RFC 5321 6.1).
    """
    allowed = AddressPatterns.of(config.allowed_recipients) if config.allowed_recipients else None

    def of(sender: str) -> str:
        if not sender or config.bounce == BOUNCE_OFF:
            return ""
        if config.bounce != BOUNCE_SENDER:
            return config.bounce
        # A staging host must not mail addresses that are not allowed, senders included.
        if allowed and allowed.match(sender):
            return sender
        return config.redirect_all_to or ("" if allowed else sender)

    return of
