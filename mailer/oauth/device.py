"""A login by device code (RFC 8628): the user agrees in any browser, and this program asks until then.

begin --> Prompt, to be shown --> wait: pending, pending, slow_down, ... --> Granted, or TokenTrouble
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from mailer.mail.clock import Clock
from mailer.mail.reply import printable
from mailer.oauth.asking import Granted, Terms, client_fields, granted, refusal
from mailer.oauth.post import post
from mailer.oauth.trouble import TokenTrouble, from_server

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL = 5.0
"""Seconds between two requests when the server names none (RFC 8628 3.2)."""
_SLOWER = 5.0
"""Seconds more after each `slow_down` (3.5)."""
_LONGEST = 1800.0
"""Seconds that a code is waited for, whatever the server says."""
_SLOWEST = 60.0
"""Seconds between two requests at most, whatever the server says."""
_NO = {
    "access_denied": "the user has refused",
    "authorization_declined": "the user has refused",  # Microsoft's word for it
    "expired_token": "the code has expired",
}
"""What ends a login (RFC 8628 3.5)."""
_MOST_FAILURES = 5
"""Requests in a row without an answer after which the login is given up."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the user is to be shown."""

    code: str
    url: str
    holds: float
    """Seconds."""
    device_code: str = field(repr=False)
    interval: float


async def begin(terms: Terms, now: float) -> Prompt:
    """Ask for a code; raises TokenTrouble.

    Args:
        terms: the provider's.
        now: seconds since the epoch.
    """
    form = {"scope": terms.auth.scope, **client_fields(terms, now)}
    answer = await post(terms.auth.device_url, form)
    code, device_code = answer.text("user_code"), answer.text("device_code")
    url = answer.text("verification_uri") or answer.text("verification_url")
    if answer.status != 200 or not (code and device_code and url):
        raise refusal(terms, form, answer, now)
    if urlsplit(url).scheme != "https":
        raise from_server(terms.host, "it sends the user to an address without https")
    holds, interval = answer.number("expires_in"), answer.number("interval")
    return Prompt(
        printable(code, 80),
        printable(url, 300),
        min(_LONGEST, holds or _LONGEST),
        device_code,
        _INTERVAL if interval is None else min(interval, _SLOWEST),
    )


async def wait(
    terms: Terms, prompt: Prompt, clock: Clock, sleep: Callable[[float], Awaitable[None]]
) -> AsyncIterator[Granted | None]:
    """Ask until the user has agreed: yield None each time that they have not, and at last what was granted.

    Args:
        terms: the provider's.
        prompt: as `begin` returned it.
        clock: what time it is.
        sleep: waits so many seconds.

    Raises:
        TokenTrouble: the user has refused, the code has expired, or the server does not answer.
    """
    interval, failures, waited = prompt.interval, 0, 0.0
    while waited <= prompt.holds:
        yield None
        await sleep(interval)
        waited += max(interval, 0.1)  # a server that names no pause must not be asked for ever
        form = {"grant_type": _GRANT, "device_code": prompt.device_code, **client_fields(terms, clock())}
        try:
            answer = await post(terms.auth.token_url, form)
        except TokenTrouble as trouble:
            failures += 1
            if failures >= _MOST_FAILURES or not trouble.temporary:
                raise
            interval += _SLOWER  # RFC 8628 3.5: less often after a time-out
            continue
        failures = 0
        match answer.text("error"):
            case "authorization_pending":
                continue
            case "slow_down":
                interval += _SLOWER
                continue
            case error if error in _NO:
                raise from_server(terms.host, _NO[error], temporary=True)
        made = granted(terms, form, answer, clock())
        if not made.refresh:
            why = "it gave no refresh token, so the login would end with the first token"
            raise from_server(terms.host, f"{why}: is offline_access in scope?")
        yield made
        return
    raise from_server(terms.host, "nobody has entered the code in time", temporary=True)
