"""Parses and edits the MIME header of a message or part (RFC 2045): what its body is, and how it is encoded.

The parser is strict because the header will be rewritten. If two mail programs could read a header
differently, no rewriting is right for both, and the message is refused.
"""

import re
from dataclasses import dataclass
from enum import Enum

from mailer.mail import header
from mailer.mail.header import HeaderTooLarge
from mailer.mail.reply import printable

_TYPE, _ENCODING, _VERSION = b"content-type", b"content-transfer-encoding", b"mime-version"
_SIGNATURES = (b"dkim-signature", b"arc-message-signature")
_LOOKED_FOR = (_TYPE, _ENCODING, _VERSION, *_SIGNATURES)
_IDENTITY = {b"", b"7bit", b"8bit", b"binary"}

_NO_FIELD = re.compile(rb"^(?![!-9;-~]++:|[ \t]|\Z)", re.MULTILINE)
_TOKEN = rb"[!#$%&'*+.^_`{|}~0-9A-Za-z-]++"
_MEDIA_TYPE = re.compile(rb"\s*+(" + _TOKEN + rb")(?:/(" + _TOKEN + rb"))?\s*+(?=;|\Z)")
_PARAMETER = re.compile(
    rb";\s*+(?:(" + _TOKEN + rb')\s*+=\s*+(?:"([^"\\]*+(?:\\.[^"\\]*+)*)"|([^\s;"]++))\s*+)?', re.DOTALL
)
# RFC 2046 5.1.1 allows 70 octets and fewer characters; this accepts what mail programs accept in practice.
_USABLE_BOUNDARY = re.compile(rb"[!-~](?:[ -~]{0,198}[!-~])?")


class Unencodable(ValueError):
    """A message has a long line that cannot be encoded; the text tells the application's author why."""


class Kind(Enum):
    """The structure of a body."""

    TEXT = "text"
    """Anything else: a body that is treated as a sequence of lines."""
    PARTS = "parts"
    """A multipart."""
    MESSAGE = "message"
    """An enclosed message."""


@dataclass(frozen=True, slots=True)
class Entity:
    """The MIME properties of a message or part, from its header."""

    kind: Kind
    boundary: bytes = b""
    """For PARTS: the boundary, without the dashes that begin a delimiter."""
    subtype: bytes = b""
    """For PARTS: the subtype, in lower case."""
    obstacle: str = ""
    """For TEXT: the reason why the body must not be encoded; empty: it may be."""
    labelled: bool = True
    """Whether there is a Content-Type."""
    versioned: bool = True
    """Whether there is a MIME-Version; a message without one has no MIME structure (RFC 2045 4)."""
    signed: bool = False
    """Whether a header field signs the body (DKIM, ARC)."""


def read(head: bytes, *, in_digest: bool = False) -> Entity:
    """Parse a header, each field with its line end.

    Args:
        head: the header, without the empty line.
        in_digest: it belongs to a part of a multipart/digest, where parts are messages by default.

    Raises:
        Unencodable: the header is ambiguous or too large.
    """
    try:
        fields = header.counts(head, _LOOKED_FOR)
    except HeaderTooLarge as error:
        raise Unencodable("a part has a larger header than we read") from error
    if not _is_header(head):
        raise Unencodable("a header has a line that is not a field")
    if max(fields[_TYPE], fields[_ENCODING], fields[_VERSION]) > 1:
        raise Unencodable("a header has a MIME field twice")
    entity = _typed(_value(head, _TYPE, b"message/rfc822" if in_digest else b"text/plain"))
    encoding = _value(head, _ENCODING, b"").strip().lower()
    if encoding not in _IDENTITY:
        entity = Entity(Kind.TEXT, obstacle=f"its part is encoded already ({_shown(encoding)})")
    return Entity(
        entity.kind,
        entity.boundary,
        entity.subtype,
        entity.obstacle,
        labelled=bool(fields[_TYPE]),
        versioned=bool(fields[_VERSION]),
        signed=any(fields[name] for name in _SIGNATURES),
    )


def encoded(head: bytes, *, encoding: bool, version: bool, charset: str) -> bytes:
    """Return a header that declares its body quoted-printable, or only adds the MIME-Version its parts need.

    Args:
        head: the header, as given to `read`.
        encoding: add Content-Transfer-Encoding, because the body is encoded.
        version: add MIME-Version, because this is a message's header without one.
        charset: for a Content-Type to add to a body with octets beyond ASCII that has none; else empty.
    """
    added = []
    if version:
        added.append(b"MIME-Version: 1.0\r\n")
    if charset:
        added.append(b"Content-Type: text/plain; charset=" + charset.encode() + b"\r\n")
    if encoding:
        head = header.without(head, (_ENCODING,))
        added.append(b"Content-Transfer-Encoding: quoted-printable\r\n")
    return head + b"".join(added)


def _is_header(head: bytes) -> bool:
    """Return whether each line begins or continues a field, and has its line end."""
    whole = not head or (head.endswith(b"\n") and not head.startswith((b" ", b"\t")))
    return whole and not _NO_FIELD.search(head)


def _value(head: bytes, name: bytes, default: bytes) -> bytes:
    found = header.values(head, name)
    return found[0].replace(b"\r\n", b"") if found else default


def _typed(value: bytes) -> Entity:
    media = _MEDIA_TYPE.match(value)
    # `multipart` without a subtype is text by RFC 2045 5.2, but many programs read it as parts.
    if media is None or (media[1].lower() == b"multipart" and not media[2]):
        return Entity(Kind.TEXT, obstacle="the Content-Type of its part cannot be read")
    family, subtype = media[1].lower(), (media[2] or b"").lower()
    if family == b"multipart":
        boundary = _boundary(value[media.end() :])
        if boundary is None:
            return Entity(Kind.TEXT, obstacle="the boundary in the Content-Type above it cannot be read")
        return Entity(Kind.PARTS, boundary, subtype)
    if family == b"message":
        if subtype in {b"rfc822", b"global"}:
            return Entity(Kind.MESSAGE)
        # RFC 2046 5.2: no other subtype of message may be encoded.
        return Entity(Kind.TEXT, obstacle=f"its part is a message/{_shown(subtype)}")
    return Entity(Kind.TEXT)


def _boundary(parameters: bytes) -> bytes | None:
    """Return the `boundary`; None if it is missing, repeated, unusable, or any parameter cannot be parsed."""
    found, at = [], 0
    while parameter := _PARAMETER.match(parameters, at):
        name, quoted, plain = parameter.groups()
        at = parameter.end()
        if name is not None and name.lower().split(b"*")[0] == b"boundary":
            found.append(None if b"*" in name else quoted if plain is None else plain)
    if at < len(parameters) or len(found) != 1:
        return None
    [boundary] = found
    usable = boundary is not None and b"\\" not in boundary and _USABLE_BOUNDARY.fullmatch(boundary)
    return boundary if usable else None


def _shown(value: bytes) -> str:
    return printable(value.decode("ascii", "replace"), 40)
