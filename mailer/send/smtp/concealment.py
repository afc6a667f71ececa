"""Keeps the password out of what a server says: it may quote it, in any reply, and in a later session too.

Replies are concealed where they are read, so that journal, ledger, log, notifications and the state of
providers never see the original.
"""

import contextlib
import re
from base64 import b64encode
from itertools import chain

MASK = "***"

_KNOWN = 16
"""Octets of a token by which it is known."""
_SHORT = 8
"""Octets. A shorter password may be a syllable of honest words, so it must stand as a word of its own."""


class Concealment:
    """One login as replies may have it back: the password, and what AUTH makes of it, in any case.

    A password that is a word of an honest reply is concealed there too, at worst at the price of a reading.
    """

    __slots__ = ("_pattern",)

    def __init__(self, *forms: bytes) -> None:
        """Args: forms: patterns of what is concealed; see `of_password` and `of_token`."""
        self._pattern = re.compile(b"|".join(forms), re.IGNORECASE)

    @classmethod
    def of_password(cls, username: str, password: str) -> "Concealment":
        return cls(*_forms(username, password))

    @classmethod
    def of_token(cls, username: str, *tokens: str) -> "Concealment":
        """As for a password, for access tokens: servers quote them in part, so a beginning is enough.

        Args:
            username: who logs in.
            tokens: the one that is used, and those that an earlier session has sent to the server.
        """
        return cls(*chain.from_iterable(_token_forms(username, token) for token in tokens if token))

    def octets(self, text: bytes) -> bytes:
        """Return the text without the password."""
        return self._pattern.sub(MASK.encode(), text)

    def words(self, text: str) -> str:
        """As `octets`, for text that was decoded."""
        return self.octets(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def lines(self, lines: tuple[str, ...]) -> tuple[str, ...]:
        """Return the lines of a reply without a password that is cut in two by the end of one."""
        for joint in ("", " "):
            whole = joint.join(lines)
            if whole != (concealed := self.words(whole)):
                return (concealed,)
        return lines


def _forms(username: str, password: str) -> list[bytes]:
    secret, name = password.encode(), username.encode()
    # Of PLAIN's answer (RFC 4616) the name comes first, which is as far as all of it is known to be ours.
    forms = [_base64(b"\0" + name + b"\0" + secret, max(_SHORT, (len(name) + 2) // 3 * 4))]
    if secret:
        forms += [_base64(secret, _SHORT), _word(secret)]
        with contextlib.suppress(UnicodeEncodeError):
            forms += [_word(password.encode("latin-1"))]
    return forms


def _token_forms(username: str, token: str) -> list[bytes]:
    # What AUTH makes of it begins with the name (XOAUTH2, OAUTHBEARER).
    answers = [
        _base64(f"{begin}{username},\1auth=Bearer {token}".encode(), 16) for begin in ("user=", "n,a=")
    ]
    known = [re.escape(token[:_KNOWN].encode()) + rb"[\w.~+/=-]*"] if len(token) >= _SHORT else []
    return [*answers, *known, *_forms(username, token)]


def _word(form: bytes) -> bytes:
    """Match a password; a short one neither within a word nor within a number such as 5.1.1."""
    if len(form) >= _SHORT:
        return re.escape(form)
    return rb"(?<!\w)(?<!\w\.)" + re.escape(form) + rb"(?!\.?\w)"


def _base64(form: bytes, known: int) -> bytes:
    """Match base64 by its first characters, for servers cut what they quote; a short one as a word."""
    encoded = b64encode(form).rstrip(b"=")
    if len(encoded) < _SHORT:
        return rb"(?<![\w+/])" + re.escape(encoded) + rb"(?![\w+/])"
    return re.escape(encoded[:known]) + rb"[\w+/=]*"
