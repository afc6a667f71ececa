"""Extracts the decoded Subject and the Message-ID of a message, for the ledger."""

import re
from binascii import Error, a2b_base64, a2b_qp
from typing import NamedTuple

from mailer.mail import header

_MAX_LENGTH = 250
"""Characters kept of each; a line may have 998 (RFC 5322), but more than 250 do not help a search."""
_WORD = re.compile(r"=\?([\w-]{1,40})(?:\*[\w-]*)?\?([bBqQ])\?([^?\s]*)\?=")
_BETWEEN = re.compile(r"(\?=)\s+(?==\?)")


class Headline(NamedTuple):
    """The Subject and Message-ID of a message; empty if it has none, or they must not be logged."""

    subject: str = ""
    message_id: str = ""


def headline(head: bytes) -> Headline:
    """Read both from a header; an encoded word that is damaged stays as it is."""
    return Headline(_decoded(_first(head, b"subject")), _first(head, b"message-id")[:_MAX_LENGTH])


def _first(head: bytes, name: bytes) -> str:
    value = header.first(head, name)
    return " ".join(value[: 4 * _MAX_LENGTH].decode("utf-8", "replace").split()) if value else ""


def _decoded(text: str) -> str:
    """Decode encoded words (RFC 2047), and remove white space between two of them."""
    if "=?" in text:
        text = _WORD.sub(_word, _BETWEEN.sub(r"\1", text))
    return text[:_MAX_LENGTH]


def _word(found: re.Match[str]) -> str:
    charset, encoding, content = found.groups()
    try:
        data = a2b_base64(content) if encoding in "bB" else a2b_qp(content.encode(), header=True)
        return data.decode(charset, "replace")
    except (Error, LookupError, ValueError):
        return found[0]
