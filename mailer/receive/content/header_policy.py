"""Edits or refuses the header of an incoming message: which fields are added, dropped, rewritten or refused.

Fields are added at the top and dropped whole. No other byte changes, so that the application's own signatures
survive. The policy, field by field:

    Received            added
    Date, Message-ID    added when missing (RFC 6409 8.2, 8.3), never replaced
    Return-Path         dropped: only the final server writes it (RFC 5321 4.4)
    Idempotency-Key     dropped: it is for this server only, see `idempotency`
    Bcc, Resent-Bcc     dropped: the envelope has the recipients; a blind copy stays blind (RFC 5322 3.6.3)
    From, Sender, Reply-To, To, Cc, and those with Resent-
                        at `submitSocket`, names without a domain get `originDomain` (`mail.unqualified`)
    From, Reply-To      rewritten as `rewriteFrom` says, which also adds a missing From; two From fields are
                        refused, because mail programs and signers would choose different ones
    X-Original-To       added, one for each recipient whose mail `redirectAllTo` redirects
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

import msgspec

from mailer.config.receiving import RewriteFrom
from mailer.mail import header
from mailer.mail.author import mailboxes, new_author
from mailer.mail.header import HeaderTooLarge
from mailer.mail.patterns import AddressPatterns
from mailer.mail.unqualified import qualified
from mailer.receive.content import idempotency
from mailer.receive.content.fault import ContentFault, Fault, ForbiddenAuthor, UnclearAuthor
from mailer.receive.peers import IMPORT, REPLAY, UNIX

_DROPPED = (b"return-path", b"bcc", b"resent-bcc", idempotency.FIELD)
_LOOKED_FOR = (*_DROPPED, b"from", b"reply-to", b"received", b"message-id", b"date")


class ContentPolicy(msgspec.Struct, frozen=True):
    """The operator's settings for headers."""

    hide_client: bool = False
    """Leave the client's name and address out of Received."""
    rewrite_from: RewriteFrom = RewriteFrom.KEEP
    from_address: str = ""
    """The address for `rewrite_from`."""
    log_headline: bool = False
    """Write Subject and Message-ID to the ledger."""
    obey_keys: bool = True
    """Deduplicate mail by its Idempotency-Key."""


class Origin(msgspec.Struct, frozen=True):
    """The session that a message came from."""

    helo: str
    """The client's EHLO or HELO name, with `?` for characters that are not allowed in one."""
    peer: str
    """The client's IP address, `unix`, or `unix:UID`."""
    hostname: str
    """This server's name."""
    extended: bool
    """Whether the client said EHLO rather than HELO."""
    user: str
    """The user that the client submits as; empty: none."""
    smtputf8: bool
    by_network: bool = False
    """Whether `user` follows from the client's network and not from a login."""
    tls: str = ""
    """TLS version and cipher; empty without TLS."""
    may_send_as: AddressPatterns | None = None
    """The addresses that the user may put in From; None: any."""
    redirected: tuple[str, ...] = ()
    """The recipients named by the client whose mail goes to `redirectAllTo` instead."""
    origin_domain: str = ""
    """The domain that completes names in the header; empty: leave names alone."""


class Arrival(msgspec.Struct, frozen=True):
    """The facts about one message that are known before its first byte is stored."""

    origin: Origin
    policy: ContentPolicy
    id: str
    """The message's id in the spool."""
    at: float
    """When it arrived, in seconds since the epoch."""


_AUTHORS = ("From", "Sender", "Resent-From", "Resent-Sender")
"""Fields that a mail program may display as the author."""


