"""Find the recipients that a message had, as itself or as a copy, in whatever spelling."""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import IPv6Address

from mailer.mail.patterns import compared
from mailer.maillog.by_id import lines_of
from mailer.maillog.search import Query
from mailer.spool.entry import Corrupt, Entry
from mailer.spool.ids import earliest
from mailer.spool.layout import LOG, Spool
from mailer.spool.view.inspect import View

_MAX_COPIES = 20
"""How many times in a row a message may be the copy of a copy, before its history is not followed further."""


def mailbox(address: str) -> str:
    """Return an address in a form that is the same for all spellings of one mailbox."""
    local, at, domain = unicodedata.normalize("NFC", compared(address)).rpartition("@")
    if domain.startswith("[ipv6:") and domain.endswith("]"):
        with suppress(ValueError):
            domain = f"[ipv6:{IPv6Address(domain[6:-1])}]"
    return f"{local}{at}{domain}"


def addressed(spool: Spool, message_id: str, entry: Entry) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the ids and recipients of a message, of the one that it is a copy of, and so on.

    An original that has left the spool is looked up in the ledger.
    """
    yield message_id, [recipient.address for recipient in entry.envelope.recipients]
    original = entry.state.replays
    for _ in range(_MAX_COPIES):
        if not original:
            return
        recipients, before = _recorded(spool, original)
        yield original, recipients
        original = before


def _recorded(spool: Spool, message_id: str) -> tuple[Sequence[str], str]:
    """Return the recipients of a message, and the id of the one that it is a copy of, empty if none."""
    with suppress(Corrupt):
        if found := View.find(spool, message_id):
            with found as view:
                entry = view.entry()
                return [recipient.address for recipient in entry.envelope.recipients], entry.state.replays
    query = Query(id=message_id, nothing_before=earliest(message_id))
    for line, _ in lines_of(partial(spool.directory, LOG), query):
        if line.event == "accepted":
            return line.to, line.replays
    return (), ""
