"""Write a DSN: multipart/report with its three parts (RFC 3462, RFC 3464, RFC 3461 6, RFC 6533).

The first part is for people, the second for programs, and the third is the message or its header. The message
is copied byte for byte and never parsed. Text from clients and remote servers is cut, and its control
characters are escaped, before it is put into a line (`printable`), so that it cannot add a field or a part.
"""

import re
from collections.abc import Iterator, Sequence

from mailer.mail.outcome import server_of
from mailer.mail.reply import printable
from mailer.send.dsn.fields import LONGEST_REPLY, for_programs, in_doubt, is_quoted
from mailer.send.dsn.lines import date_time, ended, part, wrapped
from mailer.send.dsn.owed import Action, Told
from mailer.send.dsn.subject import Letterhead, Subject
from mailer.spool.message_state import Standing

LARGEST_COPY = 50_000
"""The most octets of a message that is returned whole; of a larger one only the header is returned. The same
as Postfix's bounce_size_limit."""

_MAX_LISTED = 100
"""The most recipients that the human part lists for each action; the second part has all of them."""

_TITLES = {
    Action.FAILED: "Undelivered mail returned to sender",
    Action.DELAYED: "Delayed mail, still being tried",
    Action.RELAYED: "Mail passed on",
    Action.DELIVERED: "Mail delivered",
}
"""Subjects by action, the gravest first; the notification has the first that applies."""
_DOUBTFUL = "Mail that may not have been delivered"
"""The subject instead of "Undelivered", if every failed recipient may have the mail nevertheless."""

_MESSAGE_ID = re.compile(
    rb"^message-id:[ \t\r\n]*(<[!-;=?-~]{1,500}>)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)
_SUBJECT = re.compile(rb"^subject:[ \t]*([ -~]{1,200})\r?$", re.IGNORECASE | re.MULTILINE)


def compose(about: Subject, told: Sequence[Told], ours: Letterhead) -> bytes:
    """Return a notification, with CRLF line ends.

    Args:
        about: the message that the notification is about.
        told: the recipients that it is about; at least one.
        ours: see `Letterhead`.
    """
    # The id has 80 random bits, which were unknown when the message was written.
    boundary = f"=_{ours.id}"
    parts = (_for_humans(about, told, ours), for_programs(about, told, ours), _copy(about))
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary.encode(), each) for each in parts)
    return b"%s\r\n%s--%s--\r\n" % (_header(about, told, ours, boundary), body, boundary.encode())


def header_of(message: bytes) -> bytes:
    """Return the header at the beginning of a message, or as many whole lines of it as `message` has."""
    header, end, _ = message.partition(b"\r\n\r\n")
    if message.startswith(b"\r\n"):
        return b""
    if end or len(message) < LARGEST_COPY:
        return header.removesuffix(b"\r\n") + b"\r\n"
    return message[: max(0, message.rfind(b"\r\n") + 2)] if b"\r\n" in message else b""


def _header(about: Subject, told: Sequence[Told], ours: Letterhead, boundary: str) -> bytes:
    now = date_time(ours.now)
    return ended(
        [
            f"Received: by {ours.hostname} (mailer) id {ours.id};",
            f"\t{now}",
            f"From: Mail Delivery System <MAILER-DAEMON@{ours.hostname}>",
            f"To: <{ours.to}>",
            f"Subject: {_what_happened(told)}",
            f"Date: {now}",
            f"Message-ID: <{ours.id}@{ours.hostname}>",
            *_thread(about.copy),
            # RFC 3834 5: keeps vacation programs from answering.
            "Auto-Submitted: auto-replied",
            "MIME-Version: 1.0",
            "Content-Type: multipart/report; report-type=delivery-status;",
            f'\tboundary="{boundary}"',
        ]
    )


def _what_happened(told: Sequence[Told]) -> str:
    action = next(action for action in _TITLES if any(each.action is action for each in told))
    failed = [each for each in told if each.action is Action.FAILED]
    return _DOUBTFUL if failed and all(each.standing.handed_to for each in failed) else _TITLES[action]


def _thread(message: bytes) -> Iterator[str]:
    """Yield the fields by which a mail reader shows the notification in the thread of the mail."""
    if found := _MESSAGE_ID.search(message.partition(b"\r\n\r\n")[0]):
        yield f"In-Reply-To: {found[1].decode()}"
        yield f"References: {found[1].decode()}"


