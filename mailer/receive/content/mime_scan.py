"""Finds the MIME parts of a message that have a line over 998 octets, and plans how to encode them.

The message is read once, in blocks, and not kept. The scan remembers the delimiters of the enclosing parts,
and one header at a time. Depth and number of parts are limited, so that 100,000 nested parts cost no more
than their lines (Postfix's `mime_nesting_limit` is 100; programs that write mail stay below ten).

A line is a delimiter only if it matches exactly. RFC 2046 5.1.2 lets programs compare only the beginning of a
line; a message for which that makes a difference is refused.
"""

import codecs
from dataclasses import dataclass

from mailer.mail.header import MAX_HEADER
from mailer.receive.content.data import MAX_LINE, LineRuler
from mailer.receive.content.mime_header import Entity, Kind, Unencodable, read

_MAX_DEPTH = 20
_MAX_PARTS = 1000


@dataclass(frozen=True, slots=True)
class Edit:
    """A header to change, and the part of its body to encode; offsets are octets from the message's start."""

    start: int
    """Offset of the header."""
    body: int
    """Offset of the body, after the empty line."""
    end: int
    """Offset of the end of what is encoded; equal to `body` if only the header changes."""
    version: bool
    """Whether to add MIME-Version."""
    charset: str
    """The charset to declare; see `mime_header.encoded`."""


@dataclass(slots=True)
class _Text:
    """A body without parts."""

    start: int
    body: int
    entity: Entity
    of_message: bool
    charset: "_Charset | None"
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class _Parts:
    """A multipart that encloses the current position."""

    delimiter: bytes
    """The line between two parts."""
    in_digest: bool
    untouchable: str
    """The reason why nothing in it may change; empty: it may."""


