"""Who may see and do what on the page; and that a form was really ours.

A browser cannot send `Authorization: Bearer`, so the operator presents the token once, and gets a cookie that
is derived from it: it ends by itself, and it ends for everybody when the token changes. Programs may present
the token itself.
"""

import hmac
import os
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie

from mailer.config.secrets import Secret
from mailer.mail.clock import Clock
from mailer.monitor import guard
from mailer.monitor.exchange import Asked, Refusal

_NAME = "mailer_session"
_LASTS = 12 * 3600
"""Seconds; a working day."""
FIELD = "form"
"""The hidden field of every form that does something."""


class Sessions:
    """Knows its own cookies and forms."""

    def __init__(self, token: Secret, clock: Clock, random: Callable[[int], bytes] = os.urandom) -> None:
        self._token = token
        self._clock = clock
        self._form_key = random(32)

    def holds(self, asked: Asked) -> bool:
        """Tell whether the client may see the page; raises SecretError."""
        if self._is_ours(_cookie(asked)):
            return True
        try:
            guard.authorise(asked, self._token)
        except Refusal:
            return False
        return True

    def matches(self, presented: str) -> bool:
        """Compare with the token, in the same time for every wrong one; raises SecretError."""
        return self._token.matches(presented)

    def begin(self) -> tuple[str, str]:
        """Return the header field that starts a session."""
        until = str(int(self._clock()) + _LASTS)
        return _set(f"{until}.{self._signature(until)}", _LASTS)

    @staticmethod
    def end() -> tuple[str, str]:
        """Return the header field that ends the browser's session."""
        return _set("", 0)

    def form(self, asked: Asked, path: str) -> str:
        """Return the proof that a form for `path` was made by us, for this browser's session."""
        text = f"{_cookie(asked)} {path}".encode("utf-8", "surrogatepass")
        return hmac.new(self._form_key, text, sha256).hexdigest()

    def check_form(self, asked: Asked, fields: dict[str, str]) -> None:
        """Refuse a form that we did not make.

        Raises:
            Refusal: 403.
        """
        expected, given = self.form(asked, asked.path), fields.get(FIELD, "")
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass")):
            raise Refusal(
                HTTPStatus.FORBIDDEN, "this form is not from here, or from before a restart: open it again"
            )

    def _is_ours(self, cookie: str) -> bool:
        until, _, signature = cookie.partition(".")
        given = signature.encode("utf-8", "surrogatepass")
        right = hmac.compare_digest(self._signature(until).encode(), given)
        return right and until.isdecimal() and int(until) > self._clock()

    def _signature(self, until: str) -> str:
        key = sha256(self._token.reveal().encode("utf-8", "surrogatepass")).digest()
        text = f"status page until {until}".encode("utf-8", "surrogatepass")
        return hmac.new(key, text, sha256).hexdigest()


def _cookie(asked: Asked) -> str:
    try:
        found = SimpleCookie("; ".join(asked.headers.get("cookie", ()))).get(_NAME)
    except CookieError:
        return ""
    return found.value if found else ""


def _set(value: str, seconds: int) -> tuple[str, str]:
    return "Set-Cookie", f"{_NAME}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict"
