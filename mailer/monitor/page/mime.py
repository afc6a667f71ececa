"""Parse a message for display: its header fields, its text, its HTML, and a list of its other parts.

The mail is hostile input. Every dimension is bounded, each octet is examined a bounded number of times, and
nothing recurses. The standard library's parser is not used for the structure: its cost for each line grows
with the nesting depth, and it fails at a depth of some hundreds. Content beyond a bound is left out, and a
sentence in `notes` says so.
"""

import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Callable, Iterator
from email.errors import MessageError
from email.message import Message

import msgspec

MAX_READ = 2 * 2**20
"""Octets of a message that are read. In nearly all mail the text comes first, before the attachments."""
_MAX_HEADER = 64 * 1024
"""Octets of the message's header that are shown (Exim: 1 MiB; Postfix: header_size_limit, 102,400)."""
_MAX_PART_HEADER = 8 * 1024
"""Octets of a part's header that are searched for its Content- fields."""
_MAX_FIELDS = 300
"""Header fields that are shown."""
_MAX_VALUE = 2000
"""Characters of a field. The standard library's parsing of parameters is quadratic in this length."""
_MAX_PARTS = 200
_MAX_DEPTH = 20
"""Levels of nested multiparts; mail programs make four."""
_MAX_BOUNDARY = 200
"""Characters of a boundary; RFC 2046 5.1.1 allows 70."""
MAX_TEXT = 200_000
"""Characters of a text that are shown."""
_MAX_ENCODED = 4 * MAX_TEXT
"""Octets of a part that are decoded. Quoted-printable takes three octets for one, and more for line ends."""

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
"""The only charsets that are decoded. Of Python's other codecs some take quadratic time (idna, punycode), and
some are not charsets (unicode_escape)."""
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")
_ENCODED_WORD = re.compile(r"=\?([^?\s]+)\?([BbQq])\?([^?]*)\?=")
_UNPARSABLE = (MessageError, LookupError, ValueError, TypeError)
"""What the standard library raises for malformed parameters, depending on how they are malformed."""


class Part(msgspec.Struct, frozen=True):
    """A part that is listed and not shown."""

    name: str
    """Its file name; empty if it has none."""
    kind: str
    """Its Content-Type, without parameters."""
    size: int
    """Its approximate size in octets, after decoding."""
    whole: bool
    """Whether its end was read; otherwise `size` counts only the octets that were read."""


class Content(msgspec.Struct, frozen=True):
    """The content of a message for display."""

    fields: tuple[tuple[str, str], ...]
    """Names and decoded values, in the order of the header."""
    text: str | None
    """Its first text part; None if it has none."""
    html: str | None
    """Its first HTML part, not sanitised; None if it has none."""
    others: tuple[Part, ...]
    notes: tuple[str, ...]
    """What was left out or guessed, in sentences."""


class _Leaf(msgspec.Struct, frozen=True):
    """A part that is not a multipart."""

    header: Message
    kind: str
    """Its Content-Type, without parameters."""
    body: bytes
    whole: bool
    """Whether its end was read."""


class _Notes:
    """Collects sentences about what was left out, each once."""

    def __init__(self) -> None:
        self.sentences: dict[str, None] = {}

    def add(self, sentence: str) -> None:
        self.sentences[sentence] = None


