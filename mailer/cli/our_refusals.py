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
        r"4\.3\.2 This host is being taken down",
        "an operator typed mailer hosts drain: this host sends what it has, and takes no new mail",
        "let the application use another relay; or, to accept mail here again: mailer hosts drain --undo",
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
    Refusal(
        r"5\.5\.2 The message has a bare CR or LF",
        "a line of the message ends with LF or CR alone, which some servers take for the end of the message",
        "have the application end every line with CR LF; most mail libraries do; curl needs --crlf for a "
        "file with LF, and must not have it for one with CR LF",
    ),
    Refusal(
        r"5\.6\.0 The message has a NUL",
        "the message has an octet of value 0, which no mail may have unencoded",
        "have the application encode binary parts in base64",
    ),
    Refusal(
        r"5\.6\.0 The message has a line over \d+ octets",
        "mail may not have such lines, and longLines says what is done with them",
        'set longLines to "pass", or have the application encode its text in quoted-printable or base64',
    ),
    Refusal(
        r"5\.6\.0 The message has more than one From",
        "mail programs and DKIM signers would choose different ones of them",
        "have the application write one From field",
    ),
    Refusal(
        r"5\.3\.4 The message's header is larger than",
        "the header is larger than any mail needs: perhaps the empty line below it is missing",
        "look at the message that the application writes",
    ),
    Refusal(
        r"5\.4\.6 The message has \d+ or more Received fields",
        "the message has been through as many servers as only a loop explains",
        "find the forward or the provider that brings mail back to this relay; its Received fields name them",
    ),
    Refusal(
        r"5\.6\.7 An address beyond ASCII needs MAIL with SMTPUTF8",
        "the address has characters beyond ASCII, and the client did not say SMTPUTF8",
        "write the domain as xn--..., or have the application use SMTPUTF8, which a name before the @ needs",
    ),
    Refusal(
        r"4\.5\.0 Another session is submitting mail under this Idempotency-Key",
        "the application submits the same mail twice at the same time",
        "nothing, if it tries again: it gets the reply to the first",
    ),
    Refusal(
        r"5\.6\.0 Idempotency-Key",
        "each key stands for one mail (mailer guide applications)",
        "have the application make a key for each mail, from its order number for instance",
    ),
    Refusal(
        r"5\.(6\.0 Latest-Delivery-Time must be|4\.7 The message's Latest-Delivery-Time has passed)",
        "the field Latest-Delivery-Time is obeyed (mailer guide applications)",
        "correct the time, or leave the field out",
    ),
    Refusal(
        r"\(maxFutureRelease\)",
        "maxFutureRelease limits how long mail may wait for the time that its sender wants",
        "raise it, then: mailer reload",
    ),
    Refusal(
        r"5\.7\.11 Logging in needs TLS",
        "the client is on another host, and would send its password unencrypted",
        "have it use STARTTLS or TLS; the listener needs a certificate (smtpTls, listeners)",
    ),
    Refusal(
        r"4\.7\.0 TLS is not available now",
        "the certificate or its key cannot be used",
        "see journalctl -u mailer, and mailer doctor",
    ),
    Refusal(
        r"5\.7\.1 User id \d+ may not submit here",
        "localUsers maps the system users that may submit without a password to users, and this one to none",
        "add it to localUsers (mailer guide applications), its user to mailer user, then: mailer reload",
    ),
)


def ours(reply: str) -> Refusal | None:
    """Return the explanation of a reply of `mailer serve`; None if the reply is not one of its refusals."""
    return next((each for each in _OURS if re.search(each.pattern, reply)), None)
