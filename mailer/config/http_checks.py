"""Check a provider's `auth` of type oauth2, and its `api`; called by `provider_checks`."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from mailer.config.hops import Api, AuthMechanism, Provider
from mailer.config.oauth import Grant, OAuth2, Preset
from mailer.config.presets import TENANT
from mailer.mail.host_name import is_loopback
from mailer.mail.lazy_pattern import compile_late

_NO_URL = "is not a URL; write it as https://host.example.com/path"
_BLANKS = compile_late(r"\s")
_DOMAIN = compile_late(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")
_REGION = compile_late(r"[a-z]{2}(-[a-z]+)+-\d{1,2}")


def oauth_refusals(provider: Provider, auth: OAuth2) -> Iterator[tuple[str, str]]:
    """Yield (key below the provider, message) for everything that prevents getting a token."""
    if not provider.username:
        yield "username", "is needed: the mailbox that the token is for"
    elif auth.username not in {"", provider.username}:
        yield "auth.username", "differs from the provider's username: remove one of them"
    if provider.insecure_skip_verify and not is_loopback(provider.host):
        yield (
            "insecureSkipVerify",
            "is on: a host in between could steal the access token; set it to false",
        )
    yield from _token_urls(auth)
    yield from _grant(auth)
    if not auth.scope and auth.grant is not Grant.REFRESH_TOKEN:
        yield "auth.scope", "is needed: the permissions to request, as the provider documents them"
    if auth.expires and auth.ends is None:
        yield "auth.expires", 'is not a date: write it as "2027-01-31"'


def _token_urls(auth: OAuth2) -> Iterator[tuple[str, str]]:
    """Yield URLs that are missing, or to which secrets would travel in clear."""
    if auth.preset and auth.preset.microsoft and not auth.token_url:
        written = "is neither the id of a directory nor a domain" if auth.tenant else "is needed"
        if not (auth.tenant and TENANT.fullmatch(auth.tenant)):
            yield "auth.tenant", f"{written}: the directory (tenant) ID that Entra shows for the application"
        return
    for key, url in (("tokenUrl", auth.token_url), ("deviceUrl", auth.device_url)):
        if url and (why := bad_url(url)):
            yield f"auth.{key}", why
    if not auth.token_url:
        yield "auth.tokenUrl", "is needed, or a preset: the URL where the provider issues tokens"


def bad_url(url: str) -> str:
    """Return why secrets must not be sent to a URL; empty: they may be."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port  # raises ValueError if it is not a number
    except ValueError:
        return _NO_URL
    if not host or _BLANKS.search(url) or "@" in parts.netloc:
        return _NO_URL
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        return "must begin with https://, because secrets are sent to it"
    return ""


def _grant(auth: OAuth2) -> Iterator[tuple[str, str]]:
    google = auth.preset is Preset.GOOGLE
    if auth.grant is not Grant.SERVICE_ACCOUNT and not auth.client_id:
        yield "auth.clientId", "is needed: the id of the registered application"
    match auth.grant:
        case Grant.CLIENT_CREDENTIALS if google:
            yield "auth.grant", "Google does not offer clientCredentials for mailboxes: use serviceAccount"
        case Grant.CLIENT_CREDENTIALS if auth.client_secret.empty == auth.certificate.empty:
            both = "both are set" if auth.certificate.empty is False else "neither is set"
            yield "auth.clientSecret", f"either this or certificate is needed, and {both}"
        case Grant.REFRESH_TOKEN if auth.refresh_token.empty:
            yield "auth.refreshToken", "is needed; with grant deviceCode, mailer auth login gets one"
        case Grant.DEVICE_CODE if google:
            yield (
                "auth.grant",
                "Google does not allow deviceCode for mail: use serviceAccount or refreshToken",
            )
        case Grant.DEVICE_CODE if not auth.device_url and auth.token_url:
            yield "auth.deviceUrl", "is needed, or a preset: the URL where the provider issues device codes"
        case Grant.SERVICE_ACCOUNT if auth.service_account.empty:
            yield (
                "auth.serviceAccount",
                'is needed: {"file": "key.json"}, the key file of the service account',
            )


def api_refusals(provider: Provider) -> Iterator[tuple[str, str]]:
    """Yield (key below the provider, message) for everything that prevents posting mail."""
    if provider.api is None:
        if provider.api_url:
            yield "apiUrl", f"has no effect without api, one of {', '.join(Api)}"
        return
    yield from _api_url(provider)
    yield from _api_login(provider)
    if provider.insecure_skip_verify:
        yield "insecureSkipVerify", "has no effect with api: certificates are always verified; remove it"
    if provider.ssl:
        yield "ssl", "has no effect with api: the scheme of apiUrl decides about TLS; remove it"


def _api_login(provider: Provider) -> Iterator[tuple[str, str]]:
    api = provider.api
    if isinstance(provider.auth, AuthMechanism):
        yield "auth", "is an SMTP mechanism, which api does not use; remove it"
    elif api and api.by_header and provider.oauth is None:
        yield "auth", f"is needed: {api} accepts access tokens only, see mailer guide providers"
    elif provider.oauth and api and not api.by_header:
        yield "auth", f"is not for {api}, which takes username and password; remove it"
    if api is Api.MAILGUN:
        if not _DOMAIN.fullmatch(provider.username):
            yield "username", "is needed: the sending domain as Mailgun lists it, such as mg.example.com"
        if provider.password.empty:
            yield "password", "is needed: the API key, or the sending key of the domain"
    if api is Api.SES:
        if not _REGION.fullmatch(provider.region):
            yield "region", "is needed: the AWS region of the account, such as eu-central-1"
        if bool(provider.username) == provider.password.empty:
            yield "password", "and username must both be set, the access key's secret and its id, or neither"


def _api_url(provider: Provider) -> Iterator[tuple[str, str]]:
    """Check that `apiUrl` can be used, and that `host` and `port` agree with it."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - most runs use SMTP only

    if why := bad_url(provider.api_url):
        yield "apiUrl", why
        return
    parts = urlsplit(provider.api_url)
    if parts.query or parts.fragment:
        yield "apiUrl", "must have no query: write it as https://api.example.com"
    elif provider.host != parts.hostname:
        yield "host", "differs from that of apiUrl, which is used: remove it"
    elif provider.port != (parts.port or (80 if parts.scheme == "http" else 443)):
        yield "port", "differs from that of apiUrl, which is used: remove it"
