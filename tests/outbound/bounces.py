"""Notifications as their receiver reads them: with the standard library's parser, not with ours."""

import email
import email.policy
from dataclasses import dataclass
from email.message import EmailMessage, Message
from pathlib import Path

from spools import walk as spool_walk

from mailer.mail.envelope import Envelope, Recipient
from outbound.hostile import Server
from outbound.sending import PLACES, arriving

Fields = dict[str, str]


@dataclass(frozen=True)
class Notification:
    """A multipart/report (RFC 3462), taken apart."""

    raw: bytes
    to: list[str]
    """Of its envelope."""
    header: Fields
    words: str
    """The part for humans, its lines joined."""
    kind: str
    """The type of the part for programs."""
    message: Fields
    """Its fields about the message."""
    recipients: dict[str, Fields]
    """Its fields about each recipient, by the address in Final-Recipient."""
    copy_kind: str
    copy: bytes
    """The third part, byte for byte."""


def read(raw: bytes, to: list[str]) -> Notification:
    whole = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(whole, EmailMessage)
    assert whole.get_content_type() == "multipart/report"
    assert whole.get_param("report-type") == "delivery-status"
    words, report, copy = whole.iter_parts()
    assert not [part.defects for part in (whole, words, report) if part.defects]
    message, *recipients = _groups(raw, report)
    return Notification(
        raw=raw,
        to=to,
        header=dict(whole.items()),
        words=" ".join(words.get_content().split()),
        kind=report.get_content_type(),
        message=message,
        recipients={fields["Final-Recipient"].partition(";")[2].strip(): fields for fields in recipients},
        copy_kind=copy.get_content_type(),
        copy=_body_of_part(raw, 3),
    )


def _body_of_part(raw: bytes, number: int) -> bytes:
    boundary = b"\r\n--" + raw.partition(b'boundary="')[2].partition(b'"')[0]
    return raw.split(boundary)[number].partition(b"\r\n\r\n")[2]


def _groups(raw: bytes, report: Message) -> list[Fields]:
    """Return the fields in groups, unfolded; the parser knows the ASCII type only."""
    assert report.get_content_type() in {"message/delivery-status", "message/global-delivery-status"}
    groups = _body_of_part(raw, 2).decode().replace("\r\n ", " ").strip().split("\r\n\r\n")
    return [dict(line.split(": ", 1) for line in group.split("\r\n")) for group in groups]


def notifications(server: Server) -> list[Notification]:
    """Everything that came from the null sender and was accepted."""
    return [read(m.body, m.recipients) for m in server.messages if m.accepted and m.sender == ""]


def submit(directory: Path, *recipients: Recipient, message: bytes = b"", **envelope: object) -> str:
    """Put a message with all its DSN parameters into the spool, and return its id."""
    whole = Envelope(**({"sender": "app@example.com"} | envelope), recipients=recipients)  # type: ignore[arg-type]
    with arriving(directory, whole, message or b"Subject: hello\r\n\r\nhello\r\n") as message_id:
        return message_id


def notices_of(spool: Path, message_id: str) -> dict[str, list[str]]:
    """Whom each `notified` line of a message is about, by the notification's id."""
    message = spool_walk.walk(spool, PLACES)[message_id]
    return {str(e["notice"]): list(e["to"]) for e in message.events if e["event"] == "notified"}  # type: ignore[call-overload]