class MimeScan:
    """Scans one message; `finish` returns the edits."""

    def __init__(self) -> None:
        self._edits: list[Edit] = []
        self._at = 0
        self._line_starts = True
        self._stack: list[_Parts] = []
        self._delimiters: tuple[bytes, ...] = ()
        self._parts = 0
        self._untouchable = ""
        # The scan is in a header if `_header` is set, else in a text if `_text` is set, else between parts.
        self._header: bytearray | None = bytearray()
        self._header_start = 0
        self._of_message = True
        self._text: _Text | None = None
        self._ruler = LineRuler()

    def feed(self, block: bytes) -> None:
        """Scan the next block, which ends with a line end unless its last line is longer than a block.

        Raises:
            Unencodable: a long line is where nothing may change, or the structure is ambiguous or too large.
        """
        if self._header is None and not any(delimiter in block for delimiter in self._delimiters):
            self._read_text(block)
        else:
            for line in block.splitlines(keepends=True):
                self._read_line(line)

    def finish(self) -> list[Edit]:
        """Return the edits in the order of the message; raises as `feed` does."""
        self._end_text(self._at)
        # There may be nothing to encode, if the long line was in a header field that has been dropped.
        return self._edits if any(edit.end > edit.body for edit in self._edits) else []

    def _read_line(self, line: bytes) -> None:
        if self._line_starts and line.startswith(self._delimiters) and self._delimit(line):
            self._go_on(line)
        elif self._header is not None:
            self._read_header(self._header, line)
        else:
            self._read_text(line)

    def _go_on(self, text: bytes) -> None:
        self._at += len(text)
        self._line_starts = text.endswith(b"\n")

    # Texts, and lines between parts.

    def _read_text(self, text: bytes) -> None:
        here = self._text
        if not (here and here.too_long) and self._ruler.too_long(text):
            if here is None:
                raise Unencodable("it is outside of all parts")
            if obstacle := self._untouchable or here.entity.obstacle:
                raise Unencodable(obstacle)
            here.too_long = True
        if here and here.charset:
            here.charset.feed(text)
        self._go_on(text)

    def _end_text(self, end: int) -> None:
        here, self._text = self._text, None
        if here and here.too_long:
            charset = here.charset.name() if here.charset else ""
            version = here.of_message and not here.entity.versioned
            self._edits.append(Edit(here.start, here.body, end, version, charset))

    # Delimiters.

    def _delimit(self, line: bytes) -> bool:
        """Process a line that begins like a delimiter; return whether it is one."""
        text = line.rstrip(b" \t\r\n")
        for depth in reversed(range(len(self._stack))):
            delimiter = self._stack[depth].delimiter
            if text in {delimiter, delimiter + b"--"}:
                self._end_part(depth, last=text != delimiter)
                return True
        raise Unencodable("a line begins like a boundary and goes on")

    def _end_part(self, depth: int, *, last: bool) -> None:
        # The line end before a delimiter belongs to it (RFC 2046 5.1.1).
        if self._text:
            self._end_text(max(self._text.body, self._at - 2))
        self._header = None
        self._untouchable = self._stack[depth].untouchable
        self._set_stack(self._stack[: depth if last else depth + 1])
        self._ruler = LineRuler()
        if not last:
            self._begin_header(of_message=False)

    def _set_stack(self, stack: list[_Parts]) -> None:
        self._stack = stack
        self._delimiters = tuple(parts.delimiter for parts in stack)

    # Headers.

    def _begin_header(self, *, of_message: bool) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise Unencodable(f"there are more than {_MAX_PARTS} parts")
        self._header, self._of_message = bytearray(), of_message

    def _read_header(self, head: bytearray, line: bytes) -> None:
        if len(line) > MAX_LINE + 2:
            raise Unencodable("it is in a header; fold the field")
        if not head:
            self._header_start = self._at
        self._go_on(line)
        if line != b"\r\n":
            head += line
            if len(head) > MAX_HEADER:
                raise Unencodable("a header is larger than we read")
        else:
            self._end_header(bytes(head))

    def _end_header(self, head: bytes) -> None:
        in_digest = not self._of_message and bool(self._stack) and self._stack[-1].in_digest
        entity = read(head, in_digest=in_digest)
        if entity.signed and self._of_message:
            self._untouchable = self._untouchable or "a signature (DKIM, ARC) would break"
        self._header = None
        self._ruler = LineRuler()
        if entity.kind is Kind.TEXT:
            charset = None if entity.labelled else _Charset()
            self._text = _Text(self._header_start, self._at, entity, self._of_message, charset)
            return
        self._need_version(entity)
        if entity.kind is Kind.PARTS:
            self._enter(entity)
        else:
            self._begin_header(of_message=True)

    def _need_version(self, entity: Entity) -> None:
        if not self._of_message or entity.versioned:
            return
        if self._header_start or self._edits:
            self._untouchable = self._untouchable or "a message in it has parts and no MIME-Version"
        else:
            self._edits.append(Edit(0, self._at, self._at, version=True, charset=""))

    def _enter(self, entity: Entity) -> None:
        if len(self._stack) == _MAX_DEPTH:
            raise Unencodable(f"parts are nested more than {_MAX_DEPTH} deep")
        untouchable = self._untouchable
        if entity.subtype == b"signed":
            untouchable = untouchable or "a signature (multipart/signed) would break"
        delimiter = b"--" + entity.boundary
        if delimiter.startswith(self._delimiters) or any(
            each.startswith(delimiter) for each in self._delimiters
        ):
            # Which boundary a line matches would depend on the order in which a program compares them.
            raise Unencodable("parts within each other have boundaries that begin alike")
        parts = _Parts(delimiter, entity.subtype == b"digest", untouchable)
        self._set_stack([*self._stack, parts])


class _Charset:
    """Guesses the charset of a text that declares none, which means us-ascii (RFC 2046 4.1.2)."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._ascii = True
        self._utf8 = True

    def feed(self, text: bytes) -> None:
        self._ascii = self._ascii and text.isascii()
        if self._utf8:
            try:
                self._decoder.decode(text)
            except UnicodeDecodeError:
                self._utf8 = False

    def name(self) -> str:
        """Return the charset's name, empty for ASCII, which need not be declared."""
        if self._ascii:
            return ""
        # RFC 1428 3 defines `unknown-8bit` for text in an unknown charset.
        return "utf-8" if self._utf8 else "unknown-8bit"
