"""One account of a token server: its configuration, what is stored of it, and a clock that can be set."""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from testbed.token_server import TokenServer

from mailer.config.load import load
from mailer.config.oauth import OAuth2
from mailer.oauth.source import TokenSource
from mailer.oauth.trouble import TokenTrouble
from mailer.spool.directory import Spool
from mailer.spool.state.token_store import Tokens

USER, SECRET, ACCOUNT = "relay@example.com", "s3cret~of-the.application", "smtp.example.com:587"
USUAL = {"grant": "clientCredentials", "clientSecret": SECRET}


class Account:
    """A token server, a spool, and a clock that can be set."""

    def __init__(self, server: TokenServer, spool: Spool, directory: Path) -> None:
        self.server = server
        self.spool = spool
        self.directory = directory
        self.ahead = 0.0

    def clock(self) -> float:
        return time.time() + self.ahead

    def auth(self, **keys: Any) -> OAuth2:
        """`auth` as the configuration has it; a service account, a certificate as dicts like there."""
        written = {"type": "oauth2", "tokenUrl": self.server.url, "clientId": "app", "scope": "mail", **keys}
        provider = {"host": "smtp.example.com", "username": USER, "auth": written}
        path = self.directory / "config.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"forwardSMTP": True, "forwardProviders": [provider]}))
        auth = load(path, {}).config.providers[0].oauth
        assert auth is not None
        return auth

    def source(self, **keys: Any) -> TokenSource:
        return TokenSource(self.auth(**(keys or USUAL)), USER, ACCOUNT, self.spool, self.clock)

    @property
    def kept(self) -> Tokens:
        """What is kept of the one account that there is; nothing, if it was never written."""
        for file in (self.directory / "spool" / "state").glob("token-*.json"):
            return msgspec.json.decode(file.read_bytes(), type=Tokens)
        return Tokens()


def token(from_source: TokenSource, refused: str = "") -> str:
    return asyncio.run(from_source.token(refused))


def trouble(from_source: TokenSource, refused: str = "") -> str:
    with pytest.raises(TokenTrouble) as caught:
        token(from_source, refused)
    return caught.value.text


def certificate() -> tuple[str, Any]:
    """PEM of a certificate and its RSA key, and the public key."""
    leaf = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("app.example", key_type=trustme.KeyType.RSA)
    private = leaf.private_key_pem.bytes()
    key = load_pem_private_key(private, None).public_key()
    return leaf.cert_chain_pems[0].bytes().decode() + private.decode(), key


def rotating(account: Account) -> tuple[TokenSource, dict[str, str]]:
    """A runner, and its configuration; the server takes no refresh token that it has replaced."""
    keys = {
        "grant": "refreshToken",
        "refreshToken": account.server.new_refresh_token(),
        "clientSecret": SECRET,
    }
    return account.source(**keys), keys


@contextmanager
def disk_full(account: Account) -> Iterator[None]:
    """Nothing can be written for the account."""
    name = hashlib.sha256(account.auth(grant="refreshToken", refreshToken="-").record(ACCOUNT).encode())
    in_the_way = account.directory / "spool" / "state" / f".token-{name.hexdigest()[:20]}.json.{os.getpid()}"
    in_the_way.mkdir()
    yield
    in_the_way.rmdir()
