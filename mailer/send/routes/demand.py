"""What TLS is demanded of a destination: the operator's table of policies."""

from collections.abc import Sequence

from mailer.config.hops import TlsLevel, TlsPolicy
from mailer.send.smtp.hop import StartTls

DEFAULT = TlsPolicy(destination="*", level=TlsLevel.MAY)

STARTTLS = {
    TlsLevel.NONE: StartTls.NEVER,
    TlsLevel.MAY: StartTls.WHEN_OFFERED,
    TlsLevel.ENCRYPT: StartTls.REQUIRED,
    TlsLevel.VERIFY: StartTls.REQUIRED,
}


def demand_of(policies: Sequence[TlsPolicy], destination: str) -> TlsPolicy:
    """Return the first policy that matches a recipient domain or a provider's host; without one, `may`."""
    name = destination.lower()
    return next((policy for policy in policies if _matches(policy.destination.lower(), name)), DEFAULT)


def _matches(pattern: str, name: str) -> bool:
    return pattern in {"*", name} or (pattern.startswith(".") and name.endswith(pattern))
