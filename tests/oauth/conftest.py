"""The account that tests of access tokens use."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from outbound.token_account import SECRET, Account
from testbed.token_server import TokenServer

from mailer.spool.directory import Spool


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with (
        TokenServer(client_secret=SECRET) as server,
        Spool.open(tmp_path / "spool", create=True) as spool,
    ):
        for name, value in server.trust(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield Account(server, spool, tmp_path)
