"""What every session of a receiver works with; replaced as a whole when the configuration is read again."""

from dataclasses import dataclass

from mailer.receive.listen.certificate import Certificate
from mailer.receive.settings import Settings, Terms
from mailer.receive.space import Space
from mailer.receive.upload import Store
from mailer.receive.users.auth import Authenticator
from mailer.receive.users.local_users import LocalUser
from mailer.receive.users.rates import RateLimiter


@dataclass(frozen=True, slots=True)
class Service:
    """One receiver's parts."""

    settings: Settings
    store: Store
    authenticator: Authenticator | None = None
    """Judges logins; None: AUTH is not offered."""
    certificate: Certificate | None = None
    """None: STARTTLS is not offered."""
    rates: RateLimiter | None = None
    """None: nobody is limited."""
    space: Space | None = None
    """None: the disk itself is the limit."""
    local_users: tuple[LocalUser, ...] = ()
    """Whose mail comes in at an endpoint with `submit`."""


_USUAL = Terms()


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end of a connection."""

    peer: str
    """IP address, as the kernel writes it, `unix`, or `unix:UID`."""
    local: bool
    """On this host: what it sends passes no network."""
    user: str = ""
    """Who that is by the kernel's word (`local_users`), without a login; empty: it may log in."""
    network_user: str = ""
    """Who that is by the network that it comes from (`trusted`), until it logs in; empty: nobody."""
    terms: Terms = _USUAL
    """Of the listener it came to."""
