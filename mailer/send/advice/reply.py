"""Advice by what a server's reply is about, whether it is final, and whose server gave it."""

import shlex

from mailer.mail.login_causes import cause_of
from mailer.send.replies.reader import read_line
from mailer.send.replies.reading import About, Reading
from mailer.send.replies.recipients import FULL_MAILBOX
from mailer.spool.view.verdict import NOTHING_TO_DO

_ONE_WAY: dict[tuple[About, bool], str] = {
    (About.RECIPIENT, True): "Their server takes no mail for this address: ask them for the right one.",
    (About.RECIPIENT, False): "Their mailbox takes nothing now: wait, or reach them in another way.",
    (About.DESTINATION, True): "It is about their domain's rules: ask its postmaster, with the reply{again}.",
    (About.DESTINATION, False): f"Usual (greylisting, or their server's pace): {NOTHING_TO_DO}",
    (About.TRANSACTION, False): f"Usual (recipients in one transaction): {NOTHING_TO_DO}",
    (About.HOST, False): f"{{name}} has trouble of its own: {NOTHING_TO_DO}",
}
"""Advice by what a reply is about and whether it is final (5yz)."""
_TOO_OLD: dict[About, str] = {
    About.RECIPIENT: "Their mailbox took nothing in all that time: reach them in another way.",
    About.DESTINATION: "Their server put it off until it was too old: ask its postmaster{again}.",
    About.TRANSACTION: "{name} put it off until it was too old: ask them{again}.",
    About.HOST: "{name} had trouble of its own until the mail was too old: once that is over, "
    "type `mailer spool retry {{id}}`.",
}
"""The same for mail that was given up after a temporary reply."""
_FULL = "Their mailbox is full: reach them in another way, or have them make room{again}."
_EITHER_WAY: dict[About, str] = {
    About.MESSAGE: "It is about the mail itself (content, form, size): change it, send it anew.",
    About.SENDER: (
        "It is about the sender's address: correct what the reply names (SPF, DKIM or DMARC of its domain, "
        "see `mailer doctor`), or have {name} allow it{again}."
    ),
    About.ACCOUNT: (
        "It is about our account at {name}: correct `username` and `password` in $.forwardProviders, then "
        "type `mailer reload`, `mailer providers reset {typed}` and `mailer spool retry --all`."
    ),
    About.QUOTA: (
        "Our allowance at {name} is used up: wait until it is renewed, or have {name} raise it{again}."
    ),
    About.SESSION: (
        "It is about our host, its address or their reputation: `mailer doctor` looks at names and lists; "
        "have a list that the reply names take our address off, or ask {name}, with the reply{again}."
    ),
}
_ASK = "The reply does not say what it is about: ask {name}, with the reply{again}."
_ACCOUNT: dict[str, str] = {
    "5.7.139": (
        "{name} does not let this mailbox log in by SMTP, whatever the password: have its administrator "
        "allow SMTP AUTH for it, then type `mailer providers reset {typed}` and `mailer spool retry --all`."
    ),
    "suspended": (
        "{name} has suspended our account, whatever the password: have them open it again, then type "
        "`mailer providers reset {typed}` and `mailer spool retry --all`."
    ),
    "expired": (
        "The password at {name} has expired: renew it there, write the new one into $.forwardProviders, "
        "then type `mailer reload`, `mailer providers reset {typed}` and `mailer spool retry --all`."
    ),
}
"""Advice by words in a reply about our account, for trouble that another password would not cure."""
_TLS_FIRST = (
    "{name} wants TLS first, and offers none here: set its port with STARTTLS (587), or with `ssl` (465), in "
    "$.forwardProviders, and no $.tlsPolicies of level none for it; then type `mailer reload`; sending "
    "resumes by itself."
)
_LOOP = (
    "It went round in a circle behind {name}: a forward or an alias at the recipient's domain leads back. "
    "Ask its postmaster; the Received fields of the returned mail name the servers{again}."
)
_NO_SMTPUTF8 = (
    "{name} takes no address beyond ASCII, in the envelope or in the header: have the application write a "
    "domain as xn--..., and send the mail anew; a name before the @ that is not ASCII needs another provider."
)
_NO_MAIL = "Their domain takes no mail at all: is the address right? Ask them for one at another domain."
_NO_DOMAIN = (
    "The domain after the @ does not exist, or has no mail server: is the address right? Send the mail anew "
    "to the right one."
)


def template_for(reply: str, *, ours: bool, given_up: bool) -> str:
    reading = read_line("", reply)
    if ours and reply.startswith("530") and "starttls" in reply.lower():
        return _TLS_FIRST
    if "too many hops" in reply.lower() or " 5.4.6 " in reply:
        return _LOOP
    if "does not offer SMTPUTF8" in reply:
        return _NO_SMTPUTF8
    if reply.startswith("556"):
        return _NO_MAIL
    if reading.about is About.ACCOUNT:
        special = next((told for sign, told in _ACCOUNT.items() if sign in reply.lower()), None)
        return special or (_EITHER_WAY[About.ACCOUNT] if ours else _ASK)
    return _by_subject(reading, given_up=given_up)


def _by_subject(reading: Reading, *, given_up: bool) -> str:
    if reading.permanent and reading.reason == FULL_MAILBOX:
        return _FULL
    # RFC 3463 3.2, bad destination system address: no server of the domain was asked.
    if reading.enhanced == "5.1.2" and reading.about in {About.RECIPIENT, About.DESTINATION}:
        return _NO_DOMAIN
    if given_up and not reading.permanent and reading.about in _TOO_OLD:
        return _TOO_OLD[reading.about]
    return _ONE_WAY.get((reading.about, reading.permanent)) or _EITHER_WAY.get(reading.about, _ASK)


def account_trouble(reply: str, name: str) -> str:
    """Return what to do about a login that is refused; `name` is the provider's."""
    return special_account_trouble(reply, name) or filled(_EITHER_WAY[About.ACCOUNT], name)


def filled(template: str, name: str, again: str = "") -> str:
    """Put a provider's name into advice: unchanged in sentences, quoted for the shell in commands."""
    return template.format(name=name, typed=shlex.quote(name), again=again)


def special_account_trouble(reply: str, name: str) -> str:
    """Return what to do about a refused login that another password would not cure; empty if it might."""
    if cause := cause_of(reply):
        return cause.advice(name)
    special = next((told for sign, told in _ACCOUNT.items() if sign in reply.lower()), "")
    return filled(special, name)