def _title(message: bytes) -> str:
    """Return the message's subject, if it is readable without decoding."""
    found = _SUBJECT.search(message.partition(b"\r\n\r\n")[0])
    text = found[1].decode().strip() if found else ""
    return "" if "=?" in text else text


def _for_humans(about: Subject, told: Sequence[Told], ours: Letterhead) -> bytes:
    lines = [f"This is the mail system at {ours.hostname}.", "", *_which(about, ours), ""]
    for (action, doubtful), sentence in _sentences(about).items():
        those = [
            each.standing
            for each in told
            if each.action is action and bool(each.standing.handed_to) is doubtful
        ]
        if those:
            lines += [*wrapped(sentence, ""), ""]
            lines += [line for standing in those[:_MAX_LISTED] for line in _case(standing)]
        if len(those) > _MAX_LISTED:
            lines += [f"    and {len(those) - _MAX_LISTED} more, all of them in the attached report", ""]
    attached = "The mail" if about.whole else "The mail's header"
    lines += wrapped(f"{attached} is attached. To ask about it here, quote its number: {about.id}", "")
    text = ended(lines)
    charset, encoding = ("us-ascii", "7bit") if text.isascii() else ("utf-8", "8bit")
    return part(f"text/plain; charset={charset}", encoding, "Notification") + text


def _which(about: Subject, ours: Letterhead) -> list[str]:
    who = "you" if about.envelope.sender == ours.to else f"<{printable(about.envelope.sender)}>"
    what = f"This is about the mail that {who} sent on {date_time(about.received)}"
    if about.replays:
        by = printable(about.by, 64) or "an operator"
        when = date_time(about.received)
        what = (
            f"This is about a copy of message {about.replays}, which {by} sent to other addresses on {when}"
        )
    if title := _title(about.copy):
        return [*wrapped(f"{what}, with the subject", ""), "", *wrapped(title, "    ")]
    return wrapped(f"{what}.", "")


def _sentences(about: Subject) -> dict[tuple[Action, bool], str]:
    """Return the sentences by action, and by whether the recipient may have the mail nevertheless."""
    until = date_time(about.given_up)
    return {
        (
            Action.FAILED,
            False,
        ): "It could not be delivered to these recipients, and will not be tried again for them:",
        (
            Action.FAILED,
            True,
        ): "It is not known whether it was delivered to these recipients. It will not be tried "
        "again for them; ask them before you send it again:",
        (
            Action.DELAYED,
            False,
        ): "It has not been delivered to these recipients yet. There is nothing that you "
        f"need to do: it will be tried again until {until}.",
        (
            Action.DELAYED,
            True,
        ): "It is not known yet whether it was delivered to these recipients. There is nothing "
        f"that you need to do: it will be tried again until {until}, and may then arrive twice.",
        (
            Action.RELAYED,
            False,
        ): "It has been passed on for these recipients, to a server that does not confirm "
        "deliveries. Unless you hear otherwise, it has arrived:",
        (Action.DELIVERED, False): "It has been delivered to these recipients:",
    }


def _case(standing: Standing) -> list[str]:
    """Return lines with one recipient and its reply, indented so that text cannot imitate a boundary."""
    words = printable(standing.reply, LONGEST_REPLY)
    if hop := printable(server_of(standing.hop)):
        words = f"{hop} said: {words}" if is_quoted(standing) else f"{hop}: {words}"
    doubt = wrapped(in_doubt(standing), " " * 8) if standing.handed_to else []
    return [f"    <{printable(standing.address)}>", *doubt, *wrapped(words, " " * 8), ""]


def _copy(about: Subject) -> bytes:
    header = about.copy.partition(b"\r\n\r\n")[0]
    # RFC 6532 3.7: a message with a UTF-8 header is message/global, if its sender used SMTPUTF8.
    utf8 = about.envelope.smtputf8 and not header.isascii()
    if about.whole:
        kind = "message/global" if utf8 else "message/rfc822"
    else:
        kind = "message/global-headers" if utf8 else "text/rfc822-headers"
    title = "Undelivered mail" if about.whole else "Header of the mail"
    return part(kind, "7bit" if about.copy.isascii() else "8bit", title) + about.copy
