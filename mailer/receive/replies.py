"""All SMTP replies of the receiver, with enhanced status codes (RFC 3463) and texts that say what to do.

No reply reveals a path, the text of an exception or other internals.
"""

import re
import shlex
from errno import EDQUOT, ENOSPC
from functools import lru_cache

from mailer.mail.duration import duration
from mailer.mail.header import MAX_FIELDS, MAX_HEADER, MAX_RECEIVED
from mailer.mail.patterns import AddressPatterns
from mailer.mail.reply import Reply, printable
from mailer.receive.content.data import MAX_LINE
from mailer.receive.content.fault import ContentFault, Fault, ForbiddenAuthor, UnclearAuthor
from mailer.receive.users.rates import HOUR, Full

REFUSAL = 400
"""The lowest code of a reply that refuses something."""

BYE = Reply(221, ("2.0.0 Bye",))
OK = Reply(250, ("2.0.0 Ok",))
SENDER_OK = Reply(250, ("2.1.0 Sender ok",))
RECIPIENT_OK = Reply(250, ("2.1.5 Recipient ok",))
RECIPIENT_TWICE = Reply(250, ("2.1.5 Recipient ok, and already there: one copy will be sent",))
AUTHENTICATED = Reply(235, ("2.7.0 Authentication successful",))
CANNOT_VERIFY = Reply(252, ("2.1.5 Cannot verify the address here; send to it and see",))
GO_AHEAD = Reply(354, ("End data with <CR><LF>.<CR><LF>",))

_QUEUED = re.compile(r"queued as ([0-9A-Z]{26})( \(before)?")

STARTING_TLS = Reply(220, ("2.0.0 Begin TLS",))

SHUTTING_DOWN = Reply(421, ("4.3.2 Service is shutting down; try again shortly",))
TOO_MANY_CONNECTIONS = Reply(421, ("4.3.2 Too many connections; try again shortly",))
TIMED_OUT = Reply(421, ("4.4.2 Timed out waiting for input; closing the connection",))
TOO_MANY_ERRORS = Reply(421, ("4.7.0 Too many errors; closing the connection",))
TOO_MANY_UNKNOWN = Reply(421, ("4.7.0 Too many unknown commands; closing the connection",))
TOO_MANY_COMMANDS = Reply(421, ("4.7.0 Too many commands without a message; closing the connection",))
TOO_MANY_LOGINS = Reply(421, ("4.7.0 Too many failed logins; closing the connection",))
INPUT_AFTER_DATA = Reply(
    421, ("4.7.0 DATA was refused and more had been sent already; closing the connection",)
)
INTERNAL_ERROR = Reply(421, ("4.3.0 Internal error, which our log describes; closing the connection",))
ENDLESS_LINE = Reply(421, ("4.7.0 The line has no end; closing the connection",))

NO_SPACE = Reply(452, ("4.3.1 No space to store the message; try again later",))
KEY_IN_USE = Reply(
    451, ("4.5.0 Another session is submitting mail under this Idempotency-Key; try again shortly",)
)
DRAINING = Reply(
    451, ("4.3.2 This host is being taken down, and its mail is sent still; use another relay, or try later",)
)
LOCAL_ERROR = Reply(
    451, ("4.3.0 The message cannot be stored now, the reason is in our log; try again later",)
)
SPOOL_REPLACED = Reply(
    451, ("4.3.0 The spool was moved or unmounted, and nothing would be sent from it; try again later",)
)
QUEUE_FULL = Reply(452, ("4.3.1 The queue is full (maxQueued); try again later",))
TOO_MANY_RECIPIENTS = Reply(
    452, ("4.5.3 Too many recipients (maxRecipients); send this message, then another to the rest",)
)

TLS_FAILED = Reply(454, ("4.7.0 TLS is not available now; the reason is in our log",))

