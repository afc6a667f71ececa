"""Stored access tokens: used by all programs, renewed in time, exchanged when refused, kept when damaged."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from outbound.token_account import ACCOUNT, SECRET, USUAL, Account, rotating, token, trouble

from mailer.calls.post import proxy_for
from mailer.oauth import source
from mailer.oauth.grants import Granted
from mailer.oauth.trouble import TokenTrouble
from mailer.spool.state import token_store
from mailer.spool.state.token_store import Tokens


def test_a_token_is_requested_once_and_stored_for_its_owner_alone(account: Account) -> None:
    first = token(account.source())
    assert token(account.source()) == first
    assert account.server.asked() == 1
    files = [path for path in (account.directory / "spool" / "state").iterdir() if "token" in path.name]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert len(files) == 2  # and its lock
    assert first not in repr(account.kept)


@pytest.mark.parametrize(
    ("lasts", "age", "renewed"),
    [(3600, 2990, False), (3600, 3010, True), (3600, 3700, True), (100, 45, False), (100, 55, True)],
)
def test_a_token_is_renewed_before_it_ends(
    account: Account, lasts: float, age: float, *, renewed: bool
) -> None:
    account.server.lasts = lasts
    first = token(account.source())
    account.ahead = age
    assert (token(account.source()) != first) is renewed


@pytest.mark.parametrize("written", ["3600", "soon", None, -1, True, 1e300, []])
def test_a_lifetime_in_any_form_is_no_trouble(account: Account, written: object) -> None:
    answer = {"access_token": "a-token", "token_type": "bearer", "expires_in": written}
    account.server.script = [(200, answer)]
    assert token(account.source()) == "a-token"
    assert account.kept.ends - account.kept.obtained == (3600 if written == "3600" else 600)


def test_a_clock_that_was_set_back_makes_no_token_eternal(account: Account) -> None:
    account.ahead = 10 * 86_400
    first = token(account.source())
    account.ahead = 0
    assert token(account.source()) != first


def test_a_token_server_that_is_down_does_not_invalidate_a_valid_token(account: Account) -> None:
    first = token(account.source())
    account.server.script = [(503, {})]
    account.ahead = 3300
    assert token(account.source()) == first
    assert account.kept.failure
    asked = account.server.asked()
    account.ahead += source.WAIT - 1
    assert token(account.source()) == first
    assert account.server.asked() == asked, "it was asked again at once"
    account.ahead = 3601
    assert "answered 503" in trouble(account.source())
    account.server.script = []
    account.ahead += source.PAUSE
    assert token(account.source()) != first
    assert not account.kept.failure


def test_a_token_that_is_refused_is_exchanged_unless_it_is_new(account: Account) -> None:
    first = token(account.source())
    assert token(account.source(), refused=first) == first
    account.ahead = source.YOUNG
    second = token(account.source(), refused=first)
    assert second != first
    assert token(account.source(), refused=first) == second, "another runner asks with the old one"
    assert account.server.asked() == 2


def test_a_refused_token_is_not_used_when_there_is_no_other(account: Account) -> None:
    first = token(account.source())
    account.server.script = [(400, {"error": "invalid_grant"})]
    account.ahead = source.YOUNG
    assert "invalid_grant" in trouble(account.source(), refused=first)
    assert account.kept.access == first


@pytest.mark.parametrize("damage", [b"", b"\0" * 50, b"[]", b'{"ends": "x"}', b"{" * 9999, b'{"ends": -1}'])
def test_a_damaged_token_file_counts_as_missing(account: Account, damage: bytes) -> None:
    token(account.source())
    [file] = (account.directory / "spool" / "state").glob("token-*.json")
    file.write_bytes(damage)
    assert token(account.source()) in account.server.access


def test_a_damaged_token_file_is_kept_because_its_refresh_token_may_be_legible(account: Account) -> None:
    """A refresh token may be legible in it, and is the only way back."""
    keys = {"grant": "deviceCode", "deviceUrl": account.server.device_url}
    asyncio.run(account.source(**keys).keep(Granted("a", 3600.0, "the-only-way-back")))
    [file] = (account.directory / "spool" / "state").glob("token-*.json")
    damage = file.read_bytes()[:-3]
    file.write_bytes(damage)
    aside = file.with_name(f"{file.name}.damaged")
    for _ in range(2):
        text = trouble(account.source(**keys))
        assert "no login is stored" in text
        assert str(aside) in text
        assert aside.read_bytes() == damage
        account.ahead += source.PAUSE
    # The operator puts it right, or logs in again.
    aside.rename(file)
    file.write_bytes(damage + b"\n}\n")
    assert asyncio.run(account.source(**keys).kept()).refresh == "the-only-way-back"
    file.write_bytes(damage)
    asyncio.run(account.source(**keys).keep(Granted("b", 3600.0, "another")))
    assert aside.read_bytes() == damage
    assert token(account.source(**keys)) == "b"
    assert asyncio.run(account.source(**keys).forget())
    assert not aside.exists()


@contextmanager
def unreadable(file: Path) -> Iterator[None]:
    """A file of another user, as root leaves it that restores a backup; for root's tests we are somebody."""
    if os.geteuid():
        file.chmod(0)
        yield
        file.chmod(0o600)
        return
    state = file.parent
    for path in (state.parent, state, *state.iterdir()):
        os.chown(path, 65534, 65534)
    os.chown(file, 0, 0)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.chown(file, 65534, 65534)


