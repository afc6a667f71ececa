"""Parse the mailboxes of a From field (RFC 5322 3.6.2) in linear time, and replace its address.

The parser is strict on purpose. It serves one check, whether a user may send as these authors, and an address
that a mail program reads differently would bypass that check. The result for anything that is not clearly a
list of mailboxes is `None`.
"""

import re

from mailer.mail import header
from mailer.mail.lazy_pattern import compile_late

# Characters that may not occur in an atom, or in an unquoted display name. The sets are negated because
# compiling positive ones takes 10 ms at each start: `re` expands a set that goes up to U+10FFFF.
_SPECIAL = r'()<>@,;:\\"\[\]\x7f'
_NO_ATOM = rf"\0-\x20{_SPECIAL}"
_NO_NAME = rf"\0-\x08\x0e-\x1b{_SPECIAL}"
_QUOTED = r'"[^"\\]*+(?:\\.[^"\\]*+)*"'
_LOCAL = rf"(?:[^{_NO_ATOM}]++|{_QUOTED})"
_ADDRESS = rf"{_LOCAL}@(?:[^{_NO_ATOM}]++|\[[^\[\]\\]*\])"
_NAME = rf"[^{_NO_NAME}]*+(?:{_QUOTED}[^{_NO_NAME}]*+)*"
_MAILBOX = compile_late(rf"\s*+(?:(?P<name>{_NAME})<\s*+(?P<angle>{_ADDRESS})\s*+>|(?P<bare>{_ADDRESS}))\s*+")
_MAX_MAILBOXES = 100
_MAX_OCTETS = 64 * 1024
"""More than `_MAX_MAILBOXES` need. Each quoted string takes 200 octets of memory while a name is parsed."""
# Finds an address to reply to in a field that is not a plain list of mailboxes (a group, an odd comment).
_ANY_ADDRESS = compile_late(rb"[^\s<>,:;@]@[^\s<>,:;@]")


def mailboxes(value: bytes) -> list[tuple[str, str]] | None:
    """Parse the value of a From field.

    Returns:
        (display name as written, address) for each author, or None if the value is ambiguous or malformed.
    """
    if len(value) > _MAX_OCTETS:
        return None
    text = _without_comments(value.decode("utf-8", "surrogateescape").replace("\r\n", ""))
    if text is None:
        return None
    found: list[tuple[str, str]] = []
    at = 0
    while len(found) < _MAX_MAILBOXES and (mailbox := _MAILBOX.match(text, at)):
        found.append(((mailbox["name"] or "").strip(), mailbox["angle"] or mailbox["bare"]))
        at = mailbox.end()
        if at == len(text):
            return found
        if text[at] != ",":
            return None
        at += 1
    return None


def _without_comments(text: str) -> str | None:
    """Replace each comment (RFC 5322 3.2.2; they may nest) with a blank; None: one is not closed."""
    if "(" not in text and ")" not in text:
        return text
    kept: list[str] = []
    depth = 0
    for found in re.finditer(rf"{_QUOTED}|\\.|[()]|[^\"\\()]++|.", text, re.DOTALL):
        word = found.group()
        if word == "(":
            depth += 1
        elif word == ")":
            depth -= 1
            kept.append(" ")
            if depth < 0:
                return None
        elif not depth:
            kept.append(word)
        elif word.startswith('"'):
            # Inside a comment a quotation mark quotes nothing, and readers may disagree: give up.
            return None
    return None if depth else "".join(kept)


def new_author(head: bytes, address: str, *, reply_to: bool) -> tuple[list[bytes], bytes]:
    """Build the From field that replaces the header's own, or that is added when it has none.

    The display name is kept as written.

    Args:
        head: the header, with at most one From field.
        address: the author's new address.
        reply_to: also build a Reply-To with the old value, unless the header has one that is not empty, or
            the old value contains no address.

    Returns:
        The names of the fields to drop, in lower case, and the new fields, each with its line end.
    """
    values = header.values(head, b"from")
    value = values[0] if values else b""
    known = mailboxes(value)
    name = known[0][0] if known else ""
    shown = f"{name} <{address}>" if name else address
    field = f"From: {shown}\r\n".encode("utf-8", "surrogateescape")
    dropped = [b"from"]
    # Web forms write an empty Reply-To, with which replies would go to the new author.
    answered = any(map(bytes.strip, header.values(head, b"reply-to")))
    if reply_to and not answered and (known or _ANY_ADDRESS.search(value)):
        dropped.append(b"reply-to")
        field += b"Reply-To:" + value + b"\r\n"
    return dropped, field
