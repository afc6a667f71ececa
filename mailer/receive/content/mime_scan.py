"""Where in a message the parts are that have a line over 998 octets, and what is to be done about them.

The message is read once, in blocks, and never kept: what is remembered is the delimiters of the parts that
one is in, and one header at a time. Depth and number of parts have a limit, so that 100,000 nested parts cost
no more than their lines (Postfix's `mime_nesting_limit` is 100; programs that write mail stay below ten).

A delimiter is a line that is exactly one. RFC 2046 5.1.2 has readers that compare beginnings only; a message
for which that makes a difference is refused.
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
    """A header that changes, and what of its body is encoded; places are octets from the message's start."""

    start: int
    """Of the header."""
    body: int
    """Where the body starts, after the empty line."""
    end: int
    """Of what is encoded."""
    version: bool
    charset: str
    """See `mime_header.encoded`."""


@dataclass(slots=True)
class _Text:
    """A body that is not looked into."""

    start: int
    body: int
    entity: Entity
    of_message: bool
    charset: "_Charset | None"
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class _Parts:
    """A multipart that the reader is in."""

    delimiter: bytes
    """The line between two parts."""
    in_digest: bool
    untouchable: str
    """Why nothing in it may change; empty: it may."""


class MimeScan:
    """Reads one message; `finish` has the result."""

    def __init__(self) -> None:
        self._edits: list[Edit] = []
        self._at = 0
        self._line_starts = True
        self._stack: list[_Parts] = []
        self._delimiters: tuple[bytes, ...] = ()
        self._parts = 0
        self._untouchable = ""
        # The reader is in a header, else in a text, else between parts.
        self._header: bytearray | None = bytearray()
        self._header_start = 0
        self._of_message = True
        self._text: _Text | None = None
        self._ruler = LineRuler()

    def feed(self, block: bytes) -> None:
        """Read the next block, which ends with a line end unless its line is longer than a block is.

        Raises:
            Unencodable: a long line is where it must stay, or nobody can say for sure what is where.
        """
        if self._header is None and not any(delimiter in block for delimiter in self._delimiters):
            self._read_text(block)
        else:
            for line in block.splitlines(keepends=True):
                self._read_line(line)

    def finish(self) -> list[Edit]:
        """Return what must change, from the message's start to its end; the same exceptions as `feed`."""
        self._end_text(self._at)
        # There may be none to encode: the long line was in a field that was dropped.
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

    # Texts, and what stands between parts.

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
        """Tell whether this line, which begins as a delimiter does, is one; if so, act on it."""
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
            # Which of them a line is, depends on whom a reader asks first.
            raise Unencodable("parts within each other have boundaries that begin alike")
        parts = _Parts(delimiter, entity.subtype == b"digest", untouchable)
        self._set_stack([*self._stack, parts])


class _Charset:
    """Finds a name for the charset of a text that has none, which means us-ascii (RFC 2046 4.1.2)."""

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
        """Empty for ASCII, which needs no name."""
        if self._ascii:
            return ""
        # RFC 1428 3 has this name for what nobody can know.
        return "utf-8" if self._utf8 else "unknown-8bit"
