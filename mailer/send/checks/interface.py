"""Check that an HTTP interface answers and that there are credentials for it; no mail is sent."""

from urllib.parse import urlsplit

from mailer.mail.clock import Clock
from mailer.mail.finding import Finding, Grade
from mailer.mail.outcome import Scope
from mailer.send.advice.reply import special_account_trouble
from mailer.send.http.session import HttpSession
from mailer.send.phase import Phase, Timeouts
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.login import Login
from mailer.send.trouble import HopTrouble

_STEP = {Phase.TLS: "tls", Phase.AUTH: "login"}
_TODO = {
    Phase.TLS: "check apiUrl, this host's clock, and that ca-certificates are installed",
    Phase.AUTH: "check username and auth",
}
_REACH = "check apiUrl; if it is right, a firewall or the provider blocks us, or HTTPS_PROXY is missing"


async def check_interface(hop: Hop, name: str, timeouts: Timeouts, clock: Clock) -> list[Finding]:
    """Connect as a run would, and obtain credentials; whether they may send cannot be checked without mail.

    Args:
        hop: a hop with an HTTP interface.
        name: the provider's name, as the operator's commands take it.
        timeouts: of both steps.
        clock: returns the wall-clock time.
    """
    found: list[Finding] = []
    session = HttpSession(Login(hop), timeouts, clock)
    try:
        answered = await session.reach()
        found.append(Finding(str(hop), "connect", Grade.OK, f"{hop.api_url} answers ({answered})"))
        found.append(_encryption(hop, session.tls))
        await session.log_in()
    except HopTrouble as trouble:
        return [*found, _failed(hop, name, trouble)]
    finally:
        await session.close()
    words = "there are credentials; only the first mail shows whether they allow sending"
    return [*found, Finding(str(hop), "login", Grade.OK, words)]


def _encryption(hop: Hop, tls: str) -> Finding:
    if urlsplit(hop.api_url).scheme == "http":  # only allowed on this host, see `config/http_checks`
        return Finding(str(hop), "tls", Grade.OK, "none: apiUrl is on this host")
    return Finding(str(hop), "tls", Grade.OK, tls or "verified")


def _failed(hop: Hop, name: str, trouble: HopTrouble) -> Finding:
    todo = _TODO.get(trouble.phase, _REACH)
    if trouble.phase is Phase.AUTH and (special := special_account_trouble(trouble.text, name)):
        todo = special
    if trouble.scope is Scope.LOCAL:
        todo = "the cause is on this host: check its firewall, its limits and sourceAddress"
    return Finding(str(hop), _STEP.get(trouble.phase, "connect"), Grade.PROBLEM, trouble.text, todo)
