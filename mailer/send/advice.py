"""Advice for the operator about a recipient: who has to act, and with which commands.

A table by what a reply is about (`replies`), whether it is final, and whose server gave it. It reads the
configuration so that the commands can be typed as shown. It decides nothing.
"""

import re
import shlex

import msgspec

from mailer.config.hops import Provider
from mailer.config.model import Config
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.login_causes import cause_of
from mailer.mail.outcome import SUPPRESSION_LIST, Status
from mailer.send.hop_names import provider_at, providers_with
from mailer.send.replies.reader import read_line
from mailer.send.replies.reading import About, Reading
from mailer.send.replies.recipients import FULL_MAILBOX
from mailer.spool.layout import LOCAL
from mailer.spool.message_state import Standing
from mailer.spool.view.verdict import NOTHING_TO_DO

_GIVEN_UP = frozenset({Status.BOUNCED, Status.EXPIRED})
_BY_ITSELF = "sending resumes by itself"
_RETRY = "type `mailer spool retry {id}`"
_REPLY = compile_late(r"[245]\d\d[ -]|HTTP \d")
_NOT_TRIED = compile_late(r"not tried before [^,]+, since it [^:]+: ")
"""Before the trouble of a paused provider, in the reply of mail that was not tried (`routes.providers`)."""
_THEIR_ID = compile_late(
    r"(?:queued(?: mail for delivery)?(?: as)?|message-?id|id)[ =:<]+([\w.@+-]{6,})|\b([\w-]*\d[\w.-]{9,})",
    re.IGNORECASE,
)


def advise(config: Config, standing: Standing) -> str:
    """Return what to do about a recipient, or about several with the same state; empty if nothing is known.

    `{id}` in the text stands for the message's id.
    """
    if standing.hop == LOCAL and standing.status is Status.SENT:
        return _kept(config)
    whose = provider_at(config, standing.hop)
    if whose:
        whose = msgspec.structs.replace(whose, name=config.name_of(whose))  # Unique, for use in commands.
    moved = _left_behind(config, standing) if standing.hop not in {"", LOCAL} else ""
    match standing.status:
        case Status.SENT | Status.DEFERRED | Status.PENDING if moved:
            return moved
        case Status.SENT:
            return _theirs_now(standing, whose)
        case Status.UNCERTAIN:
            return _uncertain(config, standing, whose, is_left=bool(moved))
        case _ if standing.reply:
            said = _about(standing, whose)
            return _once_given_up(said) if standing.status in _GIVEN_UP else said
    return ""


def _once_given_up(advice: str) -> str:
    """Return advice for mail that was given up: nothing tries it again until the operator says so."""
    said = advice.replace(_BY_ITSELF, _RETRY)
    if "mailer spool retry" in said or "`mailer reload`" not in said:
        return said
    return f"{said} Then {_RETRY}."


def _name(standing: Standing, whose: Provider | None) -> str:
    return whose.label if whose else standing.hop or "the recipient's server"


def _kept(config: Config) -> str:
    again = "have its application submit it again; that copy is in `local/` of the spool."
    if config.forward_smtp or config.direct_delivery.enabled:
        return f"That was while no route was switched on: {again}"
    return (
        "No route that leaves this host is switched on: set $.forwardSMTP and $.forwardProviders, or "
        f"$.directDelivery.enabled (`mailer init` asks for them), type `mailer reload`, and {again}"
    )


def _left_behind(config: Config, standing: Standing) -> str:
    """Return advice if a hop was a provider but is none now; empty if it still is, or is an exchanger."""
    hop = standing.hop
    if not config.forward_smtp or config.direct_delivery.enabled:
        return ""
    if provider_at(config, hop) or providers_with(config, hop):
        return ""
    server = f"{hop} is not a provider in $.forwardProviders any more"
    if standing.status is Status.SENT:
        return f"{server}; ask those who run it, with the reply above."
    return f"{server}: `mailer spool retry {{id}}` tries the mail at the present ones."


