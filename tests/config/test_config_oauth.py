"""`auth` as an object: what presets fill in, what is missing, and what would show a secret."""

import json
from pathlib import Path
from typing import Any

import pytest

from mailer.config.checks import refuse_to_send
from mailer.config.hops import AuthMechanism
from mailer.config.load import Loaded, load
from mailer.config.oauth import Grant
from mailer.config.problem import ConfigError
from mailer.config.show import effective
from mailer.config.warnings import warnings

SECRET = "s3cret-of-the-app"
P = "$.forwardProviders[0]."


@pytest.fixture
def loaded(tmp_path: Path) -> Any:
    def read(auth: object, **keys: Any) -> Loaded:
        provider = {"username": "relay@example.com", "auth": auth, **keys}
        path = tmp_path / "config.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"forwardSMTP": True, "forwardProviders": [provider]}))
        return load(path, {})

    return read


def microsoft(**keys: Any) -> dict[str, Any]:
    usual = {"type": "oauth2", "preset": "microsoft365", "tenant": "contoso.com", "clientId": "1b2c"}
    return usual | {"grant": "clientCredentials", "clientSecret": SECRET} | keys


def told(loaded: Loaded) -> dict[str, str]:
    return {problem.path: problem.message for problem in refuse_to_send(loaded)}


CLOUDS = {
    "microsoft365": (
        "smtp.office365.com", "microsoftonline.com", "outlook.office365.com", "outlook.office.com",
    ),
    "microsoft365-gcc-high": (
        "smtp.office365.us", "microsoftonline.us", "outlook.office365.us", "outlook.office365.us",
    ),
    "microsoft365-dod": (
        "outlook-dod.office365.us", "microsoftonline.us", "outlook-dod.office365.us",
        "outlook-dod.office365.us",
    ),
    "microsoft365-china": (
        "smtp.partner.outlook.cn", "partner.microsoftonline.cn", "partner.outlook.cn", "partner.outlook.cn",
    ),
}  # fmt: skip


@pytest.mark.parametrize("preset", CLOUDS)
def test_each_cloud_of_microsoft_has_its_own_hosts_and_scopes(loaded: Any, preset: str) -> None:
    smtp, login, application, delegated = CLOUDS[preset]
    [provider] = loaded(microsoft(preset=preset)).config.providers
    assert (provider.host, provider.port, provider.ssl) == (smtp, 587, False)
    assert provider.oauth.token_url == f"https://login.{login}/contoso.com/oauth2/v2.0/token"
    assert provider.oauth.scope == f"https://{application}/.default"
    user = loaded(microsoft(preset=preset, grant="deviceCode", clientSecret="")).config.providers[0].oauth
    assert user.scope == f"https://{delegated}/SMTP.Send offline_access"
    assert user.device_url == f"https://login.{login}/contoso.com/oauth2/v2.0/devicecode"


def test_google_by_a_service_account(loaded: Any) -> None:
    auth = {"type": "oauth2", "preset": "google", "grant": "serviceAccount", "serviceAccount": "{}"}
    found = loaded(auth)
    [provider] = found.config.providers
    assert (provider.host, provider.oauth.grant) == ("smtp.gmail.com", Grant.SERVICE_ACCOUNT)
    assert provider.oauth.scope == "https://mail.google.com/"
    assert provider.oauth.token_url == "https://oauth2.googleapis.com/token"
    assert told(found) == {}


def test_what_is_written_counts_more_than_a_preset(loaded: Any) -> None:
    auth = microsoft(scope="https://other/.default", tokenUrl="https://login.example.com/t", tenant="")
    [provider] = loaded(auth, host="smtp.example.com", port=2587).config.providers
    assert (provider.host, provider.port) == ("smtp.example.com", 2587)
    assert (provider.oauth.scope, provider.oauth.token_url) == (auth["scope"], auth["tokenUrl"])


def test_a_string_still_names_a_mechanism(loaded: Any) -> None:
    [provider] = loaded("login", host="smtp.example.com").config.providers
    assert (provider.auth, provider.oauth) == (AuthMechanism.LOGIN, None)


