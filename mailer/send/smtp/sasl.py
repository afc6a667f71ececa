"""The client's side of AUTH (RFC 4954): which mechanism, and what it answers to each challenge."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Secret(Protocol):
    """Something that keeps a password out of `repr`, logs and tracebacks."""

    def reveal(self) -> str: ...


class Tokens(Protocol):
    """Where access tokens come from; see `oauth.source`."""

    async def token(self, refused: str = "") -> str:
        """Return one, if possible another than the one that was refused; raises TokenTrouble."""


class Mechanism(Protocol):
    """One exchange; each answer is the decoded bytes, base64 is the caller's."""

    name: str

    def initial(self) -> bytes | None:
        """The initial response, or None when the server speaks first."""

    def answer(self, challenge: bytes) -> bytes: ...


@dataclass(slots=True)
class Plain:
    """RFC 4616: one message, no authorisation identity."""

    username: str
    secret: Secret = field(repr=False)
    name: str = "PLAIN"

    def initial(self) -> bytes | None:
        return f"\0{self.username}\0{self.secret.reveal()}".encode()

    def answer(self, challenge: bytes) -> bytes:  # noqa: ARG002 - an empty 334: the same message, asked for
        return self.initial() or b""


@dataclass(slots=True)
class Login:
    """draft-murchison-sasl-login: two prompts whose wording means nothing; their order does."""

    username: str
    secret: Secret = field(repr=False)
    name: str = "LOGIN"
    _asked: int = 0

    def initial(self) -> bytes | None:
        return None

    def answer(self, challenge: bytes) -> bytes:  # noqa: ARG002 - "Username:", "User Name", "": all in use
        self._asked += 1
        return (self.username if self._asked == 1 else self.secret.reveal()).encode()


@dataclass(slots=True)
class CramMd5:
    """RFC 2195: the password itself never crosses the wire."""

    username: str
    secret: Secret = field(repr=False)
    name: str = "CRAM-MD5"

    def initial(self) -> bytes | None:
        return None

    def answer(self, challenge: bytes) -> bytes:
        digest = hmac.new(self.secret.reveal().encode(), challenge, "md5").hexdigest()
        return f"{self.username} {digest}".encode()


@dataclass(slots=True)
class XOAuth2:
    """Google's and Microsoft's own: one message; an error comes as a challenge, and the reply after that."""

    username: str
    token: str = field(repr=False)
    name: str = "XOAUTH2"

    def initial(self) -> bytes | None:
        return f"user={self.username}\1auth=Bearer {self.token}\1\1".encode()

    def answer(self, challenge: bytes) -> bytes:
        # Empty: the message itself is asked for. Else it is JSON about an error, and an empty line has the
        # server say the reply that counts.
        return b"" if challenge else self.initial() or b""


@dataclass(slots=True)
class OAuthBearer:
    """RFC 7628: the same with the server's name and port in it."""

    username: str
    token: str = field(repr=False)
    host: str
    port: int
    name: str = "OAUTHBEARER"

    def initial(self) -> bytes | None:
        # RFC 5801 4: a comma and an equals sign would end the name.
        authzid = self.username.replace("=", "=3D").replace(",", "=2C")
        pairs = f"host={self.host}\1port={self.port}\1auth=Bearer {self.token}"
        return f"n,a={authzid},\1{pairs}\1\1".encode()

    def answer(self, challenge: bytes) -> bytes:
        return b"\1" if challenge else self.initial() or b""  # RFC 7628 3.2.3


# The session is encrypted or does not leave the machine whenever AUTH happens (see `client`), so the order is
# by round trips; CRAM-MD5 comes last, since it forces the server to keep passwords in clear.
_PREFERENCE = (Plain, Login, CramMd5)


def usable(offered: Sequence[str], username: str, secret: Secret, named: str = "") -> list[Mechanism]:
    """Return the mechanisms of ours that the server offers, in the order in which to try them.

    Args:
        offered: by the server, in upper case.
        username: the account to log in to.
        secret: with what.
        named: the only one to use, in upper case; empty: any.
    """
    ours: list[Mechanism] = [mechanism(username, secret) for mechanism in _PREFERENCE]
    return [one for one in ours if one.name in offered and named in {"", one.name}]


def bearers(
    offered: Sequence[str], username: str, token: str, at: tuple[str, int], named: str = ""
) -> list[Mechanism]:
    """As `usable`, with an access token; args: at: the server's name and port."""
    ours: list[Mechanism] = [XOAuth2(username, token), OAuthBearer(username, token, *at)]
    return [one for one in ours if one.name in offered and named in {"", one.name}]
