"""Build the request to a token server for each grant, and interpret its answer."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mailer.config.oauth import Grant, OAuth2
from mailer.config.secrets import Secret, SecretError
from mailer.mail.duration import duration
from mailer.oauth.trouble import TokenTrouble, described, from_server, ours

if TYPE_CHECKING:
    from mailer.oauth.post import Answer

_BY_JWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SKEW = 240.0
"""Seconds between our clock and the server's from which it may refuse a signed request."""
_DEFAULT_LIFETIME = 600.0
"""Seconds that a token is assumed to be valid if the server does not say."""
_REFRESH_LASTS = ("refresh_token_expires_in", "refresh_expires_in")
"""The fields for a refresh token's lifetime at Google and at Keycloak, where 0 means that it does not expire;
RFC 6749 defines none."""
_MAX_TOKEN = 16 * 1024
"""The most octets of a token. RFC 7628 sets no limit; RFC 4954 4 allows 12,288 in base64."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """One provider's OAuth configuration, with its secrets loaded."""

    auth: OAuth2
    username: str
    secrets: dict[str, str] = field(repr=False)
    """The secrets that the grant needs, by their attribute of `OAuth2`."""

    @property
    def host(self) -> str:
        return urlsplit(self.auth.token_url).netloc


@dataclass(frozen=True, slots=True)
class Granted:
    """The tokens that a server granted."""

    access: str = field(repr=False)
    lasts: float
    """Seconds that the access token is valid."""
    refresh: str = field(repr=False)
    """A new refresh token that replaces the last one; empty: that one remains valid."""
    refresh_lasts: float = 0.0
    """Seconds that the refresh token is valid from now on; 0: the server does not say."""


def credentials_of(auth: OAuth2, username: str) -> Credentials:
    """Load the secrets that the grant needs; may block, on a file or a command.

    Raises:
        TokenTrouble: a secret cannot be read.
    """
    secrets: dict[str, str] = {}
    for name in ("client_secret", "certificate", "refresh_token", "service_account"):
        secret: Secret = getattr(auth, name)
        if not secret.empty:
            try:
                secrets[name] = secret.reveal()
            except SecretError as error:
                raise ours(str(error)) from None
    return Credentials(auth, username, secrets)


def form_of(credentials: Credentials, refresh: str, now: float) -> dict[str, str]:
    """Return the form to post in order to get a token.

    Args:
        credentials: the provider's configuration and secrets.
        refresh: the refresh token, for grants that need one.
        now: seconds since the epoch.

    Raises:
        TokenTrouble: there is no refresh token since no user has logged in, or a key cannot sign.
    """
    auth = credentials.auth
    match auth.grant:
        case Grant.SERVICE_ACCOUNT:
            return {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": _service_assertion(credentials, now),
            }
        case Grant.CLIENT_CREDENTIALS:
            grant = {"grant_type": "client_credentials"}
        case _:
            if not refresh:
                raise ours("no login is stored: type mailer auth login")
            grant = {"grant_type": "refresh_token", "refresh_token": refresh}
    return {**grant, **({"scope": auth.scope} if auth.scope else {}), **client_fields(credentials, now)}


def client_fields(credentials: Credentials, now: float) -> dict[str, str]:
    """Return the form fields that authenticate the application; raises TokenTrouble."""
    auth, found = credentials.auth, {"client_id": credentials.auth.client_id}
    if "certificate" in credentials.secrets:
        # Imported here, since a run that has a valid token does not need it.
        from mailer.oauth.assertion import KeyUnusable, by_certificate  # noqa: PLC0415

        try:
            assertion = by_certificate(
                credentials.secrets["certificate"], auth.algorithm, auth.client_id, auth.token_url, now
            )
        except KeyUnusable as error:
            raise ours(f"{auth.certificate.key}: it {error}") from None
        found |= {"client_assertion_type": _BY_JWT, "client_assertion": assertion}
    elif "client_secret" in credentials.secrets:
        found["client_secret"] = credentials.secrets["client_secret"]
    return found


def _service_assertion(credentials: Credentials, now: float) -> str:
    from mailer.oauth.assertion import KeyUnusable, by_service_account  # noqa: PLC0415 - as above

    auth = credentials.auth
    try:
        return by_service_account(
            credentials.secrets.get("service_account", ""),
            credentials.username,
            auth.scope,
            auth.token_url,
            now,
        )
    except KeyUnusable as error:
        raise ours(f"{auth.service_account.key}: it {error}") from None


def granted(credentials: Credentials, form: dict[str, str], answer: "Answer", now: float) -> Granted:
    """Return the tokens in a server's answer.

    Raises:
        TokenTrouble: it has no usable token; the text is the server's, with our secrets masked.
    """
    token = answer.text("access_token")
    if answer.status != 200 or not token:
        raise refusal(credentials, form, answer, now)
    kind = answer.text("token_type").lower() or "bearer"
    if kind != "bearer":
        raise from_server(credentials.host, "its token is not a bearer token")
    if len(token) > _MAX_TOKEN or not _sendable(token):
        raise from_server(credentials.host, "its token is too long for SMTP, or has invalid characters")
    lasts = answer.number("expires_in")
    told = filter(None, map(answer.number, _REFRESH_LASTS))
    refresh = answer.text("refresh_token")
    return Granted(token, _DEFAULT_LIFETIME if lasts is None else lasts, refresh, next(told, 0.0))


def refusal(credentials: Credentials, form: dict[str, str], answer: "Answer", now: float) -> TokenTrouble:
    """Return the exception for an answer without a token, in the server's words if it gives any."""
    error = answer.text("error")
    secrets = (*credentials.secrets.values(), *form.values(), answer.text("access_token"))
    # Servers compare the time of signed requests only.
    signed = "assertion" in form or "client_assertion" in form
    skew = _skew(answer.date, now) if signed else ""
    if not error:
        why = f"it answered {answer.status}, without a token or a reason{skew}"
        return from_server(credentials.host, why, temporary=answer.status >= 500 or answer.status == 429)
    told = described(error, answer.text("error_description"), _hidden(secrets, credentials))
    temporary = error in {"temporarily_unavailable", "server_error", "slow_down"}
    return from_server(credentials.host, f"{told}{skew}", temporary=temporary or bool(skew))


def _hidden(secrets: tuple[str, ...], credentials: Credentials) -> list[str]:
    """Return the values to mask, without those that are not secret: protocol constants, scope, client id."""
    plain = {
        credentials.auth.client_id,
        credentials.auth.scope,
        "client_credentials",
        "refresh_token",
        _BY_JWT,
    }
    return [one for one in secrets if one not in plain and not one.startswith("urn:")]


def _skew(theirs: float | None, now: float) -> str:
    if theirs is None or math.fabs(theirs - now) < _SKEW:
        return ""
    way = "behind" if theirs > now else "ahead of"
    return f"; this host's clock is {duration(math.fabs(theirs - now))} {way} theirs"


def _sendable(token: str) -> bool:
    """Tell whether a token is visible ASCII (RFC 6749 A.12), so that it cannot end a line or a field."""
    return all("!" <= character <= "~" for character in token)
