"""Advice by our own words for trouble that came without a server's reply: DNS, connections, TLS, signing."""

import re

from mailer.config.hops import Provider
from mailer.mail.lazy_pattern import compile_late
from mailer.send.advice.reply import filled
from mailer.spool.message_state import Standing

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
_OTHER_NAME = (
    "The certificate of {name} is for another name: set `host` in $.forwardProviders to the name that {name} "
    "gives its customers, then type `mailer reload`; if it is that one, ask them to correct the certificate."
)
_THEIR_OTHER_NAME = (
    "Their certificate is for another name, and $.tlsPolicies demands it: their postmaster can fix it, or "
    "lower the level for this domain; then type `mailer reload`."
)
_NO_AUTHORITY = (
    "This host knows no authority that vouches for the certificate of {name}: install the usual ones "
    "(the package ca-certificates); if they are, its server does not send its intermediate "
    "certificate, or its authority is private (put that into /usr/local/share/ca-certificates and type "
    "`update-ca-certificates`); sending resumes by itself."
)
_THEIR_AUTHORITY = (
    "This host knows no authority that vouches for their certificate, and $.tlsPolicies demands one: install "
    "the usual ones (the package ca-certificates); if they are, their postmaster can fix it, or lower "
    "the level for this domain and type `mailer reload`."
)
_SELF_SIGNED = (
    "The certificate of {name} vouches for itself: if the server is yours, put the certificate into "
    "/usr/local/share/ca-certificates and type `update-ca-certificates` (then sending resumes by itself), "
    "or set `insecureSkipVerify` and type `mailer reload`; if it is not, a firewall or proxy on the way may "
    "open TLS: ask who runs it."
)
_CERTIFICATE = (
    "The certificate of {name} is not accepted by this host: ask them to correct it, or, for a server of "
    "your own, set `insecureSkipVerify` in $.forwardProviders and type `mailer reload`."
)
_THEIR_CERTIFICATE = (
    "Their certificate is not accepted by this host, and $.tlsPolicies demands a valid one: their postmaster "
    "can fix it, or lower the level for this domain; then type `mailer reload`."
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
    ("certificate is not valid for", _OTHER_NAME, _THEIR_OTHER_NAME),
    ("issuer certificate|verify the first certificate", _NO_AUTHORITY, _THEIR_AUTHORITY),
    ("self.signed certificate", _SELF_SIGNED, _THEIR_CERTIFICATE),
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


def advise_without_reply(standing: Standing, whose: Provider | None) -> str:
    if _ADDRESS_6.search(standing.hop) and re.search("unreachable|no route", standing.reply, re.IGNORECASE):
        return _NO_IPV6
    ours, theirs = _row(standing.reply)
    return filled(ours, whose.label) if whose else theirs


def advise_about_provider(text: str, name: str) -> str:
    """Return what to do about trouble at a provider, which is in our own words; empty if nothing is known."""
    return filled(_row(text)[0], name)


def _row(text: str) -> tuple[str, str]:
    found = (row[1:] for row in _NO_REPLY if re.search(row[0], text, re.IGNORECASE))
    return next(found, ("", ""))