def read(content: bytes, length: int) -> Content:
    """Parse a message for display; never raises.

    Args:
        content: its first octets, at most `MAX_READ`, with lines that end in CRLF.
        length: its whole length in octets.
    """
    notes = _Notes()
    if length > len(content):
        notes.add(f"Only the first {len(content):,} of {length:,} octets were looked at.")
    head, _ = _split(content)
    if len(head) > _MAX_HEADER:
        notes.add(f"Only the first {_MAX_HEADER:,} octets of the header are shown.")
    fields = tuple(_displayed(head[:_MAX_HEADER], notes))
    if len(fields) == _MAX_FIELDS:
        notes.add(f"Only the first {_MAX_FIELDS} fields are shown.")
    shown: dict[str, str] = {}
    others: list[Part] = []
    for leaf in _leaves(content, notes, whole=length <= len(content)):
        attached = _parsed(leaf.header.get_content_disposition) == "attachment"
        if leaf.kind in {"text/plain", "text/html"} and not attached and leaf.kind not in shown:
            shown[leaf.kind] = _text(leaf, notes)
        else:
            others.append(Part(_name(leaf.header), leaf.kind, _size(leaf), leaf.whole))
    return Content(
        fields, shown.get("text/plain"), shown.get("text/html"), tuple(others), tuple(notes.sentences)
    )


def _split(part: bytes) -> tuple[bytes, bytes]:
    """Split a part into its header and its body, without the empty line between them."""
    if part.startswith(b"\r\n"):
        return b"", part[2:]
    head, _, body = part.partition(b"\r\n\r\n")
    return head, body


def _fields(head: bytes) -> Iterator[tuple[str, str]]:
    """Unfold the fields, without decoding encoded words; a line that is not a field has an empty name."""
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
            yield name, value.strip()
        elif name.strip():
            yield "", name


def _displayed(head: bytes, notes: _Notes) -> Iterator[tuple[str, str]]:
    """Return the fields for display: decoded, and cut to the longest name and value that are shown."""
    for name, value in _fields(head):
        if max(len(name), len(value)) > _MAX_VALUE:
            notes.add(f"Only the first {_MAX_VALUE:,} characters of a field are shown.")
        yield name[:_MAX_VALUE], decoded(value[:_MAX_VALUE]) if name else value[:_MAX_VALUE]


def decoded(value: str) -> str:
    """Decode encoded words (RFC 2047) for display; a word that cannot be decoded is returned unchanged."""
    pieces: list[str] = []
    at, before = 0, ""
    for found in _ENCODED_WORD.finditer(value):
        between = value[at : found.start()]
        charset, encoding, text = found.groups()
        # RFC 2047 6.2: space between two encoded words is not displayed.
        if not before or between.strip():
            pieces.append(between)
        # RFC 2231 5: a language may follow the charset.
        before = _CODECS.get(charset.partition("*")[0].lower(), "")
        at = found.end()
        pieces.append(_word(encoding, text, before) if before else found[0])
    return _valid("".join(pieces) + value[at:])


def _word(encoding: str, text: str, codec: str) -> str:
    raw = text.encode("ascii", "replace")
    raw = _base64(raw) if encoding in "Bb" else a2b_qp(raw, header=True)
    return raw.decode(codec, "replace")


def _base64(encoded: bytes) -> bytes:
    clean = _NOT_BASE64.sub(b"", encoded)
    # The last group may lack its padding; one character alone in it encodes nothing.
    clean = clean[: len(clean) - (len(clean) % 4 == 1)]
    return a2b_base64(clean + b"=" * (-len(clean) % 4))


def _valid(text: str) -> str:
    """Replace lone surrogates, which no page can be encoded with."""
    return text.encode("utf-8", "replace").decode()


def _leaves(content: bytes, notes: _Notes, *, whole: bool) -> Iterator[_Leaf]:
    """Yield the parts that are not multiparts, in order; at each depth an octet is in one part at most."""
    waiting = [(content, 0, whole)]
    count = 0
    while waiting:
        part, depth, ends = waiting.pop()
        head, body = _split(part)
        header = _content_fields(head[: _MAX_PART_HEADER if depth else _MAX_HEADER])
        kind = _parsed(header.get_content_type) or "text/plain"
        if kind.startswith("multipart/"):
            if depth == _MAX_DEPTH:
                notes.add(f"Parts within more than {_MAX_DEPTH} others are left out.")
                continue
            # One more than may be shown, so that the excess is noticed here or below.
            most = _MAX_PARTS + 1 - count - len(waiting)
            inner = _divide(body, _boundary(header), most, whole=ends)
            if len(inner) == most:
                notes.add(f"Only the first {_MAX_PARTS} parts were looked at.")
            if inner:
                waiting += reversed([(each, depth + 1, closed) for each, closed in inner])
                continue
            # It counts as a part, so that empty multiparts cannot hide what follows them.
            if body.strip():
                notes.add("The boundary of a multipart does not occur in it; it is treated as text.")
            kind = "text/plain"
        count += 1
        if count > _MAX_PARTS:
            notes.add(f"Only the first {_MAX_PARTS} parts were looked at.")
            return
        yield _Leaf(header, kind, body, ends)


