"""Built-in settings of providers that need OAuth 2.0, added to the document where keys are missing.

Sources: Microsoft, "Authenticate an IMAP, POP or SMTP connection using OAuth", "National clouds", and the
lists of Microsoft 365 addresses for each cloud; Google, "OAuth 2.0 Mechanism" (of Gmail), "Using OAuth 2.0
for Server to Server Applications", "Choose Gmail API scopes".
"""

from collections.abc import Iterator

import msgspec

from mailer.config.hops import Api
from mailer.config.oauth import Grant, Preset
from mailer.mail.lazy_pattern import compile_late

GMAIL_SCOPE = "https://mail.google.com/"
"""The only scope that Google accepts for SMTP."""
_GMAIL_API_SCOPE = "https://www.googleapis.com/auth/gmail.send"

TENANT = compile_late(r"[A-Za-z0-9][A-Za-z0-9.-]*")


class _Cloud(msgspec.Struct, frozen=True):
    """The hosts and URLs of one of Microsoft's clouds, which have separate accounts."""

    smtp: str
    login: str
    """The base URL of the token endpoint."""
    application: str
    """The resource of an application's token."""
    delegated: str
    """The resource of a user's token."""
    graph: str
    """The base URL of Microsoft Graph."""


_CLOUDS = {
    Preset.MICROSOFT365: _Cloud(
        "smtp.office365.com",
        "https://login.microsoftonline.com",
        "https://outlook.office365.com",
        "https://outlook.office.com",
        "https://graph.microsoft.com",
    ),
    Preset.MICROSOFT365_GCC_HIGH: _Cloud(
        "smtp.office365.us",
        "https://login.microsoftonline.us",
        "https://outlook.office365.us",
        "https://outlook.office365.us",
        "https://graph.microsoft.us",
    ),
    Preset.MICROSOFT365_DOD: _Cloud(
        "outlook-dod.office365.us",
        "https://login.microsoftonline.us",
        "https://outlook-dod.office365.us",
        "https://outlook-dod.office365.us",
        "https://dod-graph.microsoft.us",
    ),
    Preset.MICROSOFT365_CHINA: _Cloud(
        "smtp.partner.outlook.cn",
        "https://login.partner.microsoftonline.cn",
        "https://partner.outlook.cn",
        "https://partner.outlook.cn",
        "https://microsoftgraph.chinacloudapi.cn",
    ),
}


def expanded(document: object) -> object:
    """Return the document with the values of its providers' presets; values that are written stay."""
    if not isinstance(document, dict) or not isinstance(document.get("forwardProviders"), list):
        return document
    return {**document, "forwardProviders": [_provider(each) for each in document["forwardProviders"]]}


def _provider(written: object) -> object:
    if not isinstance(written, dict):
        return written
    api, auth = _api(written.get("api")), written.get("auth")
    known: dict[str, object] = {}
    preset = None
    if isinstance(auth, dict):
        if isinstance(auth.get("username"), str):
            known["username"] = auth["username"]
        preset = _preset(auth.get("preset"))
    if api:
        known |= _place(api, preset, written)
    elif preset:
        known["host"] = _CLOUDS[preset].smtp if preset.microsoft else "smtp.gmail.com"
    if preset and isinstance(auth, dict):
        known["auth"] = dict(_known(preset, api, auth)) | auth
        return known | written | {"auth": known["auth"]}
    return known | written


def _preset(name: object) -> Preset | None:
    return next((preset for preset in Preset if preset == name), None)


def _api(name: object) -> Api | None:
    return next((api for api in Api if api == name), None)


def _place(api: Api, preset: Preset | None, written: dict[str, object]) -> dict[str, object]:
    """Return `apiUrl` of an API, and the `host` and `port` that follow from it."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - most runs use SMTP only

    url = written.get("apiUrl") or _usual(api, preset, str(written.get("region", "")))
    try:
        parts = urlsplit(str(url))
        port = parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        return {"apiUrl": url, "host": str(url)}
    return {"apiUrl": url, "host": parts.hostname or str(url), "port": port}


def _usual(api: Api, preset: Preset | None, region: str) -> str:
    match api:
        case Api.GRAPH:
            return _CLOUDS[preset if preset and preset.microsoft else Preset.MICROSOFT365].graph
        case Api.GMAIL:
            return "https://gmail.googleapis.com"
        case Api.MAILGUN:
            return "https://api.mailgun.net"
        case Api.SES:
            suffix = ".cn" if region.startswith("cn-") else ""
            return f"https://email.{region or 'REGION'}.amazonaws.com{suffix}"


def _known(preset: Preset, api: Api | None, auth: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the keys of `auth` that a preset supplies, with their values."""
    if not preset.microsoft:
        yield "tokenUrl", "https://oauth2.googleapis.com/token"
        yield "scope", _GMAIL_API_SCOPE if api is Api.GMAIL else GMAIL_SCOPE
        return
    cloud = _CLOUDS[preset]
    as_application = auth.get("grant") == Grant.CLIENT_CREDENTIALS
    application, delegated = cloud.application, f"{cloud.delegated}/SMTP.Send"
    if api is Api.GRAPH:
        application, delegated = cloud.graph, f"{cloud.graph}/Mail.Send"
    yield "scope", f"{application}/.default" if as_application else f"{delegated} offline_access"
    tenant = auth.get("tenant")
    if isinstance(tenant, str) and TENANT.fullmatch(tenant):
        yield "tokenUrl", f"{cloud.login}/{tenant}/oauth2/v2.0/token"
        yield "deviceUrl", f"{cloud.login}/{tenant}/oauth2/v2.0/devicecode"
