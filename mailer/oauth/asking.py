"""What a token server is asked, for each grant, and what its answer means."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mailer.config.oauth import Grant, OAuth2
from mailer.config.secrets import Secret, SecretError
from mailer.oauth.trouble import TokenTrouble, described, from_server, ours
from mailer.spool import words

if TYPE_CHECKING:
    from mailer.oauth.post import Answer

_BY_JWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SKEW = 240.0
"""Seconds between two clocks from which a signed request may be refused for it."""
_UNSAID = 600.0
"""Seconds that a token is taken to last when its server does not say."""
_REFRESH_LASTS = ("refresh_token_expires_in", "refresh_expires_in")
"""Google's name for it, and Keycloak's, which says 0 of a token without an end; RFC 6749 has none."""
_LONGEST_TOKEN = 16 * 1024
"""Octets. RFC 7628 sets no limit, and RFC 4954 4 takes 12,288 in base64."""


@dataclass(frozen=True, slots=True)
class Terms:
    """One provider's terms, with its secrets at hand."""

    auth: OAuth2
    username: str
    secrets: dict[str, str] = field(repr=False)
    """Those that the grant needs, by the attribute of `OAuth2`."""

    @property
    def host(self) -> str:
        return urlsplit(self.auth.token_url).netloc


@dataclass(frozen=True, slots=True)
class Granted:
    """What a server gave."""

    access: str = field(repr=False)
    lasts: float
    """Seconds."""
    refresh: str = field(repr=False)
    """A refresh token in place of the last one; empty: that one stays."""
    refresh_lasts: float = 0.0
    """Seconds that the refresh token works from now on; 0: its server does not say."""


def terms_of(auth: OAuth2, username: str) -> Terms:
    """Fetch the secrets that the grant needs; may block, on a file or a command.

    Raises:
        TokenTrouble: one cannot be had.
    """
    secrets: dict[str, str] = {}
    for name in ("client_secret", "certificate", "refresh_token", "service_account"):
        secret: Secret = getattr(auth, name)
        if not secret.empty:
            try:
                secrets[name] = secret.reveal()
            except SecretError as error:
                raise ours(str(error)) from None
    return Terms(auth, username, secrets)


def form_of(terms: Terms, refresh: str, now: float) -> dict[str, str]:
    """Return what to post for a token.

    Args:
        terms: the provider's.
        refresh: the refresh token; for grants that have one.
        now: seconds since the epoch.

    Raises:
        TokenTrouble: nobody has logged in, or a key cannot sign.
    """
    auth = terms.auth
    match auth.grant:
        case Grant.SERVICE_ACCOUNT:
            return {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": _service_assertion(terms, now),
            }
        case Grant.CLIENT_CREDENTIALS:
            grant = {"grant_type": "client_credentials"}
        case _:
            if not refresh:
                raise ours("nobody has logged in; the first login is made with mailer auth login")
            grant = {"grant_type": "refresh_token", "refresh_token": refresh}
    return {**grant, **({"scope": auth.scope} if auth.scope else {}), **client_fields(terms, now)}


def client_fields(terms: Terms, now: float) -> dict[str, str]:
    """Return what tells the server which application asks; raises TokenTrouble."""
    auth, found = terms.auth, {"client_id": terms.auth.client_id}
    if "certificate" in terms.secrets:
        # Imported here: a run that has its token needs none of it.
        from mailer.oauth.assertion import KeyUnusable, by_certificate  # noqa: PLC0415

        try:
            assertion = by_certificate(
                terms.secrets["certificate"], auth.algorithm, auth.client_id, auth.token_url, now
            )
        except KeyUnusable as error:
            raise ours(f"{auth.certificate.key}: it {error}") from None
        found |= {"client_assertion_type": _BY_JWT, "client_assertion": assertion}
    elif "client_secret" in terms.secrets:
        found["client_secret"] = terms.secrets["client_secret"]
    return found


def _service_assertion(terms: Terms, now: float) -> str:
    from mailer.oauth.assertion import KeyUnusable, by_service_account  # noqa: PLC0415 - as above

    auth = terms.auth
    try:
        return by_service_account(
            terms.secrets.get("service_account", ""), terms.username, auth.scope, auth.token_url, now
        )
    except KeyUnusable as error:
        raise ours(f"{auth.service_account.key}: it {error}") from None


def granted(terms: Terms, form: dict[str, str], answer: "Answer", now: float) -> Granted:
    """Read an answer with a token in it.

    Raises:
        TokenTrouble: it has none; the text is the server's, without our secrets.
    """
    token = answer.text("access_token")
    if answer.status != 200 or not token:
        raise refusal(terms, form, answer, now)
    kind = answer.text("token_type").lower() or "bearer"
    if kind != "bearer":
        raise from_server(terms.host, "it gives tokens of another kind than bearer")
    if len(token) > _LONGEST_TOKEN or not _sendable(token):
        raise from_server(terms.host, "it gives a token that no SMTP server can be shown")
    lasts = answer.number("expires_in")
    told = filter(None, map(answer.number, _REFRESH_LASTS))
    refresh = answer.text("refresh_token")
    return Granted(token, _UNSAID if lasts is None else lasts, refresh, next(told, 0.0))


def refusal(terms: Terms, form: dict[str, str], answer: "Answer", now: float) -> TokenTrouble:
    """Say why there is no token: in the server's words, where it has some."""
    error = answer.text("error")
    secrets = (*terms.secrets.values(), *form.values(), answer.text("access_token"))
    # Only of what is signed does anybody compare the time.
    signed = "assertion" in form or "client_assertion" in form
    skew = _skew(answer.date, now) if signed else ""
    if not error:
        why = f"it answered {answer.status}, without a token or a reason{skew}"
        return from_server(terms.host, why, temporary=answer.status >= 500 or answer.status == 429)
    told = described(error, answer.text("error_description"), _hidden(secrets, terms))
    temporary = error in {"temporarily_unavailable", "server_error", "slow_down"}
    return from_server(terms.host, f"{told}{skew}", temporary=temporary or bool(skew))


def _hidden(secrets: tuple[str, ...], terms: Terms) -> list[str]:
    """Leave out what is not secret: words of the protocol, the scope, the application's id."""
    plain = {terms.auth.client_id, terms.auth.scope, "client_credentials", "refresh_token", _BY_JWT}
    return [one for one in secrets if one not in plain and not one.startswith("urn:")]


def _skew(theirs: float | None, now: float) -> str:
    if theirs is None or math.fabs(theirs - now) < _SKEW:
        return ""
    way = "behind" if theirs > now else "ahead of"
    return f"; this host's clock is {words.duration(math.fabs(theirs - now))} {way} theirs"


def _sendable(token: str) -> bool:
    """Tell whether it consists of visible ASCII, as RFC 6749 A.12 has it: nothing ends a line or a field."""
    return all("!" <= character <= "~" for character in token)
