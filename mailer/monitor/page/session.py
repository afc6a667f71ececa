"""Sessions of the status page, and protection of its forms against cross-site requests.

A browser cannot send `Authorization: Bearer`, so the operator presents the token once and gets a cookie that
is derived from it. The cookie expires, and all cookies become invalid when the token changes. Programs may
present the token itself.
"""

import hmac
import os
from hashlib import sha256
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from mailer.config.secrets import Secret
from mailer.mail.clock import Clock
from mailer.monitor import guard
from mailer.monitor.exchange import Asked, Refusal

_NAME = "mailer_session"
_LASTS = 12 * 3600
"""Seconds that a session lasts, a working day."""
FIELD = "form"
"""The name of the hidden field with the proof, in every form that changes something."""
_MAX_FIELDS = 20


class Sessions:
    """Issues and verifies session cookies and form proofs."""

    def __init__(self, token: Secret, clock: Clock) -> None:
        self._token = token
        self._clock = clock
        self._form_key = os.urandom(32)

    def holds(self, asked: Asked) -> bool:
        """Return whether the request has a valid session or the token; raises SecretError."""
        if self._is_ours(_cookie(asked)):
            return True
        try:
            guard.authorise(asked, self._token)
        except Refusal:
            return False
        return True

    def matches(self, presented: str) -> bool:
        """Return whether the token is right, comparing in constant time; raises SecretError."""
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
        """Return the proof that we issued a form for `path` to this session (CSRF token)."""
        text = f"{_cookie(asked)} {path}".encode("utf-8", "surrogatepass")
        return hmac.new(self._form_key, text, sha256).hexdigest()

    def check_form(self, asked: Asked, fields: dict[str, str]) -> None:
        """Refuse a form without a valid proof.

        Raises:
            Refusal: 403 if the proof is missing or wrong.
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


def fields(asked: Asked) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        Refusal: 400 if the body is not a form.
    """
    try:
        pairs = parse_qsl(asked.body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the form cannot be read") from None
    return dict(pairs)
