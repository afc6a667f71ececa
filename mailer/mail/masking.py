"""Mask secrets in a server's reply, in every encoding in which the server may quote our request.

A server may quote a posted form, a JSON text, a canonical request with all its headers, or a Basic
authorization header, and it may quote only the beginning.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator

MASK = "***"

_SHORTEST = 6
"""Characters of the shortest secret that is masked; shorter ones occur inside ordinary words."""
_BEGINNING = 16
"""Characters of a long secret that are masked even if the rest is cut off."""
_WHOLE = 2048
"""Characters of the longest secret that is also matched as a whole, since it may contain spaces."""
_PERCENT = r"%(?:25)*"
"""A percent sign, which is `%25` in a form that was encoded again."""


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text with the secrets masked, however they are encoded; those under 6 characters stay."""
    forms = [form for secret in sorted(_known(secrets), key=len, reverse=True) for form in _forms(secret)]
    return re.sub("|".join(forms), MASK, text, flags=re.IGNORECASE) if forms else text


def _known(secrets: Iterable[str]) -> set[str]:
    """Return the secrets that are long enough, and the parts of each JWT, which a server may quote alone."""
    found = set(secrets)
    found |= {part for one in found if one.startswith("eyJ") for part in one.split(".")}
    return {one for one in found if len(one) >= _SHORTEST}


def _forms(secret: str) -> Iterator[str]:
    if len(secret) <= _WHOLE:
        yield "".join(map(_character, secret))
    if len(secret) > _BEGINNING:
        yield "".join(map(_character, secret[:_BEGINNING])) + r"\S*"
    yield from _base64(secret.encode("utf-8", "surrogatepass"))


def _character(character: str) -> str:
    """Return a pattern for one character: literal, percent-encoded (RFC 3986 2.1), JSON- or HTML-escaped."""
    if character.isascii() and character.isalnum():
        return character
    octets = character.encode("utf-8", "surrogatepass")
    units = character.encode("utf-16-be", "surrogatepass")
    forms = [
        re.escape(character),
        "".join(f"{_PERCENT}{octet:02x}" for octet in octets),
        "".join(rf"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)),
        rf"&#(?:0*{ord(character)}|x0*{ord(character):x});",
    ]
    named = {
        " ": rf"\+|{_PERCENT}2b",
        "&": "&amp;",
        '"': "&quot;",
        "<": "&lt;",
        ">": "&gt;",
        "\n": r"\\n",
        "\t": r"\\t",
    }
    forms += [named[character]] if character in named else []
    # JSON and shell quoting put a backslash before some characters.
    forms += [r"\\" + re.escape(character)] if character in "\"/\\'" else []
    return f"(?:{'|'.join(forms)})"


def _base64(secret: bytes) -> Iterator[str]:
    """Yield patterns for base64 of a text that contains the secret, as in Basic or AUTH PLAIN."""
    for before in range(3):
        encoded = b64encode(bytes(before) + secret).decode().rstrip("=")
        # The first characters also encode bits of the preceding text, the last ones of the following text.
        known = encoded[(0, 2, 3)[before] : (before + len(secret)) * 8 // 6][:_BEGINNING]
        form = "".join({"+": r"(?:[+-]|%2b)", "/": r"(?:[/_]|%2f|\\/)"}.get(each, each) for each in known)
        yield rf"{form}(?:[\w+/=-]|%2b|%2f|%3d|\\/)*"
