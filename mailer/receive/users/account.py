"""A user that may log in."""

import msgspec

from mailer.receive.users.auth import Identity


class Account(msgspec.Struct, frozen=True):
    """A user that may log in, and the hash of the user's password or token."""

    identity: Identity
    hash: str
