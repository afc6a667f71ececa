"""How people call a message, for the ledger: its Subject, decoded, and its Message-ID."""

import re
from binascii import Error, a2b_base64, a2b_qp
from typing import NamedTuple

from mailer.mail import header

_LONGEST = 250
"""Characters of each that are kept; RFC 5322 has lines of 998, and nobody searches by more."""
_WORD = re.compile(r"=\?([\w-]{1,40})(?:\*[\w-]*)?\?([bBqQ])\?([^?\s]*)\?=")
_BETWEEN = re.compile(r"(\?=)\s+(?==\?)")


class Headline(NamedTuple):
    """Empty where the message has none, or nobody wants it kept."""

    subject: str = ""
    message_id: str = ""


def headline(head: bytes) -> Headline:
    """Take it from a header; damage costs no more than its words."""
    return Headline(_decoded(_first(head, b"subject")), _first(head, b"message-id")[:_LONGEST])


def _first(head: bytes, name: bytes) -> str:
    value = header.first(head, name)
    return " ".join(value[: 4 * _LONGEST].decode("utf-8", "replace").split()) if value else ""


def _decoded(text: str) -> str:
    """Decode encoded words (RFC 2047); blanks between two of them are none."""
    if "=?" in text:
        text = _WORD.sub(_word, _BETWEEN.sub(r"\1", text))
    return text[:_LONGEST]


def _word(found: re.Match[str]) -> str:
    charset, encoding, content = found.groups()
    try:
        data = a2b_base64(content) if encoding in "bB" else a2b_qp(content.encode(), header=True)
        return data.decode(charset, "replace")
    except (Error, LookupError, ValueError):
        return found[0]