def _content_fields(head: bytes) -> Message:
    """Return the Content- fields that describe a part, the first of each name.

    Encoded words are not decoded, because RFC 2047 5 does not allow them in these fields.
    """
    header = Message()
    for name, value in _fields(head):
        low = name.strip().lower()
        if low in {"content-type", "content-disposition", "content-transfer-encoding"} and low not in header:
            header[low] = value[:_MAX_VALUE]
    return header


def _parsed(parse: Callable[[], object]) -> str:
    """Return what a method of `Message` finds; empty if it finds nothing, or fails at a malformed field."""
    try:
        return _valid(str(parse() or ""))
    except _UNPARSABLE:
        return ""


def _parameter(header: Message, field: str, name: str) -> str:
    """Return a parameter, decoded as RFC 2231 says, but with our charsets only; empty if there is none."""
    try:
        found = header.get_param(name, "", field)
    except _UNPARSABLE:
        return ""
    if isinstance(found, tuple):
        charset, _, value = found
        octets = (value or "").encode("latin-1", "replace")
        return octets.decode(_CODECS.get((charset or "").lower(), "ascii"), "replace")
    return _valid(found or "")


def _boundary(header: Message) -> bytes:
    """Return the boundary of a multipart; empty if it has none, or one that is too long."""
    found = _parameter(header, "content-type", "boundary").rstrip()
    return found.encode() if len(found) <= _MAX_BOUNDARY else b""


def _divide(body: bytes, boundary: bytes, most: int, *, whole: bool) -> list[tuple[bytes, bool]]:
    """Return the parts of a multipart, at most `most`, each with whether its end was read."""
    mark, parts = b"--" + boundary, list[tuple[bytes, bool]]()
    start, at = -1, 0
    if not boundary:
        return parts
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
    found = _parameter(header, "content-disposition", "filename") or _parameter(
        header, "content-type", "name"
    )
    # Mail programs use encoded words here, although RFC 2047 5 does not allow them.
    return decoded(found[:_MAX_VALUE])


def _encoding(header: Message) -> str:
    return str(header.get("content-transfer-encoding", "")).strip().lower()


def _size(leaf: _Leaf) -> int:
    octets = len(leaf.body)
    if _encoding(leaf.header) == "base64":
        return (octets - 2 * leaf.body.count(b"\r\n")) * 3 // 4
    return octets


def _text(leaf: _Leaf, notes: _Notes) -> str:
    raw = leaf.body[:_MAX_ENCODED]
    match _encoding(leaf.header):
        case "base64":
            raw = _base64(raw)
        case "quoted-printable":
            raw = a2b_qp(raw)
    charset = _parameter(leaf.header, "content-type", "charset").lower()
    codec = _CODECS.get(charset)
    if codec is None:
        notes.add(
            f"The charset {charset[:80]} is not decoded: other letters than those of ASCII are missing."
        )
    text = raw.decode(codec or "ascii", "replace")
    if len(text) > MAX_TEXT or len(leaf.body) > _MAX_ENCODED:
        notes.add(f"Only the first {MAX_TEXT:,} characters of a text are shown.")
    return _valid(text[:MAX_TEXT])
