"""Replace the address in a From field, for `rewriteFrom`."""

from mailer.mail import header
from mailer.mail.author import mailboxes
from mailer.mail.lazy_pattern import compile_late

# Finds an address to reply to in a field that is not a plain list of mailboxes (a group, an odd comment).
_ADDRESS = compile_late(rb"[^\s<>,:;@]@[^\s<>,:;@]")


def new_author(head: bytes, address: str, *, reply_to: bool) -> bytes:
    """Build the From field that replaces the header's own, or that is added when it has none.

    The display name is kept as written.

    Args:
        head: the header, with at most one From field.
        address: the author's new address.
        reply_to: also build a Reply-To with the old value, unless the header has one or the old value
            contains no address.

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
