"""What is known of providers that want OAuth 2.0: put into the document where the operator wrote nothing.

Sources: Microsoft, "Authenticate an IMAP, POP or SMTP connection using OAuth", "National clouds", and the
lists of Microsoft 365 addresses for each cloud; Google, "OAuth 2.0 Mechanism" (of Gmail), "Using OAuth 2.0
for Server to Server Applications".
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from mailer.config.oauth import Grant, Preset

GMAIL_SCOPE = "https://mail.google.com/"
"""The only one that SMTP takes."""

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


class _Cloud(NamedTuple):
    """One of Microsoft's clouds; each has accounts of its own."""

    smtp: str
    login: str
    """Where tokens are made."""
    application: str
    """What an application's token is for."""
    delegated: str
    """What a user's token is for."""


_CLOUDS = {
    Preset.MICROSOFT365: _Cloud(
        "smtp.office365.com",
        "https://login.microsoftonline.com",
        "https://outlook.office365.com",
        "https://outlook.office.com",
    ),
    Preset.MICROSOFT365_GCC_HIGH: _Cloud(
        "smtp.office365.us",
        "https://login.microsoftonline.us",
        "https://outlook.office365.us",
        "https://outlook.office365.us",
    ),
    Preset.MICROSOFT365_DOD: _Cloud(
        "outlook-dod.office365.us",
        "https://login.microsoftonline.us",
        "https://outlook-dod.office365.us",
        "https://outlook-dod.office365.us",
    ),
    Preset.MICROSOFT365_CHINA: _Cloud(
        "smtp.partner.outlook.cn",
        "https://login.partner.microsoftonline.cn",
        "https://partner.outlook.cn",
        "https://partner.outlook.cn",
    ),
}


def expanded(document: object) -> object:
    """Return the document with what the presets of its providers say; all other values stay as they are."""
    if not isinstance(document, dict) or not isinstance(document.get("forwardProviders"), list):
        return document
    return {**document, "forwardProviders": [_provider(each) for each in document["forwardProviders"]]}


def _provider(written: object) -> object:
    if not isinstance(written, dict) or not isinstance(written.get("auth"), dict):
        return written
    auth = written["auth"]
    known = {}
    if isinstance(auth.get("username"), str):
        known["username"] = auth["username"]
    try:
        preset = Preset(auth.get("preset"))
    except ValueError:
        return known | written
    known["host"] = _CLOUDS[preset].smtp if preset.microsoft else "smtp.gmail.com"
    return known | written | {"auth": dict(_known(preset, auth)) | auth}


def _known(preset: Preset, auth: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Return what a preset says of `auth`."""
    if not preset.microsoft:
        yield "tokenUrl", "https://oauth2.googleapis.com/token"
        yield "scope", GMAIL_SCOPE
        return
    cloud = _CLOUDS[preset]
    as_application = auth.get("grant") == Grant.CLIENT_CREDENTIALS
    delegated = f"{cloud.delegated}/SMTP.Send offline_access"
    yield "scope", f"{cloud.application}/.default" if as_application else delegated
    tenant = auth.get("tenant")
    if isinstance(tenant, str) and TENANT.fullmatch(tenant):
        yield "tokenUrl", f"{cloud.login}/{tenant}/oauth2/v2.0/token"
        yield "deviceUrl", f"{cloud.login}/{tenant}/oauth2/v2.0/devicecode"
