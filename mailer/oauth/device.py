"""Log in by device code (RFC 8628): the user agrees in any browser, while this program polls the server.

begin --> Prompt, to be shown --> wait: pending, pending, slow_down, ... --> Granted, or TokenTrouble
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from mailer.mail.clock import Clock
from mailer.mail.reply import printable
from mailer.oauth.grants import Credentials, Granted, client_fields, granted, refusal
from mailer.oauth.post import post
from mailer.oauth.trouble import TokenTrouble, from_server

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL = 5.0
"""Seconds between two requests if the server does not say (RFC 8628 3.2)."""
_SLOWDOWN = 5.0
"""Seconds to add to the interval after each `slow_down` (3.5)."""
_MAX_VALIDITY = 1800.0
"""The most seconds that a code is valid, even if the server says more."""
_MAX_INTERVAL = 60.0
"""The most seconds between two requests, even if the server says more."""
_FINAL_ERRORS = {
    "access_denied": "the user has refused",
    "authorization_declined": "the user has refused",  # used by Microsoft
    "expired_token": "the code has expired",
}
"""Errors that end a login (RFC 8628 3.5), and how to describe them."""
_MAX_FAILURES = 5
"""Consecutive requests without an answer after which the login is given up."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The code for the user, and the URL to enter it at."""

    code: str
    url: str
    holds: float
    """Seconds that the code is valid."""
    device_code: str = field(repr=False)
    interval: float


async def begin(credentials: Credentials, now: float) -> Prompt:
    """Request a code; raises TokenTrouble.

    Args:
        credentials: the provider's configuration and secrets.
        now: seconds since the epoch.
    """
    form = {"scope": credentials.auth.scope, **client_fields(credentials, now)}
    answer = await post(credentials.auth.device_url, form)
    code, device_code = answer.text("user_code"), answer.text("device_code")
    url = answer.text("verification_uri") or answer.text("verification_url")
    if answer.status != 200 or not (code and device_code and url):
        raise refusal(credentials, form, answer, now)
    if urlsplit(url).scheme != "https":
        raise from_server(credentials.host, "it sends the user to an address without https")
    holds, interval = answer.number("expires_in"), answer.number("interval")
    return Prompt(
        printable(code, 80),
        printable(url, 300),
        min(_MAX_VALIDITY, holds or _MAX_VALIDITY),
        device_code,
        _INTERVAL if interval is None else min(interval, _MAX_INTERVAL),
    )


async def wait(
    credentials: Credentials, prompt: Prompt, clock: Clock, sleep: Callable[[float], Awaitable[None]]
) -> AsyncIterator[Granted | None]:
    """Poll until the user has agreed: yield None before each request, and finally the grant.

    Args:
        credentials: the provider's configuration and secrets.
        prompt: as `begin` returned it.
        clock: returns the wall-clock time.
        sleep: waits for a number of seconds.

    Raises:
        TokenTrouble: the user has refused, the code has expired, or the server does not answer.
    """
    interval, failures, waited = prompt.interval, 0, 0.0
    while waited <= prompt.holds:
        yield None
        await sleep(interval)
        waited += max(interval, 0.1)  # so that the loop ends even if the server's interval is 0
        form = {
            "grant_type": _GRANT,
            "device_code": prompt.device_code,
            **client_fields(credentials, clock()),
        }
        try:
            answer = await post(credentials.auth.token_url, form)
        except TokenTrouble as trouble:
            failures += 1
            if failures >= _MAX_FAILURES or not trouble.temporary:
                raise
            interval += _SLOWDOWN  # RFC 8628 3.5: less often after a time-out
            continue
        failures = 0
        match answer.text("error"):
            case "authorization_pending":
                continue
            case "slow_down":
                interval += _SLOWDOWN
                continue
            case error if error in _FINAL_ERRORS:
                raise from_server(credentials.host, _FINAL_ERRORS[error], temporary=True)
        made = granted(credentials, form, answer, clock())
        if not made.refresh:
            why = "it gave no refresh token, so the login would end with the first token"
            raise from_server(credentials.host, f"{why}: is offline_access in scope?")
        yield made
        return
    raise from_server(credentials.host, "the code was not entered in time", temporary=True)
