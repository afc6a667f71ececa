"""Composes a message from the parts of a mail, with `email`; a value cannot inject a header field."""

import re
import unicodedata
from collections.abc import Iterable
from email.errors import MessageError
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage, MIMEPart
from email.policy import EmailPolicy
from http import HTTPStatus
from typing import Any

from mailer.mail.address import a_labels, check_address
from mailer.receive.dialogue import Envelope
from mailer.receive.web.document import Attachment, Mail, several
from mailer.receive.web.exchange import Problem

_RECOMMENDED_LINE, _MAX_LINE = 78, 998
"""Octets of a header line: the recommended and the absolute limit (RFC 5322 2.1.1)."""


class _Policy(EmailPolicy):
    """Writes ASCII values unchanged, folded at their blanks.

    Python's own folding turns words that are too long for a line into encoded words, even in fields where
    they are not decoded: the address of `List-Unsubscribe`, the ids of `In-Reply-To`.
    """

    def header_store_parse(self, name: str, value: object) -> tuple[str, Any]:
        name, parsed = super().header_store_parse(name, value)
        text = value if isinstance(value, str) else str(parsed)
        # A display name that looks like an encoded word has to be encoded itself.
        lookalike = text is not value and "=?" in text
        mime = name.lower().startswith(("content-", "mime-"))
        if lookalike or mime or not text.strip(" ") or not (text.isascii() and text.isprintable()):
            return name, parsed
        lines = _fold(name, text.strip(" "))
        if max(map(len, lines)) <= _MAX_LINE:
            return name, "\r\n".join(lines).removeprefix(f"{name}: ")
        if name == "Subject":
            return name, parsed
        raise ValueError(f"a part without blanks makes a line of more than {_MAX_LINE} octets")


def _fold(name: str, text: str) -> list[str]:
    lines = [f"{name}:"]
    for word in re.findall(" *[^ ]+", f" {text}"):
        if len(lines[-1]) + len(word) > _RECOMMENDED_LINE and lines != [f"{name}:"]:
            lines.append("")
        lines[-1] += word
    return lines


# Accepted by every next hop, whatever extensions it offers.
_ASCII = _Policy(linesep="\r\n", cte_type="7bit", refold_source="none")
_UTF8 = _ASCII.clone(utf8=True)
"""For addresses beyond ASCII, which need a header in UTF-8 (RFC 6532)."""
_NAMED = re.compile(r'\s*(?P<name>"(?:[^"\\]|\\.)*"|[^"<>]*?)\s*<(?P<address>[^<>]*)>\s*')
_FIELD = re.compile(r"[!-9;-~]{1,76}")
"""A field name: printable ASCII except the colon (RFC 5322 3.6.8)."""
_TYPE = re.compile(r"([A-Za-z0-9!#$&^_.+-]{1,127})/([A-Za-z0-9!#$&^_.+-]{1,127})")
"""A media type without parameters, which this module adds (RFC 6838 4.2)."""
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,200}")
_RESERVED = frozenset(
    {
        "from",
        "to",
        "cc",
        "bcc",
        "reply-to",
        "subject",
        "mime-version",
        "received",
        "return-path",
        "idempotency-key",
    }
)
"""Fields that a client cannot set in `headers`: they have a key in the JSON, or are added or dropped here."""


def addresses(written: Iterable[str], key: str) -> list[Address]:
    """Parse addresses; raises Problem."""
    return [_address(each, f"$.{key}") for each in written]


def _address(written: str, where: str) -> Address:
    _check_text(written, where)
    found = _NAMED.fullmatch(written)
    name, address = (found["name"], found["address"]) if found else ("", written)
    name = re.sub(r"\\(.)", r"\1", name[1:-1]) if name.startswith('"') else name
    address = address.strip()
    try:
        check_address(address)
    except ValueError as error:
        words = f"{where}: {error}; write name@domain, or Name <name@domain>, one address each"
        raise _unfit(words) from None
    local_part, _, domain = address.rpartition("@")
    if local_part.startswith('"'):
        raise _unfit(f"{where}: its local part is quoted; submit it by SMTP, or as message/rfc822")
    if local_part.isascii() and not domain.isascii():
        # Else the mail needs SMTPUTF8, and a next hop without it can deliver it to no recipient at all.
        domain = a_labels(domain)
    return Address(name, local_part, domain)


def envelope_of(mail: Mail) -> Envelope:
    """Return the envelope of a mail; raises Problem."""
    named = ((mail.to, "to"), (mail.cc, "cc"), (mail.bcc, "bcc"))
    recipients = [each for written, key in named for each in addresses(several(written), key)]
    if not recipients:
        raise _unfit("$.to, $.cc or $.bcc must name a recipient")
    made = (mail.subject, mail.text, mail.html, mail.attachments, mail.headers, mail.reply_to)
    if mail.raw is not None and any(made):
        raise _unfit("$.raw is the whole message: with it, only from, to, cc and bcc are accepted")
    to = tuple(each.addr_spec for each in recipients)
    if mail.raw is not None:
        sender = addresses([mail.from_], "from")[0].addr_spec if mail.from_ else ""
        # The header of a raw message is kept as it is, and probably has the addresses as they were given.
        return Envelope(sender, to, utf8=not "".join((mail.from_, *mail.recipients)).isascii())
    [author] = addresses([mail.from_], "from")
    # Reply-To is not part of the envelope, but an address beyond ASCII in the header needs SMTPUTF8, too.
    replied = addresses(several(mail.reply_to), "replyTo")
    return Envelope(author.addr_spec, to, utf8=not all(each.addr_spec.isascii() for each in replied))


