"""What each grant meets from its first login to its end, by the real programs, at a server that checks."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from outbound.hostile import Server
from outbound.sending import forward_to, found, queue
from testbed.faketime import fast_clock
from testbed.http_client import ask
from testbed.proxy import Proxy
from testbed.relay import Relay
from testbed.token_server import HANG, TokenServer
from testbed.waiting import until

USER, SECRET = "relay@example.com", "s3cret~of-the.application"
DAY = 86_400.0
GRANTS = ("secret", "certificate", "refreshToken", "deviceCode", "serviceAccount")
SIGNED = {"certificate", "serviceAccount"}
"""Only these show the host's clock to the server."""


class Cloud:
    """A token server and a provider that takes its tokens, as one grant is configured for them."""

    def __init__(self, relay: Relay, tokens: TokenServer, server: Server, grant: str) -> None:
        self.relay, self.tokens, self.server, self.grant = relay, tokens, server, grant
        auth = {"type": "oauth2", "tokenUrl": tokens.url, "clientId": "app", "scope": "mail"} | self._keys()
        provider = {"host": "127.0.0.1", "port": server.port, "name": "cloud", "username": USER, "auth": auth}
        relay.configure(forward_to(forwardProviders=[provider]))

    def _keys(self) -> dict[str, Any]:
        if self.grant not in SIGNED:
            self.tokens.client_secret = SECRET
        match self.grant:
            case "secret":
                return {"grant": "clientCredentials", "clientSecret": SECRET}
            case "refreshToken":
                first = self.tokens.new_refresh_token()
                return {"grant": "refreshToken", "refreshToken": first, "clientSecret": SECRET}
            case "deviceCode":
                return {"grant": "deviceCode", "deviceUrl": self.tokens.device_url, "clientSecret": SECRET}
        certificate, key = rsa_pair()
        self.tokens.key = load_pem_private_key(key.encode(), None).public_key()  # type: ignore[assignment]
        if self.grant == "certificate":
            return {"grant": "clientCredentials", "certificate": certificate + key}
        account = {"client_email": "svc@project.example", "private_key": key}
        return {"grant": "serviceAccount", "serviceAccount": json.dumps(account)}

    @property
    def kept(self) -> dict[str, Any]:
        [file] = (self.relay.spool / "state").glob("token-*.json")
        tokens: dict[str, Any] = json.loads(file.read_text())
        return tokens

    def age(self, seconds: float) -> None:
        """Have all that is known of the tokens be that much older."""
        [file] = (self.relay.spool / "state").glob("token-*.json")
        moments = {"obtained", "ends", "refreshed", "failed"}
        older = {
            name: max(0, value - seconds) if name in moments else value for name, value in self.kept.items()
        }
        file.write_text(json.dumps(older))

    def send(self) -> str:
        """Send one mail by a run of its own, and say what became of it: a place, or nothing once it went."""
        message = queue(self.relay.spool)
        (self.relay.spool / "state" / "providers.json").unlink(missing_ok=True)
        done = self.relay.mailer_send("--once")
        assert done.returncode == 0, done.stderr
        left = found(self.relay.spool, message)
        if left:
            assert left.events[-1]["event"] == "deferred"
            next(self.relay.spool.glob(f"*/*/{message}")).unlink()
        return left.place if left else ""

    @property
    def cause(self) -> str:
        [row] = map(json.loads, self.relay.mailer("providers", "--json").stdout.splitlines())
        return str(row["cause"])

    def log_in(self) -> None:
        """Have the user agree, where the grant has one."""
        if self.grant != "deviceCode":
            return
        with self.relay.starting("auth", "login", "cloud") as process:
            until(lambda: "WXYZ-1234" in process.output(), "the code")
            self.tokens.device_codes = dict.fromkeys(self.tokens.device_codes, True)
            assert process.wait() == 0, process.output()


