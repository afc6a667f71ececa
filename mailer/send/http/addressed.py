"""Rewrite a header to name exactly the envelope's recipients, for interfaces that send to whom it names.

A field is kept unchanged only if every parser reads it alike. So the parser here knows a small part of RFC
5322 only: names and addresses, separated by commas. A field with anything else in it (comments, groups,
escapes, 8-bit), or with an address that is not a recipient of this attempt, is written anew, and the old one
is renamed to `X-Original-...`. The old fields of blind copies are removed.

The new fields come first, so that a parser that ends the header at a line that it cannot read has seen them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

_SHOWN = (b"To", b"Cc")
_NAMED = frozenset({b"to", b"cc", b"bcc", b"resent-to", b"resent-cc", b"resent-bcc"})
"""The fields that name recipients (RFC 5322 3.6.3, 3.6.6)."""
_BLIND = frozenset({b"bcc", b"resent-bcc"})
_ORIGINAL = {b"to": b"X-Original-To", b"cc": b"X-Original-Cc"} | {
    b"resent-to": b"X-Original-Resent-To",
    b"resent-cc": b"X-Original-Resent-Cc",
}

# Some parsers end a line at a bare CR or LF.
_LINE_END = re.compile(rb"\r\n|\r|\n")
_NOISE = re.compile(rb"[^!-~]+")

_TOKENS = re.compile(
    rb"(?P<b>(?:[ \t]|\r\n(?=[ \t]))+)"
    rb'|(?P<q>"[^"\\\x00-\x1f\x7f-\xff@<>]*")'
    rb"|(?P<w>[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+)"
    rb"|(?P<m>[@,<>])"
)
_MAILBOX = re.compile(r"b?(?:(?:[wq]b?)*<w@w>|w@w)b?")
"""One mailbox by its tokens' kinds (blank, quoted, word): an address, or a name and an address in <>."""
_SPECIALS = frozenset('@,<>;:"\\()[]')
"""Characters that encoded words must not contain (RFC 5322 3.2.3): some parsers decode before they parse."""


def addressed(header: bytes, recipients: Iterable[str]) -> bytes:
    """Return a header whose To, Cc and Bcc name these recipients, each once, and no others.

    Args:
        header: each field with its line end.
        recipients: the envelope addresses of this attempt.
    """
    left = {_key(address.encode()): address.encode() for address in recipients}
    fields = list(_fields(header))
    made = b""
    originals = b""
    for name in _SHOWN:
        values = [value for found, value, _ in fields if found == name.lower()]
        named = _mailboxes(values[0]) if len(values) == 1 else None
        if named and len(set(named)) == len(named) and left.keys() >= set(named):
            made += name + b":" + values[0] + b"\r\n"
        else:
            every = [key for value in values for key in _mailboxes(value) or ()]
            named = [key for key in dict.fromkeys(every) if key in left]
            made += _field(name, [left[key] for key in named])
            originals += b"".join(_ORIGINAL[name.lower()] + b":" + value + b"\r\n" for value in values)
        for key in named:
            del left[key]
    resent = [(name, value) for name, value, _ in fields if name in _ORIGINAL.keys() - {b"to", b"cc"}]
    originals += b"".join(_ORIGINAL[name] + b":" + value + b"\r\n" for name, value in resent)
    rest = b"".join(line for name, _, line in fields if name not in _NAMED)
    return made + _field(b"Bcc", list(left.values())) + originals + rest


def _fields(header: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield the name, the value and the whole of each field.

    All line ends become CRLF; the whole ends in one, the value does not. The name is in lower case and
    without unprintable characters, as a lenient parser reads it. A continuation line at the beginning is left
    out, since it would continue the field that is inserted before it.
    """
    gathered: list[bytes] = []
    for line in _LINE_END.split(header):
        if line.startswith((b" ", b"\t")):
            if gathered:
                gathered[-1] += b"\r\n" + line
        elif line:
            gathered.append(line)
    for field in gathered:
        name, colon, value = field.partition(b":")
        known = _NOISE.sub(b"", name).lower() if colon else b""
        yield known, value, field + b"\r\n"


def _field(name: bytes, addresses: Sequence[bytes]) -> bytes:
    """Return a field with one address a line; empty if there are no addresses."""
    if not addresses:
        return b""
    return name + b": " + b",\r\n ".join(b"<" + address + b">" for address in addresses) + b"\r\n"


def _mailboxes(value: bytes) -> list[tuple[bytes, bytes]] | None:
    """Parse a list of mailboxes; None if another parser might read it differently."""
    kinds, words = _tokens(value)
    if not kinds:
        return None
    found = []
    at = 0
    for kind in kinds.split(","):
        end = at + len(kind)
        if not _MAILBOX.fullmatch(kind):
            return None
        sign = at + kind.index("@")
        found.append(_key(words[sign - 1] + b"@" + words[sign + 1]))
        at = end + 1
    return found


def _tokens(value: bytes) -> tuple[str, list[bytes]]:
    """Return the kinds of a value's tokens, a character each, and the tokens; empty if one is unknown."""
    kinds, words, at = "", [], 0
    if b"=?" in value and _hides_specials(value):
        return "", []
    while at < len(value):
        token = _TOKENS.match(value, at)
        if token is None:
            return "", []
        at = token.end()
        kinds += token.group().decode() if token.lastgroup == "m" else str(token.lastgroup)
        words.append(token.group())
    return kinds, words


def _hides_specials(value: bytes) -> bool:
    """Tell whether an encoded word (RFC 2047) is malformed, or has characters that separate addresses."""
    from email.errors import HeaderParseError  # noqa: PLC0415 - few fields have one
    from email.header import decode_header  # noqa: PLC0415

    try:
        found = [text.decode(charset) for text, charset in decode_header(value.decode("ascii")) if charset]
    except (HeaderParseError, LookupError, ValueError):
        return True
    return not found or any(not _SPECIALS.isdisjoint(text) for text in found)


def _key(address: bytes) -> tuple[bytes, bytes]:
    """Return a key that is equal for equal addresses: the domain's case does not matter (RFC 5321 2.4)."""
    local, _, domain = address.rpartition(b"@")
    return local, domain.lower()
