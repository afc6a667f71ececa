"""The long-line policy `quotedPrintable`: a message that has been written is written once more, encoded.

Nobody knows at its header whether a message will have a line over 998 octets. So it is written as it comes,
like any other, and only one that turns out to have such a line is read back, twice: to see where its parts
are, and to write it anew. Memory is bounded by a block and a header; time is linear.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing

from mailer.receive.content import mime_header
from mailer.receive.content.mime_scan import Edit, MimeScan
from mailer.receive.content.quoted_printable import QuotedPrintable
from mailer.spool.incoming import Draft, Incoming


def encode(incoming: Incoming) -> None:
    """Encode the parts that have a long line as quoted-printable, and say so in their headers.

    All other bytes stay. It reads and writes the disk, and takes seconds for the largest messages.

    Raises:
        Unencodable: it cannot be done; what is left of the message must be discarded.
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
    """Cut after line ends, or between two characters of a line that is longer than a piece."""
    held = b""
    for piece in pieces:
        data = held + piece
        end = data.rfind(b"\n") + 1 or len(data) - data.endswith(b"\r")
        held = data[end:]
        if end:
            yield data[:end]
    if held:
        yield held
