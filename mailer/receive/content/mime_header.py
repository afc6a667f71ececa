"""The header of a message or of a part, as MIME reads it (RFC 2045): what its body is, and may become.

Strict, because it is read in order to be rewritten: where two readers may differ on what a header says,
there is no answer that is right for both, and the message is refused.
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
# RFC 2046 5.1.1 has 70 octets and fewer characters; what everybody reads all the same, we read.
_USABLE_BOUNDARY = re.compile(rb"[!-~](?:[ -~]{0,198}[!-~])?")


class Unencodable(ValueError):
    """A message has a long line that cannot be encoded; the text says why, to the application's author."""


class Kind(Enum):
    """What is inside a body."""

    TEXT = "text"
    """Anything but the others: to us a run of lines."""
    PARTS = "parts"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Entity:
    """What a header says."""

    kind: Kind
    boundary: bytes = b""
    """Of PARTS: what their delimiters have after the dashes."""
    subtype: bytes = b""
    """Of PARTS: in lower case."""
    obstacle: str = ""
    """Why a TEXT must stay as it is; empty: it need not."""
    labelled: bool = True
    """It has a Content-Type."""
    versioned: bool = True
    """It has a MIME-Version, as the header of a message must for the rest to count (RFC 2045 4)."""
    signed: bool = False
    """Somebody has signed the body in a field."""


def read(head: bytes, *, in_digest: bool = False) -> Entity:
    """Read a header, each field with its line end.

    Args:
        head: the header, without the empty line.
        in_digest: it is a part of a multipart/digest, where parts are messages unless they say otherwise.

    Raises:
        Unencodable: it can be read in more than one way.
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
    """Say in a header that its body is quoted-printable, or only that this is MIME, so that its parts can be.

    Args:
        head: as `read` has taken it.
        encoding: the body is encoded.
        version: it is a message's, without a MIME-Version.
        charset: of a body that has octets beyond ASCII and no Content-Type, else empty.
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
    """Tell whether each line begins a field or goes on with one, and has its end."""
    whole = not head or (head.endswith(b"\n") and not head.startswith((b" ", b"\t")))
    return whole and not _NO_FIELD.search(head)


def _value(head: bytes, name: bytes, default: bytes) -> bytes:
    found = header.values(head, name)
    return found[0].replace(b"\r\n", b"") if found else default


def _typed(value: bytes) -> Entity:
    media = _MEDIA_TYPE.match(value)
    # `multipart` alone is text by RFC 2045 5.2, and parts to many.
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
        # RFC 2046 5.2: none of the others may be encoded.
        return Entity(Kind.TEXT, obstacle=f"its part is a message/{_shown(subtype)}")
    return Entity(Kind.TEXT)


def _boundary(parameters: bytes) -> bytes | None:
    """Read the one `boundary` among parameters that can be read from the first to the last; else None."""
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
