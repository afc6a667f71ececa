"""Read an answer of an HTTP interface, in the form that `send/http/answer.py` writes, by status and text.

The first matching row of the table counts. If a status has several meanings, rows that match its text come
first.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from mailer.send.replies.reading import About, Reading

BEGINNING = "HTTP "
"""The beginning of such a line; no SMTP reply begins with it."""

_LINE = re.compile(
    r"HTTP (\d{3}) (.*?)(?: \(Retry-After: (\d+) s\))?(?: \(one of (\d+) recipients\))?", re.DOTALL
)

# Addresses are removed, since a local part may be "daily" or "throttle"; "final '@domain'" is not an address.
_ADDRESS = re.compile(r'"[^"]*"@[^\s"<>(),;\']*|[^\s"<>(),:;@\'][^\s"<>(),:;@]*@[^\s"<>(),;\']*')

_MINUTE, _HOUR = 60.0, 3600.0


@dataclass(frozen=True)
class _Row:
    """Answers with a matching status and text are about `about`."""

    about: About
    status: str
    """A regular expression for the status."""
    words: str
    """A regular expression to find in the text, in any case; empty: any text."""
    reason: str
    source: str
    here: bool = False
    pause: float = 0.0


TABLE = (
    _Row(
        About.QUOTA,
        "4..",
        r"dailyLimit|daily (\w+ ){0,3}(limit|quota)|ErrorExceededMessageLimit|QuotaExceeded",
        "Our allowance for the day is used up.",
        "Gmail: 403 dailyLimitExceeded; Microsoft Graph: ErrorExceededMessageLimit, ErrorQuotaExceeded; SES: "
        "Daily message quota exceeded",
        pause=_HOUR,
    ),
    _Row(
        About.QUOTA,
        "429",
        "",
        "Asked to send less for a while.",
        "RFC 6585 4",
        pause=_MINUTE,
    ),
    _Row(
        About.QUOTA,
        "4..",
        r"rateLimitExceeded|Throttl|TooManyRequests|too many requests|MailboxConcurrency|"
        r"LimitExceeded|sending rate",
        "Asked to send less for a while.",
        "Gmail: 403 userRateLimitExceeded; Microsoft Graph: ApplicationThrottled",
        pause=_MINUTE,
    ),
    _Row(
        About.SENDER,
        "40[0-3]",
        r"SendAsDenied|SendOnBehalfOfDenied|ErrorInvalidSender|not allowed to send as|not verified|"
        "MailFromDomainNotVerified",
        "The sender is not this account's.",
        "Microsoft Graph: 403 ErrorSendAsDenied; SES: 400 MessageRejected, address is not verified",
    ),
    _Row(
        About.MESSAGE,
        "413",
        "",
        "The message is larger than this interface takes.",
        "RFC 9110 15.5.14",
        here=True,
    ),
    _Row(
        About.MESSAGE,
        "4..",
        r"SizeExceeded|too large|size limit|exceeds? the (maximum|limit)|exceeded the maximum",
        "The message is larger than this interface takes.",
        "Microsoft Graph: ErrorMessageSizeExceeded; Gmail: 400 too large",
        here=True,
    ),
    _Row(
        About.QUOTA,
        "4..",
        r"limit exceeded|(reached|over|exceeded) (the|your|its) \S* ?(\S+ )?limit|try again (after|later)",
        "Our allowance is used up.",
        "Mailgun: recipient limit exceeded, try again after a moment",
        pause=_MINUTE,
    ),
    _Row(
        About.ACCOUNT,
        "40[1237]",
        "",
        "Our login, or what it may do, is refused, so every mail would be refused.",
        "RFC 9110 15.5.2, 15.5.4, 15.5.8",
    ),
    _Row(
        About.ACCOUNT,
        "4..",
        r"AccessDenied|AccountSuspended|SendingPaused|MailboxNotEnabled|NonExistentMailbox|failedPrecondition|FAILED_PRECONDITION|"
        "Mail service not enabled|not allowed to send|authorized recipients|(account|domain) (is )?disabled",
        "The account, its mailbox or its domain may not send, so every mail would be refused.",
        "Microsoft Graph: MailboxNotEnabledForRESTAPI; Gmail: failedPrecondition; Mailgun: not allowed",
    ),
    _Row(
        About.ACCOUNT,
        "404",
        "",
        "The mailbox or the URL of the interface does not exist, so every mail would be refused.",
        "RFC 9110 15.5.5",
    ),
    _Row(
        About.RECIPIENT,
        "4(00|22)",
        r"InvalidRecipients|Invalid (to|cc|bcc) header|recipient address|Recipient address required|"
        r"recipients? (is|are) (not valid|invalid)|'to' parameter is not a valid|"
        "final '@domain'|illegal address",
        "A recipient's address is refused.",
        "Microsoft Graph: 400 ErrorInvalidRecipients; Gmail: 400 Invalid To header; Mailgun: 'to' parameter",
    ),
    _Row(
        About.MESSAGE,
        "4(00|15|22)",
        r"MimeContentInvalid|InvalidMime|MIME content|MessageSubmissionBlocked|content was rejected",
        "The message's form or content is refused.",
        "Microsoft Graph: 400 ErrorMimeContentInvalid",
        here=True,
    ),
    _Row(
        About.HOST,
        "408|409|425|3..|5..",
        "",
        "The interface itself has trouble.",
        "RFC 9110 15.4, 15.5.9, 15.6",
    ),
)  # fmt: skip


def is_http(reply: str) -> bool:
    return reply.startswith(BEGINNING)


@lru_cache(512)
def read_http(reply: str) -> Reading:
    """Read an answer other than a success, in the journal's form."""
    found = _LINE.fullmatch(reply)
    if not found:
        return Reading(About.UNKNOWN, permanent=False, enhanced="", evidence="", reason="", source="")
    status, words, pause, recipients = found.groups()
    row, evidence = _row(status, _ADDRESS.sub("@", words))
    about = row.about if row else About.UNKNOWN
    if recipients and about in {About.RECIPIENT, About.UNKNOWN}:
        return Reading(
            About.TRANSACTION,
            permanent=False,
            enhanced="",
            evidence=evidence,
            reason="One of several recipients is refused, but not which one: each is tried separately.",
            source="One request has one answer for all its recipients",
        )
    permanent = status.startswith("4") and about not in {About.QUOTA, About.HOST}
    if row is None:
        return Reading(About.UNKNOWN, permanent, "", "", "The answer does not say what it is about.", "")
    waits = float(pause) if pause and about in {About.QUOTA, About.HOST} else row.pause
    return Reading(about, permanent, "", evidence, row.reason, row.source, row.here, waits)


def _row(status: str, words: str) -> tuple[_Row | None, str]:
    for row in TABLE:
        if not re.fullmatch(row.status, status, re.ASCII):
            continue
        if not row.words:
            return row, f"status {status}"
        if found := re.search(row.words, words, re.IGNORECASE):
            return row, f'words "{found.group()}"'
    return None, ""
