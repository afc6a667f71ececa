"""A From field with another address: what `rewriteFrom` makes of a header."""

import re

from mailer.mail import header
from mailer.mail.author import mailboxes

# In a field that is not a plain list of mailboxes (a group, an odd comment): what a reply could go to.
_ADDRESS = re.compile(rb"[^\s<>,:;@]@[^\s<>,:;@]")


def new_author(head: bytes, address: str, *, reply_to: bool) -> bytes:
    """Write the From field that is to stand in place of the header's own, or where there is none.

    The display name stays, as it was written.

    Args:
        head: the header, with at most one From field.
        address: the author's from now on.
        reply_to: also write a Reply-To with the old value, unless there is one, or no address to reply to.

    Returns:
        The new fields, each with its line end.
    """
    values = header.values(head, b"from")
    value = values[0] if values else b""
    known = mailboxes(value)
    name = known[0][0] if known else ""
    shown = f"{name} <{address}>" if name else address
    field = f"From: {shown}\r\n".encode("utf-8", "surrogateescape")
    if reply_to and (known or _ADDRESS.search(value)) and not header.values(head, b"reply-to"):
        field += b"Reply-To:" + value + b"\r\n"
    return field
