"""Find the author's domain (From field, RFC 5322 3.6.2), with which DMARC aligns signatures."""

import re

from mailer.mail.author import mailboxes

# Each alternative begins with a character that no other matches, so that there is no backtracking.
_QUOTED_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_OUTSIDE = re.compile(rb"[()]|\\.|\\\Z|[^()\\\"]+|" + _QUOTED_STRING.pattern, re.DOTALL)
_INSIDE = re.compile(rb"[()]|\\.|\\\Z|[^()\\]+", re.DOTALL)
_DOMAIN = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")


def author_domain(value: bytes) -> str | None:
    """Return the domain of the first address in a From field, in lower case and as A-labels.

    A field that `mail.author` can read with certainty has the address that the receiver checked the sender's
    permission for. Only in any other field is the address searched for.

    Args:
        value: the field's value, perhaps folded.

    Returns:
        None if the first address has no domain name that could have a key.
    """
    if read := mailboxes(value):
        return _domain_name(read[0][1].rpartition("@")[2])
    plain = _QUOTED_STRING.sub(b"q", _without_comments(value))
    opening = plain.find(b"<")
    # If there are angle brackets, the address is inside them, whatever the display name contains.
    address = plain[opening + 1 :].partition(b">")[0] if opening >= 0 else plain.partition(b",")[0]
    local_part, _, domain = address.rpartition(b"@")
    if not local_part.strip():
        return None
    return _domain_name(b"".join(domain.split()).decode("utf-8", "surrogateescape"))


def _domain_name(text: str) -> str | None:
    try:
        return ascii_domain(text)
    except ValueError:
        return None


def ascii_domain(domain: str) -> str:
    """Return a domain name in its DNS form: lower case, A-labels (RFC 5890), no trailing dot.

    Raises:
        ValueError: it is not a domain name; the text says what is wrong.
    """
    name = domain.removesuffix(".").lower()
    if not name.isascii():
        # Imported here, since few domains need it and loading its tables can take longer than a whole run.
        import idna  # noqa: PLC0415

        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError:
            raise ValueError("not a domain name that IDNA 2008 allows") from None
    if not _DOMAIN.fullmatch(name) or any(len(label) > 63 for label in name.split(".")):
        raise ValueError("not a domain name")
    return name


def _without_comments(value: bytes) -> bytes:
    """Remove comments (RFC 5322 3.2.2). They nest; a parenthesis in a quoted string does not begin one."""
    if b"(" not in value:
        return value
    kept: list[bytes] = []
    position, depth = 0, 0
    while part := (_INSIDE if depth else _OUTSIDE).match(value, position):
        text = part.group()
        if text == b"(":
            depth += 1
        elif text == b")":
            depth = max(0, depth - 1)
        elif depth == 0:
            kept.append(text)
        position = part.end()
    return b"".join(kept)