def compose(mail: Mail) -> bytes:
    """Return the message; raises Problem for a value that cannot be part of one."""
    author = addresses([mail.from_], "from")
    to, cc = (addresses(several(each), key) for each, key in ((mail.to, "to"), (mail.cc, "cc")))
    reply_to = addresses(several(mail.reply_to), "replyTo")
    shown = (*author, *to, *cc, *reply_to)
    plain = all(each.addr_spec.isascii() for each in shown)
    message = EmailMessage(_ASCII if plain else _UTF8)
    for name, found in (("From", author), ("Reply-To", reply_to), ("To", to), ("Cc", cc)):
        if found:
            message[name] = ", ".join(map(_shown, found)) if plain else found
    _check_text(mail.subject, "$.subject")
    message["Subject"] = mail.subject
    for name, value in mail.headers.items():
        _add_field(message, name, value)
    _add_content(message, mail)
    try:
        return message.as_bytes()
    except (ValueError, LookupError, MessageError) as error:
        raise _unfit(f"this cannot be written as a message: {error}") from None


def _shown(address: Address) -> str:
    """Write an address in ASCII, for `_Policy` to fold.

    Python 3.12.1, for one, encodes commas between addresses when it folds a list with names beyond ASCII, and
    so joins two addresses (CPython's issue 100884).
    """
    name = address.display_name
    if name.isascii() and "=?" not in name:
        return str(address)
    return f"{Header(name, 'utf-8', maxlinelen=75).encode(linesep='')} <{address.addr_spec}>"


def _add_field(message: EmailMessage, name: str, value: str) -> None:
    if not _FIELD.fullmatch(name):
        raise _unfit("$.headers: a name is printable ASCII without blanks and colons, of 76 octets at most")
    where = f"$.headers.{name}"
    if name.lower() in _RESERVED or name.lower().startswith("content-"):
        raise _unfit(f"{where}: this field has its own key, or is set by the receiver")
    _check_text(value, where)
    try:
        message[name] = value
        message.policy.fold_binary(*list(message.raw_items())[-1])
    except (ValueError, MessageError) as error:
        raise _unfit(f"{where}: {error}") from None
    except Exception as error:  # noqa: BLE001 - the parsers of `email` raise all kinds of exceptions
        words = f"{where}: this cannot be written in that field; correct its syntax ({type(error).__name__})"
        raise _unfit(words) from None


def _add_content(message: EmailMessage, mail: Mail) -> None:
    text, html = _lines(mail.text), _lines(mail.html)
    if text is not None or html is None:
        message.set_content(text or "")
        if html is not None:
            message.add_alternative(html, subtype="html")
    else:
        message.set_content(html, subtype="html")
    related = [each for each in mail.attachments if each.content_id]
    if related and html is None:
        raise _unfit("$.attachments: a contentId is for what $.html refers to, and there is none")
    for each in related:
        _add_related(message, each)
    for each in mail.attachments:
        if not each.content_id:
            maintype, subtype = _type(each)
            message.add_attachment(
                each.content, maintype=maintype, subtype=subtype, filename=_filename(each) or "attachment"
            )


def _add_related(message: EmailMessage, attachment: Attachment) -> None:
    body = message.get_body(("html",))
    assert isinstance(body, MIMEPart)
    content_id = attachment.content_id.removeprefix("<").removesuffix(">")
    if not _CONTENT_ID.fullmatch(content_id):
        raise _unfit("$.attachments: a contentId is printable ASCII without blanks and angle brackets")
    maintype, subtype = _type(attachment)
    body.add_related(
        attachment.content,
        maintype=maintype,
        subtype=subtype,
        cid=f"<{content_id}>",
        filename=_filename(attachment) or None,
        disposition="inline",
    )


def _type(attachment: Attachment) -> tuple[str, str]:
    found = _TYPE.fullmatch(attachment.content_type)
    # Messages and multiparts must not be encoded in base64 (RFC 2045 6.4).
    if not found or found[1].lower() in {"message", "multipart"}:
        raise _unfit("$.attachments: a contentType is like application/pdf, without parameters")
    return found[1], found[2]


def _filename(attachment: Attachment) -> str:
    _check_text(attachment.filename, "$.attachments: filename")
    return attachment.filename


def _lines(text: str | None) -> str | None:
    """Return a text with LF line ends, as `email` requires; raises Problem."""
    if text is None:
        return None
    if "\0" in text:
        raise _unfit("$.text and $.html: a NUL cannot stand in a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _unfit("$.text and $.html: an unpaired surrogate cannot be encoded") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check_text(text: str, where: str) -> None:
    """Refuse every character that any program might take for the end of a header line."""
    if any(unicodedata.category(each) in {"Cc", "Zl", "Zp", "Cs"} for each in text):
        raise _unfit(f"{where}: a line end or another control character is not allowed; nothing was queued")


def _unfit(words: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, words)
