"""The interface of authenticators, and the parsing of AUTH PLAIN and LOGIN (RFC 4954, RFC 4616)."""

from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from typing import Protocol

from mailer.mail.patterns import AddressPatterns

MAX_RESPONSE = 12288
"""Octets of base64 in one response (RFC 4954 4)."""


class NotJudged(Exception):
    """All clients that waited for the check of a password were gone before its turn came."""


class Waiter(Protocol):
    """A client that waits for the check of its password."""

    @property
    def lost(self) -> bool:
        """Whether the client can get no reply any more."""
        ...

    @property
    def half_closed(self) -> bool:
        """Whether the client has closed its sending side: it may still read, but more often it is gone."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """The user name that a client claims, and its password."""

    username: str
    password: str = field(repr=False)
    waiter: Waiter | None = field(default=None, repr=False, compare=False)
    """The client that waits for the result; None: a caller that always waits."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated user."""

    user: str
    may_send_as: AddressPatterns | None = None
    """The addresses that the user may put in MAIL FROM and From; None: any."""


class Authenticator(Protocol):
    """Checks credentials. It may take long but never blocks the event loop: it hashes in an executor."""

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """Return the identity, or None, in the same time for an unknown user as for a wrong password.

        Raises:
            NotJudged: the password was not checked, because the client has gone.
        """
        ...

    def anybody(self) -> bool:
        """Return whether any user could log in now; that may change."""
        ...

    offers_cram_md5: bool
    """Whether CRAM-MD5 (RFC 2195) is on."""

    def cram_secret(self, username: str) -> str | None:
        """Return a user's password in clear text; None: it is not known."""
        ...

    def identity(self, username: str) -> Identity | None:
        """Return the identity of a user that was authenticated otherwise; None: no such user."""
        ...

    def bearer(self, token: str) -> Identity | None:
        """Return the identity that a token belongs to; None: it is not valid."""
        ...


def decode_response(response: bytes) -> bytes:
    """Decode a client's base64 response; `=` alone is an empty response (RFC 4954 4).

    Raises:
        ValueError: the response is not base64.
    """
    if response == b"=":
        return b""
    try:
        return b64decode(response, validate=True)
    except Base64Error:
        raise ValueError("not base64") from None


def plain_credentials(message: bytes) -> Credentials | None:
    """Parse the message of PLAIN: `[authzid] NUL authcid NUL password` (RFC 4616 2).

    Returns:
        The credentials; None if the client asks to act as another user (authzid), which is never allowed.

    Raises:
        ValueError: not three parts, an empty name, or not UTF-8.
    """
    authzid, authcid, password = message.decode().split("\0")
    if not authcid:
        raise ValueError("no user name")
    return Credentials(authcid, password) if authzid in {"", authcid} else None
