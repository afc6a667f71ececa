"""The machine-readable part of a DSN: RFC 3464 2, and RFC 6533 if an address is not ASCII."""

import re
from collections.abc import Iterable, Sequence

from mailer.mail.outcome import Status, server_of, was_asked
from mailer.mail.reply import enhanced_status, printable
from mailer.send.dsn.lines import date_time, ended, part, wrapped
from mailer.send.dsn.owed import Action, Told
from mailer.send.dsn.subject import Letterhead, Subject
from mailer.spool.message_state import Standing

LONGEST_REPLY = 500
"""Characters of a reply to include. RFC 5321 4.5.3.1.5: 512 octets a line; the journal keeps more."""
_SMTP_REPLY = re.compile(r"[2-5]\d\d(?: |$)", re.ASCII)

_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{2,6})\}")

_Fields = Iterable[tuple[str, str]]


def for_programs(about: Subject, told: Sequence[Told], ours: Letterhead) -> bytes:
    """Return the part: a group of fields for the message, and one for each recipient."""
    utf8 = _needs_utf8(about, told)
    groups = [_of_message(about, ours), *(_of_recipient(each, about, ours) for each in told)]
    text = b"\r\n".join(_written(group, utf8=utf8) for group in groups)
    kind = "message/global-delivery-status" if utf8 else "message/delivery-status"
    return part(kind, "7bit" if text.isascii() else "8bit", "Delivery report") + text


def is_quoted(standing: Standing) -> bool:
    """Tell whether a recipient's reply was given by a server, not by the system or by us."""
    return was_asked(standing.hop) and _SMTP_REPLY.match(standing.reply) is not None


def in_doubt(standing: Standing) -> str:
    """Return words that say that the message may have been delivered, and by which hop."""
    hop = printable(server_of(standing.handed_to))
    return f"was handed to {hop}, whose answer was lost; it may have been delivered"


def status_code(told: Told) -> str:
    """Return the status (RFC 3463): the server's own if it fits the action, otherwise a general one."""
    if told.standing.handed_to:
        # X.4.2: connected, but the transaction was not completed. The class is 4 although the action is
        # `failed`: no server has refused the mail or the address; attempts were abandoned (RFC 3463 2).
        return "4.4.2"
    if told.standing.status is Status.EXPIRED:
        # X.4.7: delivery time expired. The Diagnostic-Code has the reason for the last failure.
        return "5.4.7"
    kind = {Action.FAILED: "5", Action.DELAYED: "4"}.get(told.action, "2")
    given = enhanced_status(told.standing.reply)
    return given if given.startswith(kind) else f"{kind}.0.0"


def _needs_utf8(about: Subject, told: Sequence[Told]) -> bool:
    recipients = [each.standing.recipient for each in told]
    words = [about.envelope.sender, *(word for each in recipients for word in (each.address, each.orcpt))]
    return not all(map(str.isascii, words)) or any(each.orcpt[:6].lower() == "utf-8;" for each in recipients)


def _of_message(about: Subject, ours: Letterhead) -> _Fields:
    if about.envelope.envid:
        yield "Original-Envelope-Id", _decoded(about.envelope.envid)
    yield "Reporting-MTA", f"dns; {ours.hostname}"
    yield "X-Mailer-Queue-Id", about.id
    yield "Arrival-Date", date_time(about.received)


def _of_recipient(told: Told, about: Subject, ours: Letterhead) -> _Fields:
    standing, recipient = told.standing, told.standing.recipient
    if recipient.orcpt:
        yield "Original-Recipient", _original(recipient.orcpt)
    yield "Final-Recipient", f"{'rfc822' if recipient.address.isascii() else 'utf-8'}; {recipient.address}"
    yield "Action", told.action
    yield "Status", status_code(told)
    quoted = is_quoted(standing)
    if quoted:
        yield "Remote-MTA", f"dns; {_host(server_of(standing.hop).rpartition(':')[0])}"
    words = printable(standing.reply, LONGEST_REPLY)
    if standing.handed_to:
        yield "Diagnostic-Code", f"X-mailer; {in_doubt(standing)}{f'; last: {words}' if words else ''}"
    elif words:
        yield "Diagnostic-Code", f"{'smtp' if quoted else 'X-mailer'}; {words}"
    if standing.attempt:
        yield "Last-Attempt-Date", date_time(ours.now)
    if told.action is Action.DELAYED:
        yield "Will-Retry-Until", date_time(about.given_up)


def _host(label: str) -> str:
    """Return the name of `name[address]`, as a literal if it is itself an address (RFC 5321 4.1.3)."""
    name = label.partition("[")[0] or label
    if ":" in name:
        return f"[IPv6:{name}]"
    return f"[{name}]" if name.replace(".", "").isdigit() else name


def _original(orcpt: str) -> str:
    """Decode ORCPT: xtext (RFC 3461 4.2), and the ASCII form of a UTF-8 address (RFC 6533 3)."""
    kind, _, address = orcpt.partition(";")
    text = _decoded(address)
    return f"{kind}; {_EMBEDDED.sub(_character, text) if kind.lower() == 'utf-8' else text}"


def _character(found: re.Match[str]) -> str:
    code = int(found[1], 16)
    return chr(code) if code <= 0x10FFFF and not 0xD800 <= code < 0xE000 else found[0]


def _decoded(xtext: str) -> str:
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), xtext)


def _written(fields: _Fields, *, utf8: bool) -> bytes:
    lines: list[str] = []
    for name, value in fields:
        shown = printable(value, 2000)
        if not utf8:
            shown = shown.encode("ascii", "backslashreplace").decode()
        # Only the field with a server's reply may be long. Others are not folded, to keep addresses whole.
        lines += _folded(name, shown) if name == "Diagnostic-Code" else [f"{name}: {shown}"]
    return ended(lines)


def _folded(name: str, value: str) -> list[str]:
    first, *rest = wrapped(f"{name}: {value}", " ")
    return [first.lstrip(" "), *rest]
