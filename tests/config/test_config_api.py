"""`api`: where an interface is, what its token is for, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from mailer.config.checks import refuse_to_send
from mailer.config.hops import Api
from mailer.config.load import Loaded, load
from mailer.config.problem import ConfigError
from mailer.config.show import effective

P = "$.forwardProviders[0]."
GRAPH = {"api": "graph", "username": "relay@example.com"}
MICROSOFT = {
    "type": "oauth2", "preset": "microsoft365", "tenant": "contoso.com", "clientId": "1b2c",
    "grant": "clientCredentials", "clientSecret": "s3cret-of-the-app",
}  # fmt: skip
GOOGLE = {"type": "oauth2", "preset": "google", "grant": "serviceAccount", "serviceAccount": "{}"}


@pytest.fixture
def loaded(tmp_path: Path) -> Any:
    def read(**provider: Any) -> Loaded:
        path = tmp_path / "config.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"forwardSMTP": True, "forwardProviders": [provider]}))
        return load(path, {})

    return read


def told(loaded: Loaded) -> dict[str, str]:
    return {problem.path: problem.message for problem in refuse_to_send(loaded)}


@pytest.mark.parametrize(
    ("preset", "host"),
    [
        ("microsoft365", "graph.microsoft.com"),
        ("microsoft365-gcc-high", "graph.microsoft.us"),
        ("microsoft365-dod", "dod-graph.microsoft.us"),
        ("microsoft365-china", "microsoftgraph.chinacloudapi.cn"),
    ],
)
def test_each_cloud_has_its_own_interface_and_scope(loaded: Any, preset: str, host: str) -> None:
    found = loaded(**GRAPH, auth=MICROSOFT | {"preset": preset})
    [provider] = found.config.providers
    assert told(found) == {}
    assert (provider.api, provider.api_url) == (Api.GRAPH, f"https://{host}")
    assert (provider.host, provider.port) == (host, 443)
    assert provider.account == f"{host}:443 as relay@example.com"
    assert provider.oauth.scope == f"https://{host}/.default"
    user = loaded(**GRAPH, auth=MICROSOFT | {"preset": preset, "grant": "deviceCode", "clientSecret": ""})
    assert user.config.providers[0].oauth.scope == f"https://{host}/Mail.Send offline_access"


def test_gmail_by_a_service_account(loaded: Any) -> None:
    found = loaded(api="gmail", username="relay@example.com", auth=GOOGLE)
    [provider] = found.config.providers
    assert told(found) == {}
    assert (provider.host, provider.port) == ("gmail.googleapis.com", 443)
    assert provider.oauth.scope == "https://www.googleapis.com/auth/gmail.send"


MAILGUN = {"api": "mailgun", "username": "mg.example.com", "password": "key-0123456789"}


def test_mailgun_by_a_key(loaded: Any) -> None:
    found = loaded(**MAILGUN)
    [provider] = found.config.providers
    assert told(found) == {}
    assert (provider.host, provider.account) == ("api.mailgun.net", "api.mailgun.net:443 as mg.example.com")
    europe = loaded(**MAILGUN, apiUrl="https://api.eu.mailgun.net")
    assert told(europe) == {}
    assert europe.config.providers[0].host == "api.eu.mailgun.net"


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ({"username": ""}, "username", "the sending domain"),
        ({"username": "postmaster@mg.example.com"}, "username", "the sending domain"),
        ({"username": "a.example/../x"}, "username", "the sending domain"),
        ({"password": ""}, "password", "the API key"),
        ({"auth": MICROSOFT}, "auth", "is not for mailgun"),
    ],
)
def test_what_keeps_mail_from_mailgun_is_named(
    loaded: Any, keys: dict[str, Any], key: str, words: str
) -> None:
    assert words in told(loaded(**MAILGUN | keys))[P + key]


SES = {"api": "ses", "region": "eu-central-1"}


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "email.eu-central-1.amazonaws.com"),
        ("cn-north-1", "email.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_ses_with_keys_and_without(loaded: Any, region: str, host: str) -> None:
    for login in ({}, {"username": "AKIDEXAMPLE", "password": "s3cret-of-the-app"}):
        found = loaded(api="ses", region=region, **login)
        [provider] = found.config.providers
        assert told(found) == {}
        assert (provider.host, provider.port, provider.region) == (host, 443, region)


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ({"region": ""}, "region", "the AWS region"),
        ({"region": "Frankfurt"}, "region", "the AWS region"),
        ({"username": "AKIDEXAMPLE"}, "password", "and username must both be set"),
        ({"password": "s3cret-of-the-app"}, "password", "and username must both be set"),
    ],
)
def test_what_keeps_mail_from_ses_is_named(loaded: Any, keys: dict[str, Any], key: str, words: str) -> None:
    assert words in told(loaded(**SES | keys))[P + key]


def test_an_interface_elsewhere(loaded: Any) -> None:
    found = loaded(**GRAPH, auth=MICROSOFT, apiUrl="http://127.0.0.1:8080/")
    [provider] = found.config.providers
    assert told(found) == {}
    assert (provider.host, provider.port) == ("127.0.0.1", 8080)
    shown: Any = effective(found.config)["forwardProviders"]
    assert (shown[0]["api"], shown[0]["apiUrl"]) == ("graph", "http://127.0.0.1:8080/")


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ({"apiUrl": "http://api.example.com"}, "apiUrl", "must begin with https://"),
        ({"apiUrl": "api.example.com"}, "apiUrl", "is not a URL"),
        ({"apiUrl": "https://u:p@api.example.com"}, "apiUrl", "is not a URL"),
        ({"apiUrl": "https://api.example.com:port"}, "apiUrl", "is not a URL"),
        ({"apiUrl": "https://api.example.com/?key=1"}, "apiUrl", "must have no query"),
        ({"host": "smtp.office365.com"}, "host", "differs from that of apiUrl"),
        ({"port": 587}, "port", "differs from that of apiUrl"),
        ({"ssl": True}, "ssl", "has no effect with api"),
        ({"insecureSkipVerify": True}, "insecureSkipVerify", "always verified"),
        ({"auth": "plain"}, "auth", "is an SMTP mechanism"),
        ({"auth": None}, "auth", "accepts access tokens only"),
        ({"username": ""}, "username", "is needed: the mailbox"),
        ({"api": None, "host": "h", "apiUrl": "https://x.example"}, "apiUrl", "has no effect without api"),
    ],
)
def test_what_keeps_mail_from_being_posted_is_named(
    loaded: Any, keys: dict[str, Any], key: str, words: str
) -> None:
    assert words in told(loaded(**GRAPH | {"auth": MICROSOFT} | keys))[P + key]


def test_an_interface_that_is_not_known(loaded: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(api="grahp", host="h")
    [problem] = caught.value.problems
    assert problem.path == f"{P}api"
    assert 'expected one of "graph", "gmail"' in problem.message
