"""Check a next hop: go through each step of a session before MAIL, report each, and quit."""

import asyncio
import shlex
import socket
import ssl
from collections.abc import Iterator
from datetime import datetime

from mailer.mail.finding import Finding, Grade
from mailer.mail.outcome import Scope
from mailer.mail.reply import printable
from mailer.send.advice.no_reply import advise_about_provider
from mailer.send.advice.reply import account_trouble, special_account_trouble
from mailer.send.phase import Phase, Timeouts
from mailer.send.routes.breaker import Kind
from mailer.send.smtp.client import Session
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.opening import OwnReceiver
from mailer.send.trouble import HopTrouble
from mailer.spool.state.provider_state import Health, ProviderState, health
from mailer.spool.words import moment

TIMEOUTS = Timeouts(connect=8, banner=15, ehlo=15, starttls=15, tls=15, auth=20, dot=15, quit=5)
"""Shorter than for mail, since an operator waits for the check; a server that is slower is a finding too."""
_EXPIRY_WARNING = 14
"""Days before a certificate's end from which to warn. Certificates for 90 days are usually renewed 30 days
before their end, so with 14 days left the renewal has failed for two weeks."""
_DAY = 86_400


async def look_up(hop: Hop) -> tuple[Finding, list[str]]:
    """Look up the hop's addresses through the system's resolver, as a run does."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUTS.connect):
            found = await loop.getaddrinfo(hop.name, hop.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or str(error) or "no answer in time"
        return Finding(str(hop), "dns", Grade.PROBLEM, printable(words), _TODO[Phase.LOOKUP]), []
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    return Finding(str(hop), "dns", Grade.OK, ", ".join(addresses)), addresses


async def check_provider(hop: Hop, name: str, now: float) -> list[Finding]:
    """Connect, start TLS and log in as a run would, and report each step.

    Args:
        hop: the hop with the options that mail would use.
        name: the provider's name, as the operator's commands take it.
        now: seconds since the epoch, to calculate how long its certificate is valid.
    """
    if hop.api:
        from mailer.send.checks.interface import check_interface  # noqa: PLC0415 - most providers take SMTP

        return await check_interface(hop, name, TIMEOUTS, lambda: now)
    try:
        session = await Session.open(hop, TIMEOUTS)
    except HopTrouble as trouble:
        return [*_passed(hop, trouble), _failed(hop, name, trouble)]
    try:
        return [
            Finding(str(hop), "connect", Grade.OK, f"{session.label} answers"),
            _encryption(hop, session, now),
            _login(hop),
        ]
    finally:
        await session.close()


def standing(hop: Hop, name: str, state: ProviderState, now: datetime) -> Finding:
    """Report the state of the provider's circuit breaker; args: name: as for `check_provider`."""
    match health(state, now):
        case Health.CLOSED:
            return Finding(str(hop), "breaker", Grade.OK, "in use")
        case Health.OPEN:
            until = state.open_until
            assert until is not None
            words = f"paused until {moment(until.timestamp())}, {state.words}: {state.trouble}"
        case _:
            words = f"on trial with the next message; {state.words}: {state.trouble}"
    return Finding(str(hop), "breaker", Grade.WARNING, printable(words, 500), _standing_todo(name, state))


def _standing_todo(name: str, state: ProviderState) -> str:
    """Return what ends the pause. A reset helps with most trouble, but not with a quota or a bad login."""
    match state.kind:
        case Kind.QUOTA:
            return f"wait until {name} renews our allowance, or have it raised; it is tried again by itself"
        case Kind.LOGIN:
            return account_trouble(state.trouble, name)
    return f"when the rest of this is well: mailer providers reset {shlex.quote(name)}"


