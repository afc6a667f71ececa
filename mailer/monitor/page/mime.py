"""Read what a person wants to see of a message: its fields, its text, its HTML, what is attached.

It reads hostile mail. Every dimension has a bound, each octet is looked at a bounded number of times, and
nothing recurses: the standard library's parser costs the depth of the nesting for each line, and ends at a
depth of some hundreds. What is beyond a bound is left out, and `notes` says so.
"""

import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message

import msgspec

MAX_READ = 2 * 2**20
"""Octets of a message that are read; text comes first in nearly all mail, and attachments behind it."""
_MAX_HEADER = 64 * 1024
"""Octets of the message's header that are shown (Exim: 1 MiB; Postfix: header_size_limit, 102,400)."""
_MAX_PART_HEADER = 8 * 1024
_MAX_FIELDS = 300
_MAX_VALUE = 2000
"""Octets of a field; of Content- fields this bounds the parsing of parameters, which is quadratic in it."""
_MAX_PARTS = 200
_MAX_DEPTH = 20
"""Multiparts within each other; mail programs make four."""
_MAX_BOUNDARY = 200
"""Octets; RFC 2046 5.1.1 allows 70."""
MAX_TEXT = 200_000
"""Characters of a text that are shown."""
_MAX_ENCODED = 4 * MAX_TEXT
"""Octets of a part that are decoded: an octet in quoted-printable takes three, and a line's end more."""

