"""Each cause for which a login does not work, and what to do about it, is told wherever an operator looks."""

import json
import re
from contextlib import ExitStack
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import trustme
from outbound.hostile import Server
from outbound.sending import forward_to, queue
from testbed.http_client import ask
from testbed.relay import ADMIN_TOKEN, Relay
from testbed.token_server import TokenServer

from mailer.mail.login_causes import CAUSES

USER, SECRET = "relay@example.com", "s3cret~of-the.application"
BY_SERVER = {
    "permission": ("auth", "535 5.7.3 Authentication unsuccessful [X.PROD.OUTLOOK.COM]", "XOAUTH2"),
    "smtpAuthDisabled": (
        "auth",
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
        "LOGIN",
    ),
    "basicLoginRemoved": (
        "auth",
        "550 5.7.30 Basic authentication is not supported for Client Submission.",
        "LOGIN",
    ),
    "mailboxPermission": ("mail", "430 4.2.0 STOREDRV; mailbox logon failure", "XOAUTH2"),
}
"""Where a server says what, of those that log in by which mechanism."""
BY_TOKEN_SERVER = {
    "refreshTokenUnused": ("invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity"),
    "conditionalAccess": ("invalid_grant", "AADSTS70043: The refresh token has expired due to sign-in"),
    "clientSecretWrong": ("invalid_client", "AADSTS7000215: Invalid client secret provided"),
    "clientSecretExpired": ("invalid_client", "AADSTS7000222: The provided client secret keys are expired"),
    "invalidGrant": ("invalid_grant", "Bad Request"),
    "invalidClient": ("invalid_client", "The OAuth client was not found."),
    "clockSkew": ("invalid_client", "The assertion is not valid"),
}
"""The error, and its description."""
UNREACHED = ("untrustedCertificate", "dns")


class Clouds:
    """A provider for each cause, as its only user meets it."""

    def __init__(self, directory: Path, running: ExitStack) -> None:
        self._directory = directory
        self._running = running
        self.good = self._tokens()
        self.trusted = [self.good]
        self.providers = [self._by_server(name) for name in BY_SERVER]
        self.providers += [self._by_tokens(name) for name in (*BY_TOKEN_SERVER, *UNREACHED)]

    def bundle(self) -> str:
        """The file of all authorities but one."""
        bundle = self._directory / "all.pem"
        texts = [Path(server.trust(self._directory)["SSL_CERT_FILE"]).read_text() for server in self.trusted]
        bundle.write_text("".join(texts))
        return str(bundle)

    def _tokens(self) -> TokenServer:
        return self._running.enter_context(TokenServer(client_secret=SECRET))

    def _by_server(self, name: str) -> dict[str, Any]:
        step, said, mechanism = BY_SERVER[name]
        server = self._running.enter_context(Server({step: said}, auth=mechanism))
        if mechanism == "LOGIN":
            return self._provider(name, server.port, username=USER, password="correct horse")
        return self._provider(name, server.port, auth=self._auth(self.good.url))

    def _by_tokens(self, name: str) -> dict[str, Any]:
        tokens = self._tokens()
        if name != "untrustedCertificate":
            self.trusted.append(tokens)
        if name in BY_TOKEN_SERVER:
            error, description = BY_TOKEN_SERVER[name]
            tokens.script = [(400, {"error": error, "error_description": description})]
        auth = self._auth("https://nowhere.invalid/token" if name == "dns" else tokens.url)
        if name == "clockSkew":
            tokens.skew = 7200
            kind = trustme.KeyType.RSA
            leaf = trustme.CA(key_type=kind).issue_cert("app.example", key_type=kind)
            del auth["clientSecret"]
            auth["certificate"] = (leaf.cert_chain_pems[0].bytes() + leaf.private_key_pem.bytes()).decode()
        return self._provider(name, self._running.enter_context(Server(auth="XOAUTH2")).port, auth=auth)

    @staticmethod
    def _auth(url: str) -> dict[str, str]:
        auth = {"type": "oauth2", "grant": "clientCredentials", "tokenUrl": url, "clientId": "app"}
        return auth | {"clientSecret": SECRET, "scope": "mail", "username": USER}

    @staticmethod
    def _provider(name: str, port: int, **login: Any) -> dict[str, Any]:
        return {"name": name, "host": "127.0.0.1", "port": port, **login}


def test_every_view_names_each_cause_and_what_to_do_about_it(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [*BY_SERVER, *BY_TOKEN_SERVER, *UNREACHED]
    with ExitStack() as running:
        clouds = Clouds(tmp_path, running)
        monkeypatch.setenv("SSL_CERT_FILE", clouds.bundle())
        routes = [{"recipientDomain": f"{name}.example", "provider": name} for name in names]
        relay.configure(forward_to(forwardProviders=clouds.providers, routes=routes))
        waiting = {name: queue(relay.spool, [f"bob@{name}.example"]) for name in names}
        # What is said of one mail closes nothing: it takes another sender's and domain's.
        queue(relay.spool, ["eve@mailboxpermission.example"], sender="other@example.org")
        assert relay.mailer_send("--once").returncode == 0
        rows = map(json.loads, relay.mailer("providers", "--json").stdout.splitlines())
        assert {row["name"]: row["cause"] for row in rows} == {name: name for name in names}
        views = {"providers": relay.mailer("providers").stdout, "doctor": relay.mailer("doctor").stdout}
        with relay.monitor():
            views["health"] = ask(relay.http_port, "/health").json["checks"]["providers"]["message"]
            bearer = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
            page = ask(relay.http_port, "/", headers=bearer).body.decode()
            views["page"] = unescape(re.sub(r"<[^>]*>", "", page))
        why = {name: relay.mailer("spool", "why", message).stdout for name, message in waiting.items()}
    causes = {cause.name: cause for cause in CAUSES}
    untold = [
        (view, name)
        for name in names
        for view, text in (views | {"why": why[name]}).items()
        if causes[name].advice(name) not in " ".join(text.split())
    ]
    assert untold == []