def _theirs_now(standing: Standing, whose: Provider | None) -> str:
    found = _THEIR_ID.search(standing.reply[3:])
    theirs = f" for {found[1] or found[2]}" if found else ", with the reply above"
    if whose:
        promise = "answer" if whose.api else "250"
        return (
            f"It is {whose.label}'s now: ask them{theirs}. Their {promise} promises that they try; it does "
            "not say that it reached the mailbox."
        )
    return (
        f"It is the recipient's server's now: ask its postmaster{theirs}. A 250 does not say that it is in "
        "the inbox: have the recipient look among spam first."
    )


def _uncertain(config: Config, standing: Standing, whose: Provider | None, *, is_left: bool) -> str:
    name = _name(standing, whose)
    if config.uncertain == "hold" or is_left:  # No run tries it at a hop that no route leads to.
        return (
            f"Ask {name} whether they have it. If so, `mailer spool rm {{id}}`; if not, `mailer spool "
            "release {id}`."
        )
    if whose and whose.api and standing.doubted_twice:
        return (
            f"It is not handed over there a third time by itself. Ask {name} whether they have it. If so, "
            "`mailer spool rm {id}`; if not, `mailer spool release {id}`."
        )
    if whose and whose.api:
        return (
            "It is tried again there once, and may arrive twice; if there is no answer again, it is held. "
            f"Ask {name} whether they have it. If so, `mailer spool rm {{id}}`; if not, `mailer spool "
            "release {id}`."
        )
    return f"It is tried again at the same hop, and may arrive twice: {name} knows whether they have it."


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


def _template(reply: str, *, ours: bool, given_up: bool) -> str:
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
    if given_up and not reading.permanent and reading.about in _TOO_OLD:
        return _TOO_OLD[reading.about]
    return _ONE_WAY.get((reading.about, reading.permanent)) or _EITHER_WAY.get(reading.about, _ASK)


def account_trouble(reply: str, name: str) -> str:
    """Return what to do about a login that is refused; `name` is the provider's."""
    return special_account_trouble(reply, name) or _filled(_EITHER_WAY[About.ACCOUNT], name)


def _filled(template: str, name: str, again: str = "") -> str:
    """Put a provider's name into advice: unchanged in sentences, quoted for the shell in commands."""
    return template.format(name=name, typed=shlex.quote(name), again=again)


def special_account_trouble(reply: str, name: str) -> str:
    """Return what to do about a refused login that another password would not cure; empty if it might."""
    if cause := cause_of(reply):
        return cause.advice(name)
    special = next((told for sign, told in _ACCOUNT.items() if sign in reply.lower()), "")
    return _filled(special, name)


def _about(standing: Standing, whose: Provider | None) -> str:
    if standing.hop == SUPPRESSION_LIST:
        return _SUPPRESSED
    if paused := _NOT_TRIED.match(standing.reply):
        standing = msgspec.structs.replace(standing, reply=standing.reply[paused.end() :])
    if whose and (cause := cause_of(standing.reply)):
        return cause.advice(whose.label)
    if not _REPLY.match(standing.reply):
        return _no_reply(standing, whose)
    given_up = standing.status in _GIVEN_UP
    # A permanent refusal that still waits gets a second opinion, which will be the same if nothing changes.
    final = given_up or read_line("", standing.reply).permanent
    again = "; then `mailer spool retry {id}`" if final else ""
    template = _template(standing.reply, ours=whose is not None, given_up=given_up)
    once_more = _ONCE_MORE if standing.unclear and not given_up else ""
    return _filled(template, _name(standing, whose), again) + once_more


_SUPPRESSED = (
    "It was not sent: `mailer suppress ls` says since when and why. If it is to be mailed after all: `mailer "
    "suppress rm ADDRESS`, then `mailer spool retry {id}`."
)
_ONCE_MORE = " It is asked once more, since it may be their fault, and bounces if it is refused so again."

