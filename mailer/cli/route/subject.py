"""The mail that `mailer route` explains: described by options, or queued in the spool."""

from collections.abc import Sequence
from functools import partial

import msgspec

from mailer.cli.exits import Exit, Failure
from mailer.cli.spool.selection import locate
from mailer.mail.envelope import Envelope, Recipient
from mailer.mail.header import HeaderTooLarge, read_header
from mailer.send.routes.directions import mail_of
from mailer.send.routes.rules import Mail
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.message_state import Standing
from mailer.spool.view.inspect import View


class Subject(msgspec.Struct, frozen=True):
    """A mail to explain."""

    envelope: Envelope
    mail: Mail
    standings: tuple[Standing, ...]
    """The recipients that are still to be tried."""
    header: bytes
    """The header as it was submitted, or a From field with the sender."""
    held: str = ""
    """Why the message is in `hold/`; empty if it is not."""
    notifies: bool = False
    """Whether it is a notification by mailer, which may be sent unsigned."""


def typed(sender: str, to: Sequence[str], user: str, message: bytes | None) -> Subject:
    """Return a mail as it would be queued; `message` is its beginning, or None without a FILE."""
    recipients = tuple(map(Recipient, to))
    lines = (message or b"").replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    header = _header_of(lines)
    shown = header if message is not None else f"From: <{sender}>\r\n".encode()
    return Subject(
        Envelope(sender, recipients),
        Mail(sender, user, lambda: header),
        tuple(map(Standing, recipients)),
        shown,
    )


def _header_of(message: bytes) -> bytes:
    try:
        return read_header(lambda offset, length: message[offset : offset + length])
    except HeaderTooLarge:
        raise Failure(Exit.DATA, "the header is larger than any that would be accepted") from None


def queued(spool: Spool, message_id: str) -> Subject:
    """Return a queued mail.

    Raises:
        Failure: there is no such message, it cannot be read, or it was moved in between.
    """
    spot = locate(spool, message_id)
    try:
        with View.open(spool, spot) as view:
            entry = view.entry()
            mail = mail_of(entry, partial(view.read, entry))
            header = mail.header or b""  # Read it while the file is open.
    except FileNotFoundError:
        raise Failure(Exit.TEMPORARY, f"{spot.name} was moved just now; try again") from None
    except Corrupt as corrupt:
        raise Failure(Exit.DATA, f"{spot.name} cannot be read: {corrupt}") from None
    state = entry.state
    return Subject(entry.envelope, mail, state.open, header, state.held, bool(state.about))
