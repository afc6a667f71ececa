"""Access tokens of an OAuth 2.0 server by others, shown to SMTP servers by others that demand them."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from outbound.hostile import Server
from outbound.sending import forward_to, found, queue
from testbed.namespaced import Exim
from testbed.oauth_server import OAuthServer
from testbed.relay import Relay
from testbed.smtp_server import SmtpServer
from testbed.waiting import until

USER = "relay@example.com"
GRANTS: dict[str, dict[str, str]] = {
    "clientCredentials": {"clientSecret": "s3cret~of-the.application"},
    "refreshToken": {"refreshToken": "r-e-f-r-e-s-h"},
}
"""Those that the server knows."""


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OAuthServer]:
    with OAuthServer(tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
        yield server


def through(port: int, tokens: OAuthServer, grant: str, **more: str) -> dict[str, Any]:
    auth = {"type": "oauth2", "grant": grant, "tokenUrl": f"{tokens.url}/token", "clientId": "app"}
    auth |= {"scope": "mail", **GRANTS[grant], **more}
    provider = {"host": "localhost", "port": port, "name": "cloud", "username": USER, "auth": auth}
    return forward_to(forwardProviders=[provider])


def kept(relay: Relay) -> dict[str, Any]:
    [file] = (relay.spool / "state").glob("token-*.json")
    tokens: dict[str, Any] = json.loads(file.read_text())
    return tokens


def age(relay: Relay, seconds: float) -> None:
    """Have all that is known of the tokens be that much older."""
    [file] = (relay.spool / "state").glob("token-*.json")
    older = {
        name: max(0, value - seconds) if isinstance(value, float) else value
        for name, value in kept(relay).items()
    }
    file.write_text(json.dumps(older))


def await_another_token() -> None:
    """Wait for the next second: the server's tokens differ by that alone."""
    then = int(time.time())
    until(lambda: int(time.time()) > then, "the next second")


def send(relay: Relay) -> str:
    message = queue(relay.spool)
    relay.mailer("providers", "reset", "--all")
    done = relay.mailer_send("--once")
    assert done.returncode == 0, done.stderr
    return message


@contextmanager
def npm_smtp_server(
    tmp_path: Path, tokens: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SmtpServer]:
    """It asks the OAuth server for its keys, and checks signature and end of each token."""
    authority = trustme.CA()
    chain = tmp_path / "chain.pem"
    chain.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    both = tmp_path / "both.pem"
    both.write_bytes(tokens.authority.read_bytes() + authority.cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(both))
    keys, trusted = f"{tokens.url}/jwks", str(tokens.authority)
    with SmtpServer(tmp_path / "smtp-server", chain, jwks=keys, authority=trusted) as server:
        yield server


@pytest.mark.parametrize("grant", GRANTS)
def test_first_login_refresh_withdrawal_and_a_server_that_is_down(
    relay: Relay, tokens: OAuthServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grant: str
) -> None:
    with npm_smtp_server(tmp_path, tokens, monkeypatch) as server:
        relay.configure(through(server.port, tokens, grant))
        send(relay)
        first = kept(relay)
        send(relay)
        assert kept(relay)["access"] == first["access"], "the second run asks nobody"

        await_another_token()
        age(relay, 3300)
        send(relay)
        second = kept(relay)
        assert second["access"] != first["access"]
        if grant == "refreshToken":
            assert second["refresh"] != first["refresh"] != GRANTS[grant]["refreshToken"]

        await_another_token()
        server.revoke(second["access"])
        age(relay, 300)
        send(relay)
        third = kept(relay)
        assert third["access"] != second["access"]

        assert server.users() == [USER] * 4

        tokens.stop()
        age(relay, 3700)
        waiting = send(relay)
        left = found(relay.spool, waiting)
        assert left is not None
        assert (left.place, left.events[-1]["event"]) == ("retry", "deferred")
        assert "tokenServerDown" in relay.mailer("providers", "--json").stdout
        assert kept(relay).get("refresh") == third.get("refresh"), "what may still work is kept"
        tokens.start()
        age(relay, 3700)
        relay.mailer("spool", "retry", "--all")
        send(relay)
        assert len(server.users()) == 6
        assert found(relay.spool, waiting) is None


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
def test_exim_takes_a_token_by_either_mechanism_and_no_mail_without(
    relay: Relay, tokens: OAuthServer, mechanism: str
) -> None:
    with Server() as end, Exim(end.port, bearers=True) as exim:
        relay.configure(through(exim.port, tokens, "clientCredentials", mechanism=mechanism))
        send(relay)
        until(lambda: len(end.messages) == 1, "the message to be passed on")
        assert exim.logins() == [f"{mechanism}:{USER}"]
        relay.configure(forward_to(forwardProviders=[{"host": "localhost", "port": exim.port}]))
        waiting = send(relay)
        left = found(relay.spool, waiting)
        assert left is not None
        assert (left.place, len(end.messages)) == ("retry", 1)