_DNS = (
    "Our name server does not answer: repair it, or name another one in `dns.nameservers` (or in "
    "/etc/resolv.conf); sending resumes by itself."
)
_DENIES_ALL = (
    "Our name server says of every name that it does not exist, so the fault is its own: repair it, or name "
    "another one in `dns.nameservers` (or in /etc/resolv.conf); sending resumes by itself."
)
_NAMES = "It is about the DNS of the recipient's domain: is the address right? Its owner can fix it."
_PROVIDER = (
    "{name} was not reached: are `host` and `port` in $.forwardProviders right, does a firewall let us out? "
    "`mailer doctor` tries it; sending resumes by itself once it answers."
)
_EXCHANGER = (
    "Their server was not reached: `mailer doctor` tells whether port 25 is open for us; if it is, the fault "
    "is on their side; sending resumes by itself."
)
_FORBIDDEN = (
    "This host forbids the connection: look at its firewall's rules for outgoing mail, and at SELinux "
    "(`ausearch -m avc`); sending resumes by itself."
)
_SIGNING = "It cannot be signed: `mailer dkim check` says why; sending resumes once the key is right."
_SERVFAIL = (
    "The name server cannot look it up: if `mailer doctor` finds the same for other domains, repair the name "
    "server or name another one in `dns.nameservers`; if not, the recipient's domain is broken, and its "
    "owner can fix it; sending resumes by itself."
)
_MISSPELT = (
    "DNS knows no such host: correct `host` in $.forwardProviders ({name}), then type `mailer reload`. If it "
    "is right, DNS is at fault, the provider's or ours; sending resumes by itself."
)
_CERTIFICATE = (
    "Its certificate is not one for that name by an authority that we trust: `host` in $.forwardProviders "
    "must be the name that {name} gives its customers; if it is, ask them to correct the certificate, or, "
    "for a server of your own, set `insecureSkipVerify`; then type `mailer reload`."
)
_THEIR_CERTIFICATE = (
    "Its certificate is not valid for that name, and $.tlsPolicies demands it: their postmaster can fix it, "
    "or lower the level for this domain; then type `mailer reload`."
)
_NO_TLS = (
    "{name} offers no TLS at that port, and the login or $.tlsPolicies demands it: set its port with "
    "STARTTLS (587), or with `ssl` (465), in $.forwardProviders, then type `mailer reload`."
)
_THEIR_TLS = (
    "Their server offers no TLS, and $.tlsPolicies demands it: lower the level for this domain and type "
    "`mailer reload`, or reach them in another way."
)
_HANDSHAKE = (
    "TLS failed: `ssl` in $.forwardProviders is for a port that begins with TLS (465), and is off for one "
    "with STARTTLS (587, 25); correct it for {name}, then type `mailer reload`; sending resumes by itself."
)
_OLD_TLS = (
    "{name} has no version of TLS at that port that we use (1.2 or later): set the host or port that it has "
    "for one in $.forwardProviders, then type `mailer reload`, or have the server updated; sending resumes "
    "by itself."
)
_THEIR_OLD_TLS = (
    "Their server has no version of TLS that we use (1.2 or later), and $.tlsPolicies demands TLS: lower the "
    "level for this domain and type `mailer reload`, or reach them in another way."
)
_TOKENS_ONLY = (
    "{name} takes no password at that port, only access tokens: give it `auth` of type oauth2 in "
    "$.forwardProviders (`mailer guide microsoft365` and `google` show how), then type `mailer reload` and "
    "`mailer providers reset {typed}`."
)
_NO_AUTH = (
    "{name} offers no login that we know at that port: set the port that it tells its customers, or, if it "
    "needs none, take `username` and `password` out of $.forwardProviders; then type `mailer reload` and "
    "`mailer providers reset {typed}`."
)
_PRIVATE = (
    "DNS names a private address for the recipient's domain: is the address right? Its owner can fix it; if "
    "that network is ours, set `directDelivery.allowPrivate` and type `mailer reload`."
)
_EXPIRED = (
    "The certificate of {name} has expired: have them renew it, or set this host's clock if that is ahead "
    "(`mailer doctor` looks at both); sending resumes by itself."
)
_THEIR_EXPIRED = (
    "Their certificate has expired, and $.tlsPolicies demands a valid one: their postmaster can renew it, or "
    "lower the level for this domain; then type `mailer reload`."
)
_NO_LOGIN = (
    "The login of {name} cannot be read: correct what is named, and make it readable for the service's user "
    "(`mailer config check` tries it), then type `mailer reload` and `mailer providers reset {typed}`; "
    "sending resumes by itself."
)
_OUR_CLOCK = (
    "This host's clock is behind, or the certificate is not valid yet: set the clock (`timedatectl`, chrony; "
    "`mailer doctor` looks at it); sending resumes by itself."
)
_NO_IPV6 = (
    'This host has no way out over IPv6: repair it (`ip -6 route`), or set `directDelivery.ipVersion` to "4" '
    "and type `mailer reload`; a server that has no IPv4 address is reached through a provider alone."
)
_OURSELVES = (
    "`host` and `port` of {name} in $.forwardProviders lead back to this relay: set those that {name} "
    "tells its customers, then type `mailer reload` and `mailer providers reset {typed}`; "
    "sending resumes by itself."
)
_OUR_DOMAIN = (
    "The MX of the recipient's domain names this host, which accepts no mail for the domain: have the MX "
    "name the server with its mailboxes."
)
_NO_REPLY: tuple[tuple[str, str, str], ...] = (
    ("SERVFAIL", _SERVFAIL, _SERVFAIL),
    ("deny every name", _DENIES_ALL, _DENIES_ALL),
    ("name server|resolv", _DNS, _DNS),
    ("service not known|no address associated", _MISSPELT, _NAMES),
    (r"^\$\.", _NO_LOGIN, ""),
    ("certificate is not yet valid", _OUR_CLOCK, _OUR_CLOCK),
    ("certificate has expired", _EXPIRED, _THEIR_EXPIRED),
    ("own receiver", _OURSELVES, _OUR_DOMAIN),
    ("certificate", _CERTIFICATE, _THEIR_CERTIFICATE),
    ("STARTTLS is not offered|TLS is not offered", _NO_TLS, _THEIR_TLS),
    ("TLS handshake.*(protocol version|unsupported protocol)", _OLD_TLS, _THEIR_OLD_TLS),
    ("TLS handshake", _HANDSHAKE, _THEIR_TLS),
    (r"in common \(offered: .*(XOAUTH2|OAUTHBEARER)", _TOKENS_ONLY, ""),
    (r"\bAUTH\b", _NO_AUTH, ""),
    ("(no|not a) public address", _PRIVATE, _PRIVATE),
    ("lookup for|mail exchanger", _NAMES, _NAMES),
    (
        "refused|timed out|unreachable|no route|reset|closed by the server|did not answer|no answer",
        _PROVIDER,
        _EXCHANGER,
    ),
    (r"\bsign|\bkey|dkim", _SIGNING, _SIGNING),
    # Of connect(2); what the local Maildir says is about files.
    (r"^(permission denied|operation not permitted)$", _FORBIDDEN, _FORBIDDEN),
)
"""Advice about our own error texts: words in them, what to do if the hop is a provider, and if it is not."""


_ADDRESS_6 = compile_late(r"\[[0-9a-f.]*:[0-9a-f:.]*\]", re.IGNORECASE)


def _no_reply(standing: Standing, whose: Provider | None) -> str:
    if _ADDRESS_6.search(standing.hop) and re.search("unreachable|no route", standing.reply, re.IGNORECASE):
        return _NO_IPV6
    for words, ours, theirs in _NO_REPLY:
        if re.search(words, standing.reply, re.IGNORECASE):
            return _filled(ours, whose.label) if whose else theirs
    return ""