def _encryption(hop: Hop, session: Session, now: float) -> Finding:
    if not session.encrypted:
        todo = "ask the provider for a port with TLS (587 with STARTTLS, or 465 with ssl)"
        words = "mail travels in clear"
        words = f"{session.tls}; {words}" if session.tls else f"none: {words}"
        return Finding(str(hop), "tls", Grade.WARNING, words, todo)
    if hop.opportunistic:
        return Finding(str(hop), "tls", Grade.OK, f"{session.tls} (opportunistic: see tlsPolicies)")
    if not hop.verify:
        return _unverified(hop, session)
    words = session.tls
    end = session.certificate_end
    if end is None:
        return Finding(str(hop), "tls", Grade.OK, words)
    days = int((end - now) // _DAY)
    words = f"{words}; its certificate expires in {days} days"
    if days < _EXPIRY_WARNING:
        todo = "ask the server's operator to renew it; once it has expired, nothing is sent there"
        return Finding(str(hop), "tls", Grade.WARNING, words, todo)
    return Finding(str(hop), "tls", Grade.OK, words)


def _unverified(hop: Hop, session: Session) -> Finding:
    if hop.on_this_host:  # the connection does not leave this host
        return Finding(str(hop), "tls", Grade.OK, f"{session.tls} (insecureSkipVerify, on this host)")
    todo = "turn insecureSkipVerify off: a host between us and the server can read the password"
    return Finding(str(hop), "tls", Grade.WARNING, f"{session.tls} (insecureSkipVerify)", todo)


def _login(hop: Hop) -> Finding:
    if not hop.username:
        return Finding(str(hop), "login", Grade.SKIPPED, "no username is configured")
    return Finding(str(hop), "login", Grade.OK, "accepted")


_STEP = {
    Phase.LOOKUP: "dns",
    Phase.CONNECT: "connect",
    Phase.BANNER: "connect",
    Phase.EHLO: "connect",
    Phase.STARTTLS: "tls",
    Phase.TLS: "tls",
    Phase.AUTH: "login",
}

_TODO = {
    Phase.LOOKUP: "check the name, and /etc/resolv.conf",
    Phase.CONNECT: "check host and port; if they are right, a firewall or the provider blocks us",
    Phase.BANNER: "check ssl (port 465: true, 587: false); if it is right, read the server's reply",
    Phase.EHLO: "set hostname to a name that this host has in DNS",
    Phase.STARTTLS: "check ssl (port 465: true, 587: false); if it is right, ask the provider",
    Phase.TLS: "check host, ssl (port 465: true, 587: false) and the clock",
    Phase.AUTH: "check username and password; many providers require a password for applications",
}


_BRIDGE = (
    "a server on this host, such as a mail bridge, makes its own certificate: set insecureSkipVerify to true "
    "for this provider, since the connection does not leave this host; or have the system trust the "
    "certificate (put it into /usr/local/share/ca-certificates and type: update-ca-certificates)"
)


def _passed(hop: Hop, trouble: HopTrouble) -> Iterator[Finding]:
    """Yield findings for the steps that must have succeeded before this trouble."""
    if _STEP[trouble.phase] in {"tls", "login"} and not (hop.implicit_tls and trouble.phase is Phase.TLS):
        yield Finding(str(hop), "connect", Grade.OK, f"{trouble.hop} answers")


def _failed(hop: Hop, name: str, trouble: HopTrouble) -> Finding:
    todo = _TODO[trouble.phase]
    if trouble.phase is Phase.AUTH and (special := special_account_trouble(trouble.text, name)):
        todo = special
    if trouble.phase is Phase.TLS:
        todo = advise_about_provider(trouble.text, name) or todo
    if trouble.scope is Scope.LOCAL:
        todo = "the cause is on this host: check its firewall, its limits and sourceAddress"
    elif isinstance(trouble, OwnReceiver):
        todo = "name the server that is to take the mail in forwardProviders, or the port where it listens"
    elif isinstance(trouble.__cause__, ssl.SSLCertVerificationError) and hop.on_this_host:
        todo = _BRIDGE
    return Finding(str(hop), _STEP[trouble.phase], Grade.PROBLEM, trouble.text, todo)
