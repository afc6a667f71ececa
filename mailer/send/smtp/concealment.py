"""Remove passwords and tokens from server replies: any reply may quote them, even in a later session.

Replies are concealed where they are read, so that journal, ledger, log, notifications and the state of
providers never contain the original.
"""

import contextlib
import re
from base64 import b64encode
from itertools import chain

MASK = "***"

_TOKEN_PREFIX = 16
"""Leading characters of a token that are enough to recognize it."""
_SHORT = 8
"""Octets. A shorter password may occur within ordinary words, so it is recognized as a whole word only."""
_DIGEST = re.compile(rb"[0-9a-f]{32}")


class Concealment:
    """Matches one login as replies may quote it: the password and its encodings in AUTH, in any case.

    A password that is an ordinary word is concealed wherever a reply has that word. At worst, the reply is
    then not understood.
    """

    __slots__ = ("_pattern",)

    def __init__(self, *forms: bytes) -> None:
        """Prepare; args: forms: regular expressions of what to conceal; see `of_password` and `of_token`."""
        self._pattern = re.compile(b"|".join(forms), re.IGNORECASE)

    @classmethod
    def of_password(cls, username: str, password: str) -> "Concealment":
        return cls(*_forms(username, password))

    @classmethod
    def of_token(cls, username: str, *tokens: str) -> "Concealment":
        """Conceal access tokens. Servers quote them in part, so the beginning is enough to match.

        Args:
            username: the account that logs in.
            tokens: the one in use, and those that earlier sessions have sent to the server.
        """
        return cls(*chain.from_iterable(_token_forms(username, token) for token in tokens if token))

    def with_answer(self, answer: bytes) -> "Concealment":
        """Conceal the answer to a challenge of AUTH as well; args: answer: before base64.

        CRAM-MD5's contains no password, but somebody who knows the challenge can try passwords against it.
        """
        if len(answer) < _SHORT:
            return self
        digest = answer.rpartition(b" ")[2]
        forms = [_base64(answer, 12), *[re.escape(digest)] * bool(_DIGEST.fullmatch(digest))]
        return Concealment(self._pattern.pattern, *forms)

    def octets(self, text: bytes) -> bytes:
        """Return the text without the password."""
        return self._pattern.sub(MASK.encode(), text)

    def words(self, text: str) -> str:
        """Return decoded text without the password, as `octets` does for bytes."""
        return self.octets(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def lines(self, lines: tuple[str, ...]) -> tuple[str, ...]:
        """Return the lines of a reply without a password that a line end splits in two."""
        for joint in ("", " "):
            whole = joint.join(lines)
            if whole != (concealed := self.words(whole)):
                return (concealed,)
        return lines


def masked(command: str) -> str:
    """Return a command of an AUTH exchange without its secret: with the verb and the mechanism at most."""
    words = command.split(" ")
    return " ".join([*words[:2], *[MASK] * (len(words) > 2)]) if words[0] == "AUTH" else MASK


def _forms(username: str, password: str) -> list[bytes]:
    secret, name = password.encode(), username.encode()
    # PLAIN's response (RFC 4616) begins with the name: a quoted beginning this long is certainly ours.
    forms = [_base64(b"\0" + name + b"\0" + secret, max(_SHORT, (len(name) + 2) // 3 * 4))]
    if secret:
        forms += [_base64(secret, _SHORT), _word(secret)]
        with contextlib.suppress(UnicodeEncodeError):
            forms += [_word(password.encode("latin-1"))]
    return forms


def _token_forms(username: str, token: str) -> list[bytes]:
    # The AUTH responses of XOAUTH2 and OAUTHBEARER begin with the name.
    answers = [
        _base64(f"{begin}{username},\1auth=Bearer {token}".encode(), 16) for begin in ("user=", "n,a=")
    ]
    known = [re.escape(token[:_TOKEN_PREFIX].encode()) + rb"[\w.~+/=-]*"] if len(token) >= _SHORT else []
    return [*answers, *known, *_forms(username, token)]


def _word(form: bytes) -> bytes:
    """Return a pattern for a password; a short one does not match within a word or a number such as 5.1.1."""
    if len(form) >= _SHORT:
        return re.escape(form)
    return rb"(?<!\w)(?<!\w\.)" + re.escape(form) + rb"(?!\.?\w)"


def _base64(form: bytes, known: int) -> bytes:
    """Return a pattern for the beginning of base64, which servers truncate; if short, for a whole word."""
    encoded = b64encode(form).rstrip(b"=")
    if len(encoded) < _SHORT:
        return rb"(?<![\w+/])" + re.escape(encoded) + rb"(?![\w+/])"
    return re.escape(encoded[:known]) + rb"[\w+/=]*"
