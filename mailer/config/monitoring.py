"""The part of the model that configures alerts."""

from mailer.config.kinds import Group, Name
from mailer.config.secrets import Secret
from mailer.config.units import Seconds


class Alerts(Group, frozen=True, kw_only=True):
    """What to tell the operator without being asked; never by mail, which may be what is stuck."""

    queue_older_than: Seconds = Seconds(0)
    """The oldest message that waits to be sent is older than this; 0: never."""
    failed_more_than: int | None = None
    """More messages than this lie in `failed/`; none: never."""
    no_run_for: Seconds = Seconds(0)
    """No run of mailer-send has succeeded for this long; 0: never."""
    events_older_than: Seconds = Seconds(0)
    """An event waits for longer than this since `onEvent` does not take it; 0: never."""
    secret_ends_within: Seconds = Seconds(14 * 86_400)
    """Less than this is left until something ends that a provider's tokens are asked for with; 0: never."""
    command: tuple[Name, ...] = ()
    """A program and its arguments, run without a shell, with the alert as JSON on its standard input."""
    webhook: Secret = Secret("")
    """A URL that gets the alert as JSON by POST; a secret, since anybody who knows it can write there."""
