"""Keeps secrets out of what a server says, in every encoding in which it may quote what we sent.

A server may quote a form as it was posted, a JSON text, a canonical request with all its headers, or a header
of Basic; and it may quote the beginning only.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator

MASK = "***"

_SHORTEST = 6
"""Characters; less is a syllable of honest words."""
_BEGINNING = 16
"""Characters of a long secret that are as good as all of it: a server may quote its beginning only."""
_WHOLE = 2048
"""Characters up to which all of a secret is looked for; it may have spaces in it."""
_PERCENT = r"%(?:25)*"
"""A form that is encoded once more has the percent sign as `%25`."""


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text without the secrets, however they are encoded; those of under 6 characters stay."""
    forms = [form for secret in sorted(_known(secrets), key=len, reverse=True) for form in _forms(secret)]
    return re.sub("|".join(forms), MASK, text, flags=re.IGNORECASE) if forms else text


def _known(secrets: Iterable[str]) -> set[str]:
    """Return the secrets that are long enough; of a JWT also its parts, which a server may quote alone."""
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
    """Match a character as it is, percent-encoded (RFC 3986 2.1), or escaped as in JSON or HTML."""
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
    # JSON, and a shell's quoting, have a backslash before some.
    forms += [r"\\" + re.escape(character)] if character in "\"/\\'" else []
    return f"(?:{'|'.join(forms)})"


def _base64(secret: bytes) -> Iterator[str]:
    """Match base64 of a text that has the secret in it, such as that of Basic or of AUTH PLAIN."""
    for before in range(3):
        encoded = b64encode(bytes(before) + secret).decode().rstrip("=")
        # The first characters have bits of what stands before, the last of what follows.
        known = encoded[(0, 2, 3)[before] : (before + len(secret)) * 8 // 6][:_BEGINNING]
        form = "".join({"+": r"(?:[+-]|%2b)", "/": r"(?:[/_]|%2f|\\/)"}.get(each, each) for each in known)
        yield rf"{form}(?:[\w+/=-]|%2b|%2f|%3d|\\/)*"