_CODECS = {
    **dict.fromkeys(("", "us-ascii", "ascii", "utf-8", "utf8"), "utf-8"),
    **dict.fromkeys(("iso-8859-1", "latin1", "windows-1252", "cp1252"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk", "gb18030", "cp936"), "gb18030"),
    **dict.fromkeys(("iso-8859-5",), "iso8859_5"),
    **dict.fromkeys(("windows-1251", "cp1251"), "cp1251"),
    **dict.fromkeys(("koi8-r",), "koi8_r"),
    **dict.fromkeys(("big5",), "big5"),
    **dict.fromkeys(("shift_jis", "sjis"), "shift_jis"),
    **dict.fromkeys(("iso-2022-jp",), "iso2022_jp"),
    **dict.fromkeys(("euc-jp",), "euc_jp"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987"), "euc_kr"),
}
"""Charsets that are decoded. Of Python's others some take quadratic time (punycode), or are no charsets."""
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


class Part(msgspec.Struct, frozen=True):
    """A part that is not shown."""

    name: str
    """Of its file; empty: it has none."""
    kind: str
    """Its Content-Type, without parameters."""
    size: int
    """Octets, about, once decoded."""
    whole: bool
    """It ends within what was read; otherwise it has more octets."""


class Content(msgspec.Struct, frozen=True):
    """What can be shown of a message."""

    fields: tuple[tuple[str, str], ...]
    """Names and decoded values, in the order of the header."""
    text: str | None
    """None: it has no text part."""
    html: str | None
    """As it came; None: it has no HTML part."""
    others: tuple[Part, ...]
    notes: tuple[str, ...]
    """What was left out, in sentences."""


class _Leaf(msgspec.Struct, frozen=True):
    """A part that has no parts."""

    header: Message
    body: bytes
    whole: bool


def read(content: bytes, length: int) -> Content:
    """Look into a message; never raises.

    Args:
        content: its first octets, at most `MAX_READ`, with lines that end in CRLF.
        length: how many it has.
    """
    notes: list[str] = []
    if length > len(content):
        notes.append(f"Only the first {len(content):,} of {length:,} octets were looked at.")
    head, _ = _split(content)
    if len(head) > _MAX_HEADER:
        notes.append(f"Only the first {_MAX_HEADER:,} octets of the header are shown.")
    fields = tuple(_fields(head[:_MAX_HEADER]))
    if len(fields) == _MAX_FIELDS:
        notes.append(f"Only the first {_MAX_FIELDS} fields are shown.")
    shown: dict[str, str] = {}
    others: list[Part] = []
    for leaf in _leaves(content, notes, whole=length <= len(content)):
        kind = leaf.header.get_content_type()
        attached = leaf.header.get_content_disposition() == "attachment"
        if kind in {"text/plain", "text/html"} and not attached and kind not in shown:
            shown[kind] = _text(leaf, notes)
        else:
            others.append(Part(_name(leaf.header), kind, _size(leaf), leaf.whole))
    return Content(fields, shown.get("text/plain"), shown.get("text/html"), tuple(others), tuple(notes))


def _split(part: bytes) -> tuple[bytes, bytes]:
    """Divide a part into its header, without the empty line, and its body."""
    if part.startswith(b"\r\n"):
        return b"", part[2:]
    head, _, body = part.partition(b"\r\n\r\n")
    return head, body


def _fields(head: bytes) -> Iterator[tuple[str, str]]:
    """Unfold and decode the fields; what is none is a field without a name."""
    unfolded: list[list[bytes]] = []
    for line in head.split(b"\r\n"):
        if line[:1] in {b" ", b"\t"} and unfolded:
            unfolded[-1].append(line)
        elif len(unfolded) == _MAX_FIELDS:
            break
        else:
            unfolded.append([line])
    for lines in unfolded:
        name, colon, value = b"".join(lines).decode("utf-8", "replace").partition(":")
        if colon:
            yield name[:_MAX_VALUE], decoded(value.strip()[:_MAX_VALUE])
        elif name.strip():
            yield "", name[:_MAX_VALUE]


def decoded(value: str) -> str:
    """Decode encoded words (RFC 2047) for display; a value that cannot be decoded is returned unchanged."""
    try:
        return str(make_header(decode_header(value)))
    except (MessageError, LookupError, ValueError):
        return value


def _leaves(content: bytes, notes: list[str], *, whole: bool) -> Iterator[_Leaf]:
    """Walk over the parts that have no parts, in order; no octet is in two parts of one depth."""
    waiting = [(content, 0, whole)]
    count = 0
    while waiting:
        part, depth, ends = waiting.pop()
        head, body = _split(part)
        header = _content_fields(head)
        if header.get_content_maintype() == "multipart" and (boundary := _boundary(header)):
            if depth == _MAX_DEPTH:
                notes.append(f"Parts within more than {_MAX_DEPTH} others are left out.")
                continue
            inner = _divide(body, boundary, _MAX_PARTS + 1 - count - len(waiting), whole=ends)
            waiting += reversed([(each, depth + 1, closed) for each, closed in inner])
            continue
        count += 1
        if count > _MAX_PARTS:
            notes.append(f"Only the first {_MAX_PARTS} parts were looked at.")
            return
        yield _Leaf(header, body, ends)


def _content_fields(head: bytes) -> Message:
    """Read the fields that say what a part is; the first of each, and never more than a bound of one."""
    header = Message()
    for name, value in _fields(head[:_MAX_PART_HEADER]):
        low = name.strip().lower()
        if low in {"content-type", "content-disposition", "content-transfer-encoding"} and low not in header:
            header[low] = value
    return header


def _boundary(header: Message) -> bytes:
    found = header.get_boundary("")
    return found.encode("utf-8", "replace") if 0 < len(found) <= _MAX_BOUNDARY else b""


def _divide(body: bytes, boundary: bytes, most: int, *, whole: bool) -> list[tuple[bytes, bool]]:
    """Return the parts of a multipart, at most so many, each with whether it ends within what was read."""
    mark, parts = b"--" + boundary, list[tuple[bytes, bool]]()
    start, at = -1, 0
    while len(parts) < most and (at := body.find(mark, at)) >= 0:
        line_end = body.find(b"\r\n", at + len(mark), at + len(mark) + 80)
        rest = body[at + len(mark) : line_end if line_end >= 0 else at + len(mark) + 80].rstrip()
        if (at and body[at - 1 : at] != b"\n") or rest not in {b"", b"--"}:
            at += len(mark)
            continue
        if start >= 0:
            parts.append((body[start : max(start, at - 2)], True))
        start = line_end + 2 if line_end >= 0 else len(body)
        if rest == b"--":
            return parts
        at = start
    if start >= 0 and len(parts) < most:
        parts.append((body[start:], whole))
    return parts


def _name(header: Message) -> str:
    try:
        found = header.get_filename() or ""
    except (MessageError, LookupError, ValueError, TypeError):
        return ""
    return decoded(str(found)[:_MAX_VALUE])


def _encoding(header: Message) -> str:
    return str(header.get("content-transfer-encoding", "")).strip().lower()


def _size(leaf: _Leaf) -> int:
    octets = len(leaf.body)
    if _encoding(leaf.header) == "base64":
        return (octets - 2 * leaf.body.count(b"\r\n")) * 3 // 4
    return octets


def _text(leaf: _Leaf, notes: list[str]) -> str:
    raw = leaf.body[:_MAX_ENCODED]
    match _encoding(leaf.header):
        case "base64":
            clean = _NOT_BASE64.sub(b"", raw)
            raw = a2b_base64(clean[: len(clean) // 4 * 4] or b"")
        case "quoted-printable":
            raw = a2b_qp(raw)
    charset = _charset(leaf.header)
    codec = _CODECS.get(charset)
    if codec is None:
        notes.append(
            f"The charset {charset[:80]} is not decoded: other letters than those of ASCII are missing."
        )
    text = raw.decode(codec or "ascii", "replace")
    if len(text) > MAX_TEXT or len(leaf.body) > _MAX_ENCODED:
        notes.append(f"Only the first {MAX_TEXT:,} characters of a text are shown.")
    return text[:MAX_TEXT]


def _charset(header: Message) -> str:
    try:
        return str(header.get_content_charset("") or "").lower()
    except (MessageError, LookupError, ValueError, TypeError):
        return ""