def top(arrival: Arrival, head: bytes) -> bytes | ContentFault:
    """Return the edited header to store, or the fault for which to refuse the message after its end.

    Args:
        arrival: the message and its origin.
        head: the header as the client sent it, without the empty line.
    """
    try:
        fields = header.counts(head, _LOOKED_FOR)
    except HeaderTooLarge:
        return Fault.HEADER_TOO_LARGE
    if arrival.origin.origin_domain:
        head = qualified(head, arrival.origin.origin_domain)
    if fault := _fault(fields, arrival.origin, head):
        return fault
    added = [received_field(arrival)]
    if not fields[b"message-id"]:
        added.append(f"Message-ID: {added_message_id(arrival)}\r\n".encode())
    if not fields[b"date"]:
        added.append(f"Date: {_date(arrival.at)}\r\n".encode())
    added += [f"X-Original-To: {address}\r\n".encode() for address in arrival.origin.redirected]
    dropped: tuple[bytes, ...] = _DROPPED
    policy = arrival.policy
    if policy.rewrite_from is not RewriteFrom.KEEP:
        answered = policy.rewrite_from is RewriteFrom.REPLACE_AND_REPLY_TO
        replaced, author = new_author(head, policy.from_address, reply_to=answered)
        added.append(author)
        dropped = (*_DROPPED, *replaced)
    if any(map(fields.get, dropped)):
        head = header.without(head, dropped)
    if head.startswith((b" ", b"\t")):
        # The first line would continue the last field added above; let it continue a meaningless one.
        added.append(b"X-First-Line:\r\n")
    return b"".join([*added, head])


def _fault(fields: Mapping[bytes, int], origin: Origin, head: bytes) -> ContentFault | None:
    if fields[b"from"] > 1:
        return Fault.TWO_FROMS
    if fields[b"received"] >= header.MAX_RECEIVED:
        return Fault.LOOP
    return None if origin.may_send_as is None else _author_fault(origin, head)


def added_message_id(arrival: Arrival) -> str:
    """Return the Message-ID to add to a message that has none."""
    return f"<{arrival.id}@{arrival.origin.hostname}>"


def received_field(arrival: Arrival) -> bytes:
    """Return the trace field of RFC 5321 4.4, folded, with CRLF line ends.

    It names no recipient, because a blind copy must stay blind.
    """
    session = _session(arrival.origin, hide_client=arrival.policy.hide_client)
    return f"Received: {session} id {arrival.id};\r\n\t{_date(arrival.at)}\r\n".encode()


# The same for every message of a client.
@lru_cache(maxsize=64)
def _session(origin: Origin, *, hide_client: bool) -> str:
    client = "" if hide_client else f"from {origin.helo} ({_address(origin.peer)})\r\n\t"
    return f"{client}by {origin.hostname} with {_protocol(origin)}"


def _address(peer: str) -> str:
    kind, _, uid = peer.partition(":")
    if kind in {IMPORT, REPLAY}:
        return kind
    if kind == UNIX:
        return f"local socket, uid {uid}" if uid else "local socket"
    return f"[IPv6:{peer}]" if ":" in peer else f"[{peer}]"


def _date(at: float) -> str:
    return _second(int(at))


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC))


def _protocol(origin: Origin) -> str:
    """Return the keyword for `with` (RFC 3848, RFC 6531 4.3)."""
    if not origin.extended:
        return "SMTP"
    name = "UTF8SMTP" if origin.smtputf8 else "ESMTP"
    return name + "S" * bool(origin.tls) + "A" * bool(origin.user and not origin.by_network)


def _author_fault(origin: Origin, head: bytes) -> UnclearAuthor | ForbiddenAuthor | None:
    assert origin.may_send_as is not None
    found = [(name, value) for name in _AUTHORS for value in header.values(head, name.lower().encode())]
    if not any(name == "From" for name, _ in found):
        return UnclearAuthor(origin.user, "a message without a From field")
    if header.resembles(head, _AUTHORS):
        return UnclearAuthor(origin.user, "a line that some would read as a From or Sender field")
    for name, value in found:
        authors = mailboxes(value)
        if authors is None or any("=?" in address for _, address in authors):
            return UnclearAuthor(origin.user, f"a {name} field that cannot be read")
        for _, address in authors:
            if not origin.may_send_as.match(address):
                return ForbiddenAuthor(origin.user, origin.may_send_as, address, name)
    return None