def rsa_pair() -> tuple[str, str]:
    kind = trustme.KeyType.RSA
    leaf = trustme.CA(key_type=kind).issue_cert("app.example", key_type=kind)
    return leaf.cert_chain_pems[0].bytes().decode(), leaf.private_key_pem.bytes().decode()


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    with TokenServer() as server:
        for name, value in server.trust(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def cloud(relay: Relay, tokens: TokenServer) -> Iterator[Callable[[str], Cloud]]:
    with Server(auth="XOAUTH2 OAUTHBEARER PLAIN", bearers=lambda shown: shown in tokens.access) as server:
        yield lambda grant: Cloud(relay, tokens, server, grant)
        assert not any(b"AUTH PLAIN" in session.received for session in server.sessions)


@pytest.mark.parametrize("grant", GRANTS)
def test_a_grant_from_the_first_login_to_its_end(
    cloud: Callable[[str], Cloud], grant: str, tokens: TokenServer
) -> None:
    """Kept, renewed, withdrawn, server down and slow, and at last revoked: nobody is bounced."""
    one = cloud(grant)
    queue(one.relay.spool)
    one.log_in()
    assert one.send() == ""
    first = one.kept
    assert one.send() == ""
    assert one.kept["access"] == first["access"], "the second run asks nobody"

    one.age(3300)
    assert one.send() == ""
    renewed = one.kept
    assert renewed["access"] != first["access"]
    if "refresh" in renewed:
        assert renewed["refresh"] == tokens.refresh[-1] != first["refresh"]

    tokens.revoke()
    one.age(300)
    assert one.send() == ""
    assert one.kept["access"] != renewed["access"]

    tokens.script = [(503, {})]
    one.age(3300)
    before = one.kept
    assert one.send() == "", "the token that is there still works"
    one.age(400)
    assert (one.send(), one.cause) == ("retry", "tokenServerDown")
    assert one.kept.get("refresh") == before.get("refresh"), "what may still work is kept"

    tokens.script = []
    one.age(60)
    assert one.send() == ""

    end_all(tokens, grant)
    one.age(4000)
    assert (one.send(), one.cause) == ("retry", ENDS[grant])


def end_all(tokens: TokenServer, grant: str) -> None:
    """Withdraw what the grant rests on."""
    tokens.revoke()
    tokens.refresh.clear()
    if grant == "secret":
        tokens.client_secret = "another"
    elif grant in SIGNED:
        tokens.script = [(400, {"error": "invalid_grant" if grant == "serviceAccount" else "invalid_client"})]


ENDS = {
    "secret": "invalidClient",
    "certificate": "invalidClient",
    "refreshToken": "invalidGrant",
    "deviceCode": "invalidGrant",
    "serviceAccount": "invalidGrant",
}


@pytest.mark.parametrize("grant", GRANTS)
def test_a_grant_behind_a_proxy_with_a_wrong_clock_and_without_trust(
    cloud: Callable[[str], Cloud], grant: str, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cloud(grant)
    queue(one.relay.spool)
    with Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        one.log_in()
        assert one.send() == ""
        assert set(proxy.tunnels) == {tokens.url.split("/")[2]}
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("w0rd", "wrong"))
        one.age(4000)
        assert (one.send(), one.cause) == ("retry", "tokenServerDown")
        assert len(proxy.refused) == 1
        monkeypatch.delenv("HTTPS_PROXY")

    tokens.skew = 7200
    one.age(4000)
    if grant in SIGNED:
        tokens.script = [(400, {"error": "invalid_client"})]
        assert (one.send(), one.cause) == ("retry", "clockSkew")
        tokens.script = []
    else:
        assert one.send() == ""
    tokens.skew = 0

    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    one.age(4000)
    assert (one.send(), one.cause) == ("retry", "untrustedCertificate")


def test_a_token_server_that_never_answers_holds_mail_up_and_bounces_none(
    cloud: Callable[[str], Cloud], tokens: TokenServer
) -> None:
    """Its 30 s pass by a fast clock; the provider is not asked without a token."""
    one = cloud("secret")
    tokens.script = [HANG]
    message = queue(one.relay.spool)
    with fast_clock(10) as fast:
        assert one.relay.mailer_send("--once", under=fast).returncode == 0
    left = found(one.relay.spool, message)
    assert left is not None
    assert (left.place, left.events[-1]["event"]) == ("retry", "deferred")
    assert "it has not answered in time" in str(left.events[-1]["reply"])
    assert one.cause == "tokenServerDown"


@pytest.mark.parametrize(
    ("grant", "lasts", "what"),
    [("certificate", 0.0, "the certificate"), ("deviceCode", 9 * DAY, "the refresh token")],
)
def test_an_expiry_within_14_days_is_reported_though_it_is_not_configured(
    cloud: Callable[[str], Cloud], tokens: TokenServer, grant: str, lasts: float, what: str
) -> None:
    """A certificate names its own end, and some servers that of a refresh token."""
    tokens.refresh_lasts = lasts
    one = cloud(grant)
    queue(one.relay.spool)
    one.log_in()
    assert one.send() == ""
    if grant == "certificate":
        [file] = (one.relay.spool / "state").glob("token-*.json")
        near = one.kept["obtained"] + 9 * DAY
        assert one.kept["certificateEnds"] > near
        file.write_text(json.dumps(one.kept | {"certificateEnds": near}))
    [row] = map(json.loads, one.relay.mailer("auth", "status", "--json").stdout.splitlines())
    ends = row["certificateEnds" if grant == "certificate" else "refreshTokenEnds"]
    assert ends
    with one.relay.monitor():
        check = ask(one.relay.http_port, "/health").json["checks"]["tokens"]
        metrics = ask(one.relay.http_port, "/metrics", headers={"Accept": "text/plain"}).body.decode()
    assert check["status"] == "degraded"
    assert f"cloud: {what} ends in" in check["message"]
    assert f'mailer_provider_secret_end_timestamp_seconds{{provider="cloud",what="{what}"}}' in metrics


def test_a_refresh_token_that_its_grant_does_not_use_is_shown_without_a_time(
    cloud: Callable[[str], Cloud],
) -> None:
    """Some servers give one with a grant that needs none."""
    one = cloud("secret")
    assert one.send() == ""
    [file] = (one.relay.spool / "state").glob("token-*.json")
    assert "refreshed" not in one.kept
    file.write_text(json.dumps(one.kept | {"refresh": "r-1"}))
    assert "    refresh token not used\n" in one.relay.mailer("auth", "status").stdout