BAD_LINE = Reply(
    500, ("5.5.2 A command must be one line of text that ends with CR LF, without other CR, LF or NUL",)
)
LINE_TOO_LONG = Reply(500, ("5.5.2 The command line is too long",))
AUTH_TOO_LONG = Reply(500, ("5.5.6 The authentication response is too long",))
UNKNOWN_COMMAND = Reply(500, ("5.5.2 Unknown command; HELP lists the commands",))
NO_ARGUMENT = Reply(501, ("5.5.4 This command takes no argument",))
NEED_ARGUMENT = Reply(501, ("5.5.4 This command needs an argument",))
BAD_NAME = Reply(
    501, ("5.5.4 Say EHLO with your host name, or with your address in brackets: EHLO [127.0.0.1]",)
)
MAIL_SYNTAX = Reply(501, ("5.5.4 The syntax is MAIL FROM:<address>, then parameters",))
RCPT_SYNTAX = Reply(501, ("5.5.4 The syntax is RCPT TO:<address>, then parameters",))
AUTH_SYNTAX = Reply(501, ("5.5.4 The syntax is AUTH and a mechanism, then at most one initial response",))
NO_INITIAL_RESPONSE = Reply(501, ("5.7.0 This mechanism has no initial response",))
BDAT_SYNTAX = Reply(501, ("5.5.4 The syntax is BDAT octets, or BDAT octets LAST for the last chunk",))
AUTH_ABORTED = Reply(501, ("5.7.0 Authentication cancelled",))
BAD_BASE64 = Reply(501, ("5.5.2 The response is not valid base64",))
BAD_CREDENTIALS = Reply(501, ("5.5.2 The response does not hold a user name and a password in UTF-8",))
NOT_HTTP = Reply(502, ("5.7.0 This is an SMTP server, not HTTP; closing the connection",))
NO_TLS = Reply(502, ("5.5.1 TLS is not offered here; EHLO lists the extensions",))
NO_EXPN = Reply(502, ("5.5.1 There are no lists to expand here",))
NO_AUTH = Reply(502, ("5.5.1 AUTH is not offered here; send without a login",))
TLS_TWICE = Reply(503, ("5.5.1 TLS is on already",))
CHUNKS_BEGUN = Reply(503, ("5.5.1 The message is coming in chunks; go on with BDAT, or drop it with RSET",))
CHUNK_DROPPED = Reply(503, ("5.5.1 This message was refused already; say RSET and begin again",))
NEED_EHLO = Reply(503, ("5.5.1 Say EHLO first",))
NEED_MAIL = Reply(503, ("5.5.1 Say MAIL FROM first",))
NEED_RCPT = Reply(503, ("5.5.1 Say RCPT TO first, and have one recipient accepted",))
NESTED_MAIL = Reply(503, ("5.5.1 A message is already begun; finish it with DATA or drop it with RSET",))
AUTH_IN_MAIL = Reply(503, ("5.5.1 A message is already begun; log in before MAIL, or say RSET",))
AUTH_TWICE = Reply(503, ("5.5.1 Already logged in",))
_MAX_LISTED = 3
"""Allowed senders that a refusal lists."""
_MAX_COMMAND = 150
"""Characters of the longest command that a refusal suggests."""
_ONE = {"hour": "an hour", "day": "a day"}