def test_a_token_file_that_cannot_be_read_is_not_overwritten(account: Account) -> None:
    first, keys = rotating(account)
    made = token(first)
    [file] = (account.directory / "spool" / "state").glob("token-*.json")
    kept = file.read_bytes()
    asked = account.server.asked()
    asker = account.source(**keys)
    with unreadable(file):
        for _ in range(2):
            with pytest.raises(TokenTrouble) as caught:
                token(asker)
            assert (caught.value.temporary, caught.value.local) == (True, True)
            assert f"chown --reference={file.parent} {file}" in caught.value.text
            with pytest.raises(TokenTrouble):
                asyncio.run(asker.renew())
            with pytest.raises(OSError, match="denied"):
                token_store.write(account.spool, account.auth(**keys).record(ACCOUNT), Tokens())
        assert token_store.endings(account.spool) == {}
    assert file.read_bytes() == kept
    assert account.server.asked() == asked
    assert token(asker) == made
    with unreadable(file):
        asyncio.run(asker.keep(Granted("by-login", 3600.0, "another")))
        assert token(asker) == "by-login"
    assert file.with_name(f"{file.name}.damaged").read_bytes() == kept


def test_a_mistake_in_the_configuration_that_is_undone_costs_no_login(account: Account) -> None:
    first, keys = rotating(account)
    token(first)
    del account.server.refresh[:-1]
    wrong = account.source(**keys | {"refreshToken": "mistyped"})
    for _ in range(2):
        assert "invalid_grant" in trouble(wrong)
    assert account.server.asked() == 2, "it was asked again at once"
    account.ahead = 4000.0
    assert token(account.source(**keys)) in account.server.access


def test_a_failure_that_only_a_person_can_fix_is_remembered_for_all_programs(account: Account) -> None:
    account.server.script = [(401, {"error": "invalid_client"})]
    for _ in range(2):
        with pytest.raises(TokenTrouble, match="invalid_client") as caught:
            token(account.source())
        assert not caught.value.temporary
    assert account.server.asked() == 1


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://login.example.com/token", "http://me:word@proxy.example.com:3128"),
        ("https://direct.example.com/token", None),
        ("http://127.0.0.1:8080/token", None),
    ],
)
def test_a_proxy_sees_no_secret_in_clear(
    monkeypatch: pytest.MonkeyPatch, url: str, proxy: str | None
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://me:word@proxy.example.com:3128")
    monkeypatch.setenv("no_proxy", "direct.example.com")
    assert proxy_for(url) == proxy


def test_what_a_netrc_has_for_the_server_is_not_sent(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = account.directory / "netrc"
    netrc.write_text("default login somebody password word\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    token(account.source())
    assert "Authorization" not in account.server.headers[-1]


def test_a_program_stopped_during_a_request_does_not_block_programs_that_have_a_token(
    account: Account,
) -> None:
    first = token(account.source())
    account.ahead = 3300
    with token_store.locked(account.spool, account.auth(**USUAL).record(ACCOUNT)) as mine:
        assert mine
        assert token(account.source()) == first
    assert token(account.source()) != first


def test_two_logins_to_one_account_are_kept_apart(account: Account) -> None:
    refresh = account.server.new_refresh_token()
    ways: list[dict[str, Any]] = [
        USUAL,
        {"grant": "refreshToken", "refreshToken": refresh, "clientSecret": SECRET},
    ]
    first = [token(account.source(**keys)) for keys in ways]
    assert [token(account.source(**keys)) for keys in ways] == first
    assert account.server.asked() == 2
