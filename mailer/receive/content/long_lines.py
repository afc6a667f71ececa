"""The long-line policy `quotedPrintable`: rewrites a message that is already in its file, with encoded parts.

Whether a message has a line over 998 octets is not known when its header arrives. So it is first written
unchanged, like any other. Only if it has such a line is it read back, twice: to find its parts, and to
rewrite it. Memory is bounded by a block and a header; time is linear.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing

from mailer.receive.content import mime_header
from mailer.receive.content.mime_scan import Edit, MimeScan
from mailer.receive.content.quoted_printable import QuotedPrintable
from mailer.spool.incoming import Draft, Incoming


def encode(incoming: Incoming) -> None:
    """Encode the parts that have a long line as quoted-printable, and declare that in their headers.

    All other bytes stay the same. This blocks on the disk, and takes seconds for the largest messages.

    Raises:
        Unencodable: the message cannot be encoded; what is left of it must be discarded.
        OSError: as from `Incoming.write`.
    """
    with closing(incoming.begin_again()) as draft:
        scan = MimeScan()
        for block in _blocks(draft.pieces(draft.size)):
            scan.feed(block)
        edits = scan.finish()
        draft.rewind()
        for edit in edits:
            _copy(draft, edit.start, incoming)
            _apply(edit, draft, incoming)
        _copy(draft, draft.size, incoming)


def _apply(edit: Edit, draft: Draft, incoming: Incoming) -> None:
    head = b"".join(draft.pieces(edit.body))
    encodes = edit.end > edit.body
    incoming.write(
        mime_header.encoded(
            head.removesuffix(b"\r\n"), encoding=encodes, version=edit.version, charset=edit.charset
        )
        + b"\r\n"
    )
    text = QuotedPrintable()
    for block in _blocks(draft.pieces(edit.end)):
        incoming.write(text.encode(block))


def _copy(draft: Draft, until: int, incoming: Incoming) -> None:
    for piece in draft.pieces(until):
        incoming.write(piece)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Regroup pieces into blocks that end after a line end, or inside a line that is longer than a piece."""
    held = b""
    for piece in pieces:
        data = held + piece
        end = data.rfind(b"\n") + 1 or len(data) - data.endswith(b"\r")
        held = data[end:]
        if end:
            yield data[:end]
    if held:
        yield held