NEED_STARTTLS = Reply(530, ("5.7.0 Encryption is required here: say STARTTLS first",))
NEED_AUTH = Reply(530, ("5.7.0 Log in with AUTH first",))
NEED_TLS_AND_AUTH = Reply(530, ("5.7.0 Say STARTTLS first, then log in with AUTH",))
LOGIN_FAILED = Reply(535, ("5.7.8 The user name or the password is wrong",))
NEED_TLS = Reply(538, ("5.7.11 Logging in needs TLS, or a connection from this host itself",))
MESSAGE_TOO_BIG = Reply(552, ("5.3.4 The message is larger than EHLO's SIZE says we take (maxMessageSize)",))
HEADER_TOO_LARGE = Reply(
    552, (f"5.3.4 The message's header is larger than {MAX_HEADER} octets or has over {MAX_FIELDS} fields",)
)
NEED_SMTPUTF8 = Reply(553, ("5.6.7 An address beyond ASCII needs MAIL with SMTPUTF8",))
LOOP = Reply(554, (f"5.4.6 The message has {MAX_RECEIVED} or more Received fields; it is in a mail loop",))
BAD_KEY = Reply(
    554,
    ("5.6.0 Idempotency-Key must be one field with 1 to 255 printable ASCII characters, blanks in quotes",),
)
BAD_LATEST = Reply(
    554,
    ("5.6.0 Latest-Delivery-Time must be one time, as in a Date field, or as 2027-01-31T08:00:00Z",),
)
TOO_LATE = Reply(554, ("5.4.7 The message's Latest-Delivery-Time has passed; it is not queued",))
TWO_FROMS = Reply(554, ("5.6.0 The message has more than one From field; name all authors in one",))
NO_FUTURE_RELEASE = Reply(
    555, ("5.5.4 HOLDFOR and HOLDUNTIL are switched off (maxFutureRelease); EHLO lists the extensions",)
)
RECIPIENT_NOT_ALLOWED = Reply(
    550, ("5.7.1 Mail to this address is switched off here (allowedRecipients); it is not on the list",)
)
EARLY_TALKER = Reply(554, ("5.5.1 Wait for the banner before you speak; closing the connection",))
LOCAL_ONLY = Reply(
    554, ("5.7.1 Only this host itself may connect (security.allowLocalOnly); closing the connection",)
)
NEED_ESMTP = Reply(555, ("5.5.4 Parameters need EHLO instead of HELO",))

_REFUSED_CONTENT = {
    Fault.BARE_LINE_END: Reply(
        550, ("5.5.2 The message has a bare CR or LF; every line must end with CR LF",)
    ),
    Fault.NUL: Reply(554, ("5.6.0 The message has a NUL character; encode binary parts in base64",)),
    Fault.TOO_BIG: MESSAGE_TOO_BIG,
    Fault.LONG_LINE: Reply(
        554, (f"5.6.0 The message has a line over {MAX_LINE} octets; use quoted-printable or base64",)
    ),
    Fault.HEADER_TOO_LARGE: HEADER_TOO_LARGE,
    Fault.TWO_FROMS: TWO_FROMS,
    Fault.LOOP: LOOP,
    Fault.BAD_KEY: BAD_KEY,
    Fault.BAD_LATEST: BAD_LATEST,
    Fault.TOO_LATE: TOO_LATE,
}


def content_refused(fault: ContentFault) -> Reply:
    """Return the reply to the end of a message that is refused for its content."""
    match fault:
        case UnclearAuthor():
            return _unclear_author(fault)
        case ForbiddenAuthor():
            return not_allowed_sender(fault.user, fault.allowed, fault.address, f"the {fault.field} field")
        case _:
            return _REFUSED_CONTENT[fault]


def queued(message_id: str) -> Reply:
    return Reply(250, (f"2.0.0 Ok: queued as {message_id}",))


class Repeated(Reply, frozen=True):
    """The positive reply to mail that was queued before under the same key; nothing is queued now."""


def repeated(message_id: str) -> Repeated:
    return Repeated(250, (f"2.0.0 Ok: queued as {message_id} (before, under this Idempotency-Key)",))


def read_queued(reply: Reply) -> tuple[str, bool]:
    """Read a reply of `queued` or `repeated`: return the id, and whether the message was queued before.

    Raises:
        ValueError: it is another reply.
    """
    if (found := _QUEUED.search(reply.lines[-1])) is None:
        raise ValueError(f"not the reply to a queued message: {reply}")
    return found[1], found[2] is not None


def other_mail(message_id: str) -> Reply:
    """Return the reply to a message whose key was used for different mail."""
    return Reply(
        554, (f"5.6.0 Idempotency-Key: other mail was queued under it, as {message_id}; use a new key",)
    )


def too_far_ahead(most: int) -> Reply:
    return Reply(
        501, (f"5.5.4 The message may wait for {duration(most)} at most, {most} seconds (maxFutureRelease)",)
    )


def sender_completed(address: str) -> Reply:
    return Reply(250, (f"2.1.0 Sender ok, completed to {printable(address, 400)} (originDomain)",))


