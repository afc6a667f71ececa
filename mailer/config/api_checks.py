"""Check the settings of a provider with `api`; called by `provider_checks`."""

from collections.abc import Iterator

from mailer.config.hops import Api, AuthMechanism, Provider
from mailer.config.oauth_checks import bad_url
from mailer.mail.lazy_pattern import compile_late

_DOMAIN = compile_late(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")

_REGION = compile_late(r"[a-z]{2}(-[a-z]+)+-\d{1,2}")


def refusals(provider: Provider) -> Iterator[tuple[str, str]]:
    """Yield (key below the provider, message) for everything that prevents posting mail."""
    if provider.api is None:
        if provider.api_url:
            yield "apiUrl", f"has no effect without api, one of {', '.join(Api)}"
        return
    yield from _address(provider)
    yield from _login(provider)
    if provider.insecure_skip_verify:
        yield "insecureSkipVerify", "has no effect with api: certificates are always verified; remove it"
    if provider.ssl:
        yield "ssl", "has no effect with api: the scheme of apiUrl decides about TLS; remove it"


def _login(provider: Provider) -> Iterator[tuple[str, str]]:
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


def _address(provider: Provider) -> Iterator[tuple[str, str]]:
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
