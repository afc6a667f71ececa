"""Who may log in, and the responses of AUTH PLAIN and LOGIN (RFC 4954, RFC 4616) as values."""

from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from typing import Protocol

from mailer.mail.patterns import AddressPatterns

MAX_RESPONSE = 12288
"""Octets of base64 in one response; RFC 4954 4."""


class NotJudged(Exception):
    """Everybody who waited for a judgement was gone before its turn came."""


class Waiter(Protocol):
    """Who waits for a judgement."""

    @property
    def gone(self) -> bool:
        """Nobody is there any more to hear it."""
        ...

    @property
    def silent(self) -> bool:
        """The client has closed its side: it listens still, or, more often, is gone."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client claims to be, and its proof."""

    username: str
    password: str = field(repr=False)
    waiter: Waiter | None = field(default=None, repr=False, compare=False)
    """Who wants to know; None: somebody who stays."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who proved who they are."""

    user: str
    may_send_as: AddressPatterns | None = None
    """Who may stand in MAIL FROM and From; None: anybody."""


class Authenticator(Protocol):
    """Judges credentials. May take its time (hashing belongs in an executor); never blocks the event loop."""

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """Return who it is, or None, in the same time for an unknown user as for a wrong password.

        Raises:
            NotJudged: nobody knows whether the password is right.
        """
        ...

    def anybody(self) -> bool:
        """Tell whether there is anybody who could log in now; that may change."""
        ...

    offers_cram_md5: bool
    """CRAM-MD5 (RFC 2195) is switched on."""

    def cram_secret(self, username: str) -> str | None:
        """Return the password of a user whose password can be had in clear."""
        ...

    def identity(self, username: str) -> Identity | None:
        """Return who a user is that has proved it otherwise."""
        ...

    def bearer(self, token: str) -> Identity | None:
        """Return whose token this is."""
        ...


def decode_response(response: bytes) -> bytes:
    """Decode a client's base64 response; `=` alone is the empty one (RFC 4954 4).

    Raises:
        ValueError: it is not base64.
    """
    if response == b"=":
        return b""
    try:
        return b64decode(response, validate=True)
    except Base64Error:
        raise ValueError("not base64") from None


def plain_credentials(message: bytes) -> Credentials | None:
    """Read the message of PLAIN: `[authzid] NUL authcid NUL password` (RFC 4616 2).

    Returns:
        None when the client wants to act as somebody else (authzid), which nobody here may.

    Raises:
        ValueError: not three parts, an empty name, or not UTF-8.
    """
    authzid, authcid, password = message.decode().split("\0")
    if not authcid:
        raise ValueError("no user name")
    return Credentials(authcid, password) if authzid in {"", authcid} else None