def recipient_completed(address: str) -> Reply:
    return Reply(
        250, (f"2.1.5 Recipient ok, completed to {printable(address, 400)} (originDomain, aliases)",)
    )


def bad_mechanism(mechanisms: tuple[str, ...]) -> Reply:
    return Reply(504, (f"5.5.4 Unknown mechanism; use {' or '.join(mechanisms)}",))


def not_allowed_sender(user: str, allowed: AddressPatterns, address: str, where: str) -> Reply:
    """Return the refusal of a sender address, with what is allowed and the command that allows more.

    Args:
        user: the user who has logged in.
        allowed: the addresses that this user may send as.
        address: the address that is not among them.
        where: the place of that address: `MAIL FROM`, or a field of the header.
    """
    known = sorted(allowed.members)
    may = ", ".join([*known[:_MAX_LISTED], *(["..."] * (len(known) > _MAX_LISTED))]) or "no address"
    said = (
        f"{printable(user, 60)} may not send as {printable(address, 100)}, which {where} says; it may send as"
    )
    # RFC 5321 4.5.3.1.5: a reply line has at most 512 octets, and a truncated command cannot be typed.
    command = f"mailer user allow {shlex.quote(user)} {shlex.quote(address)}"
    todo = f" ({command})" if len(command) <= _MAX_COMMAND else ""
    return Reply(553, (f"5.7.1 {said} {printable(may, 100)}{printable(todo)}",))


def _unclear_author(fault: UnclearAuthor) -> Reply:
    return Reply(553, (f"5.7.1 {printable(fault.user, 100)} may not send {fault.what} (allowedSenders)",))


def unknown_local_user(uid: int, user: str) -> Reply:
    """Return the reply to a program at `submitSocket` that may not submit.

    Args:
        uid: the user id of the program.
        user: the user that `localUsers` maps it to; empty: none.
    """
    why = f"maps it to {printable(user, 100)}, which is not a user here" if user else "maps it to no user"
    return Reply(554, (f"5.7.1 User id {uid} may not submit here: localUsers {why} (ESMTP mailer)",))


class RateExceeded(Reply, frozen=True):
    """The reply to a message over a rate limit, which has to wait."""


def rate_exceeded(full: Full) -> RateExceeded:
    """Return a reply that names the limit, whose it is, its configuration key, and when to try again."""
    kind, _, name = full.key.partition(" ")
    per = "hour" if full.window == HOUR else "day"
    word = per.capitalize()
    whose, key = {
        "sender": (f" for {printable(name, 100) or '<>'}", f"rateLimits.maxPer{word}"),
        "user": (f" for user {printable(name, 100)}", f"maxPer{word} of mailer user"),
    }.get(kind, (" for all senders", f"rateLimits.globalMaxPer{word}"))
    text = f"4.7.1 {full.most} of {full.most} messages in {_ONE[per]}{whose} ({key})"
    return RateExceeded(451, (f"{text}; try again in {duration(full.seconds)}",))


def no_space(shortage: str) -> Reply:
    """Return the reply for a lack of space; `shortage` says what is lacking and which key requires it."""
    return Reply(452, (f"4.3.1 No space to store the message: {shortage}; try again later",))


def unencodable(reason: str) -> Reply:
    """Return the reply to a message with long lines that `longLines: quotedPrintable` could not encode."""
    return Reply(
        554, (f"5.6.0 The message has a line over {MAX_LINE} octets that cannot be encoded: {reason}",)
    )


def not_stored(error: OSError) -> Reply:
    """Return the reply to a message that could not be stored in the spool: always temporary (promise 5)."""
    return NO_SPACE if error.errno in {ENOSPC, EDQUOT} else LOCAL_ERROR


@lru_cache(maxsize=128)
def wire(reply: Reply) -> bytes:
    """Encode a reply for the wire (RFC 5321 4.2.1)."""
    *firsts, last = reply.lines
    code = reply.code
    return "".join([*(f"{code}-{line}\r\n" for line in firsts), f"{code} {last}\r\n"]).encode()
