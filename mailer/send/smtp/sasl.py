"""The client's side of AUTH (RFC 4954): choose a mechanism, and answer its challenges."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Secret(Protocol):
    """A password that is kept out of `repr`, logs and tracebacks."""

    def reveal(self) -> str: ...


class Tokens(Protocol):
    """A source of access tokens; see `oauth.source`."""

    async def token(self, refused: str = "") -> str:
        """Return a token, if possible a different one from `refused`; raises TokenTrouble."""


class Mechanism(Protocol):
    """One AUTH exchange. Challenges and responses are raw bytes; the caller does the base64."""

    name: str

    def initial(self) -> bytes | None:
        """Return the initial response, or None if the server speaks first."""

    def answer(self, challenge: bytes) -> bytes: ...


@dataclass(slots=True)
class Plain:
    """PLAIN (RFC 4616): one message, without an authorisation identity."""

    username: str
    secret: Secret = field(repr=False)
    name: str = "PLAIN"

    def initial(self) -> bytes | None:
        return f"\0{self.username}\0{self.secret.reveal()}".encode()

    def answer(self, challenge: bytes) -> bytes:  # noqa: ARG002 - an empty 334 asks for the same message
        return self.initial() or b""


@dataclass(slots=True)
class Login:
    """LOGIN (draft-murchison-sasl-login): two prompts, told apart by their order and not by their wording."""

    username: str
    secret: Secret = field(repr=False)
    name: str = "LOGIN"
    _asked: int = 0

    def initial(self) -> bytes | None:
        return None

    def answer(self, challenge: bytes) -> bytes:  # noqa: ARG002 - "Username:", "User Name", "" are all in use
        self._asked += 1
        return (self.username if self._asked == 1 else self.secret.reveal()).encode()


@dataclass(slots=True)
class CramMd5:
    """CRAM-MD5 (RFC 2195): the password itself is not transmitted."""

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
    """XOAUTH2 of Google and Microsoft: one message. An error comes as a challenge, followed by the reply."""

    username: str
    token: str = field(repr=False)
    name: str = "XOAUTH2"

    def initial(self) -> bytes | None:
        return f"user={self.username}\1auth=Bearer {self.token}\1\1".encode()

    def answer(self, challenge: bytes) -> bytes:
        # An empty challenge asks for the message. Any other is JSON about an error; the server sends the
        # final reply after an empty response.
        return b"" if challenge else self.initial() or b""


@dataclass(slots=True)
class OAuthBearer:
    """OAUTHBEARER (RFC 7628): like XOAUTH2, but with the server's name and port in the message."""

    username: str
    token: str = field(repr=False)
    host: str
    port: int
    name: str = "OAUTHBEARER"

    def initial(self) -> bytes | None:
        # RFC 5801 4: commas and equals signs are escaped, since they would end the name.
        authzid = self.username.replace("=", "=3D").replace(",", "=2C")
        pairs = f"host={self.host}\1port={self.port}\1auth=Bearer {self.token}"
        return f"n,a={authzid},\1{pairs}\1\1".encode()

    def answer(self, challenge: bytes) -> bytes:
        return b"\1" if challenge else self.initial() or b""  # RFC 7628 3.2.3


# Whenever AUTH is used, the session is encrypted or does not leave the machine (see `client`). So the order
# is by round trips; CRAM-MD5 comes last, since it forces the server to store passwords in clear.
_PREFERENCE = (Plain, Login, CramMd5)


def usable(offered: Sequence[str], username: str, secret: Secret, named: str = "") -> list[Mechanism]:
    """Return the password mechanisms that both sides support, in the order in which to try them.

    Args:
        offered: the server's mechanisms, in upper case.
        username: the account to log in to.
        secret: its password.
        named: the only mechanism to use, in upper case; empty: any.
    """
    ours: list[Mechanism] = [mechanism(username, secret) for mechanism in _PREFERENCE]
    return [one for one in ours if one.name in offered and named in {"", one.name}]


def bearers(
    offered: Sequence[str], username: str, token: str, at: tuple[str, int], named: str = ""
) -> list[Mechanism]:
    """Return the mechanisms for an access token, as `usable` does; args: at: the server's name and port."""
    ours: list[Mechanism] = [XOAuth2(username, token), OAuthBearer(username, token, *at)]
    return [one for one in ours if one.name in offered and named in {"", one.name}]
