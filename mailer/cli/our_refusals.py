"""Explanations of the refusals of `mailer serve`, for `mailer explain-trouble` and `mailer log`."""

import re
from typing import NamedTuple


class Refusal(NamedTuple):
    """A kind of refusal by `mailer serve`."""

    pattern: str
    """A regular expression that is found in the reply's text."""
    meaning: str
    todo: str
    """What the operator can do about it."""


_OURS = (
    Refusal(
        r"may not send as|\(allowedSenders\)",
        "the user has a list of senders (mailer user ls), and neither MAIL FROM nor the From and Sender "
        "fields may name another",
        "allow it: mailer user allow USER ADDRESS; or set the application's sender to one of the list",
    ),
    Refusal(
        r"4\.7\.1 \d+ of \d+ messages in ",
        "a limit on messages is reached, which the reply names; it slides, so more are allowed one by one",
        "wait, or raise that key (mailer limits shows who has used what), then: mailer reload",
    ),
    Refusal(
        r"4\.3\.1 No space to store",
        "the spool's disk has less room than minFreeSpace; no mail is lost, the application is to try again",
        "make room: df -h on the spool, mailer spool stats says what it holds; or lower minFreeSpace",
    ),
    Refusal(
        r"4\.3\.1 The queue is full",
        "as many messages wait as maxQueued allows",
        "see why they wait: mailer spool stats, mailer providers; then raise maxQueued",
    ),
    Refusal(
        r"4\.3\.0 The message cannot be stored now",
        "the spool could not be written, and the log says why",
        "see journalctl -u mailer, and mailer doctor",
    ),
    Refusal(
        r"4\.3\.0 The spool was moved or unmounted",
        "spoolDir leads to another directory than when mailer serve started, or to none",
        "mount the spool's disk, or put the directory back (findmnt and ls -la on it); then restart mailer",
    ),
    Refusal(
        r"5\.7\.0 (Log in with AUTH|Say STARTTLS|Encryption is required)",
        "the client sent mail before it logged in, or before it encrypted where that is required",
        "set user and password in the application (mailer init prints the settings), and TLS where the "
        "listener has it (smtpTls, listeners)",
    ),
    Refusal(
        r"5\.7\.8 The user name or the password is wrong|^login failed",
        "the login is neither defaultUsername's nor one of mailer user",
        "check it: mailer user check NAME; give it another: mailer user passwd NAME",
    ),
    Refusal(
        r"\(allowedRecipients\)",
        "this is a staging system: it sends to the addresses of allowedRecipients alone",
        "add the address or its domain to allowedRecipients, then: mailer reload",
    ),
    Refusal(
        r"\(maxMessageSize\)", "the message is larger than maxMessageSize", "raise it, then: mailer reload"
    ),
    Refusal(
        r"\(maxRecipients\)",
        "one message has more recipients than maxRecipients; those before are taken",
        "raise it, or send in parts",
    ),
    Refusal(
        r"\(security\.allowLocalOnly\)",
        "the client is on another host, and only this one may connect",
        "to serve others set allowLocalOnly to false, a certificate, and a login",
    ),
)


def ours(reply: str) -> Refusal | None:
    """Return the explanation of a reply of `mailer serve`; None if the reply is not one of its refusals."""
    return next((each for each in _OURS if re.search(each.pattern, reply)), None)