@pytest.mark.parametrize(
    ("auth", "path", "words"),
    [
        ("oauth2", f"{P}auth", 'one of "plain", "login", "cram-md5"'),
        ({"type": "oauth1", "grant": "deviceCode"}, f"{P}auth.type", '"oauth2"'),
        ({"type": "oauth2"}, f"{P}auth.grant", "needed"),
        ({"type": "oauth2", "grant": "password"}, f"{P}auth.grant", '"serviceAccount"'),
        (microsoft(clientSercet="x"), f"{P}auth.clientSercet", "clientSecret"),
        (microsoft(preset="outlook"), f"{P}auth.preset", '"microsoft365"'),
    ],
)
def test_what_cannot_be_read_is_named(loaded: Any, auth: object, path: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(auth, host="smtp.example.com")
    assert words in {problem.path: problem.message for problem in caught.value.problems}[path]
    assert SECRET not in str(caught.value)


PLAIN = {"type": "oauth2", "clientId": "x", "scope": "s", "tokenUrl": "https://login.example.com/token"}


@pytest.mark.parametrize(
    ("auth", "key", "words"),
    [
        (microsoft(tenant=""), "auth.tenant", "directory (tenant) ID"),
        (microsoft(tenant="a/b"), "auth.tenant", "neither the id of a directory"),
        (microsoft(clientId=""), "auth.clientId", "registered"),
        (microsoft(clientSecret=""), "auth.clientSecret", "neither is set"),
        (microsoft(certificate="x"), "auth.clientSecret", "both are set"),
        (microsoft(expires="soon"), "auth.expires", "2027-01-31"),
        (microsoft(username="other@example.com"), "auth.username", "differs from"),
        (PLAIN | {"grant": "refreshToken"}, "auth.refreshToken", "mailer auth login"),
        (PLAIN | {"grant": "deviceCode"}, "auth.deviceUrl", "needed"),
        (PLAIN | {"grant": "deviceCode", "tokenUrl": ""}, "auth.tokenUrl", "needed"),
        (PLAIN | {"grant": "deviceCode", "deviceUrl": "http://x.example/d"}, "auth.deviceUrl", "https://"),
        (PLAIN | {"grant": "refreshToken", "tokenUrl": "http://1.2.3.4/"}, "auth.tokenUrl", "https://"),
        (PLAIN | {"grant": "refreshToken", "tokenUrl": "https://u:p@x/"}, "auth.tokenUrl", "not a URL"),
        (PLAIN | {"grant": "refreshToken", "tokenUrl": "https://[x"}, "auth.tokenUrl", "not a URL"),
        (PLAIN | {"grant": "serviceAccount"}, "auth.serviceAccount", "key.json"),
        (PLAIN | {"grant": "clientCredentials", "preset": "google"}, "auth.grant", "serviceAccount"),
        (PLAIN | {"grant": "deviceCode", "preset": "google"}, "auth.grant", "serviceAccount"),
        (PLAIN | {"grant": "clientCredentials", "scope": "", "clientSecret": "x"}, "auth.scope", "needed"),
    ],
)
def test_what_keeps_a_token_from_being_had_is_refused(
    loaded: Any, auth: dict[str, Any], key: str, words: str
) -> None:
    assert words in told(loaded(auth, host="smtp.example.com"))[P + key]


def test_a_login_needs_a_mailbox_and_no_password(loaded: Any) -> None:
    assert f"{P}username" in told(loaded(microsoft(), username=""))
    assert loaded(microsoft(username="me@x.example"), username=None).config.providers[0].username == ""
    found = loaded(microsoft(), password="left over")
    assert told(found) == {}
    said = {problem.path: problem.message for problem in warnings(found)}
    assert "never sent" in said[f"{P}password"]
    assert f"{P}password" not in {problem.path for problem in warnings(loaded(microsoft()))}


def test_a_token_goes_to_no_server_that_proves_nothing(loaded: Any) -> None:
    said = told(loaded(microsoft(), host="smtp.example.com", insecureSkipVerify=True))
    assert "steal the access token" in said[f"{P}insecureSkipVerify"]
    assert told(loaded(microsoft(), host="localhost", insecureSkipVerify=True)) == {}


def test_no_view_shows_a_secret(loaded: Any) -> None:
    found = loaded(microsoft(refreshToken=SECRET, certificate={"env": "CERT"}))
    shown = effective(found.config)
    assert SECRET not in repr(found) + json.dumps(shown)
    [provider] = shown["forwardProviders"]  # type: ignore[misc]
    assert provider["auth"]["clientSecret"] == "********"
    assert provider["auth"]["certificate"] == {"env": "CERT"}
