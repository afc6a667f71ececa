"""Configuration of alerts."""

from mailer.config.key_types import Group, Name, Seconds
from mailer.config.secrets import Secret


class Alerts(Group, frozen=True, kw_only=True):
    """Which alerts to send, and how; never by mail, since mail itself may be stuck."""

    queue_older_than: Seconds = Seconds(0)
    """Alert if the oldest waiting message is older than this; 0: never."""
    failed_more_than: int | None = None
    """Alert if there are more messages than this in `failed/`; None: never."""
    no_run_for: Seconds = Seconds(0)
    """Alert if no run of mailer-send has succeeded for this long; 0: never."""
    events_older_than: Seconds = Seconds(0)
    """Alert if an event has waited longer than this for the receiver of `onEvent`; 0: never."""
    secret_ends_within: Seconds = Seconds(14 * 86_400)
    """Alert if a secret, certificate or refresh token for a provider's tokens ends within this; 0: never."""
    command: tuple[Name, ...] = ()
    """A program and its arguments, run without a shell, with the alert as JSON on its standard input."""
    webhook: Secret = Secret("")
    """A URL that gets the alert as JSON by POST; a secret, since anyone who knows it can post there."""
