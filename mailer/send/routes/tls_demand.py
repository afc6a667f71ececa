"""TLS policy lookup: which TLS level the operator's table demands for a destination."""

from collections.abc import Sequence

from mailer.config.hops import TlsLevel, TlsPolicy
from mailer.mail.address import a_labels
from mailer.send.smtp.hop import StartTls

DEFAULT = TlsPolicy(destination="*", level=TlsLevel.MAY)

STARTTLS = {
    TlsLevel.NONE: StartTls.NEVER,
    TlsLevel.MAY: StartTls.WHEN_OFFERED,
    TlsLevel.ENCRYPT: StartTls.REQUIRED,
    TlsLevel.VERIFY: StartTls.REQUIRED,
}


def demand_of(policies: Sequence[TlsPolicy], destination: str) -> TlsPolicy:
    """Return the first policy that matches a recipient domain or a provider's host; by default, `may`."""
    name = a_labels(destination)
    return next((policy for policy in policies if _matches(policy.destination, name)), DEFAULT)


def _matches(pattern: str, name: str) -> bool:
    below = pattern.startswith(".") and name.endswith("." + a_labels(pattern[1:]))
    return below or pattern == "*" or a_labels(pattern) == name
