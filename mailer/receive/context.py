"""The shared parts of a receiver's sessions; replaced as a whole when the configuration is reloaded."""

from dataclasses import dataclass

import msgspec

from mailer.receive.listen.certificate import Certificate
from mailer.receive.settings import Offers, Settings
from mailer.receive.space import Space
from mailer.receive.upload import Store
from mailer.receive.users.auth import Authenticator
from mailer.receive.users.local_users import LocalUser
from mailer.receive.users.rates import RateLimiter


@dataclass(frozen=True, slots=True)
class ReceiverContext:
    """The settings and shared objects of one receiver."""

    settings: Settings
    store: Store
    authenticator: Authenticator | None = None
    """Checks logins; None: AUTH is not offered."""
    certificate: Certificate | None = None
    """The TLS certificate; None: STARTTLS is not offered."""
    rates: RateLimiter | None = None
    """The rate limits; None: there are none."""
    space: Space | None = None
    """The limits on disk space and queue length; None: there are none."""
    local_users: tuple[LocalUser, ...] = ()
    """Maps user ids to users, for a listener with `submit`."""


_USUAL = Offers()


class Client(msgspec.Struct, frozen=True):
    """The client at the other end of a connection."""

    peer: str
    """Its IP address, as the kernel writes it, `unix`, or `unix:UID`."""
    local: bool
    """Whether it is on this host, so that its input crosses no network."""
    user: str = ""
    """The user that `local_users` maps its user id to; such a client cannot log in. Empty: none."""
    network_user: str = ""
    """The user of its network (`trusted`), until it logs in as another; empty: none."""
    offers: Offers = _USUAL
    """What the listener that it connected to offers and demands."""
