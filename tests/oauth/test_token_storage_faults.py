"""Tokens on a disk that is full or fails: none is lost, and none replaces a newer one."""

import asyncio
import errno
import os

import pytest
from outbound.token_account import SECRET, Account, disk_full, rotating, token, trouble

from mailer.oauth import source
from mailer.oauth.grants import Granted
from mailer.spool.directory import Spool
from mailer.spool.free_space import FreeSpace
from mailer.spool.state import token_store


def test_tokens_are_stored_later_and_none_is_requested_on_a_full_disk(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = Spool.free_space
    monkeypatch.setattr(Spool, "free_space", lambda _: FreeSpace(token_store.ROOM - 1, None))
    assert "disk is full" in trouble(account.source())
    assert account.server.asked() == 0
    monkeypatch.setattr(Spool, "free_space", free)
    asker = account.source()
    state = account.directory / "spool" / "state"
    [lock] = state.glob("token-*.lock")
    (state / f"{lock.stem}.json").unlink(missing_ok=True)
    blocked = state / f".{lock.stem}.json.{os.getpid()}"
    blocked.mkdir()
    assert "cannot be stored" in trouble(asker)
    blocked.rmdir()
    made = token(asker)
    assert made in account.server.access


def test_a_refresh_token_that_could_not_be_written_is_written_later(account: Account) -> None:
    """It may be the only way back: a server that rotates takes the last one no more."""
    keys = {
        "grant": "refreshToken",
        "refreshToken": account.server.new_refresh_token(),
        "clientSecret": SECRET,
    }
    asker = account.source(**keys)
    token(asker)
    before = account.kept
    [file] = (account.directory / "spool" / "state").glob("token-*.json")
    in_the_way = file.with_name(f".{file.name}.{os.getpid()}")
    in_the_way.mkdir()
    account.ahead = 4000.0
    assert "cannot be stored" in trouble(asker)
    assert account.kept == before
    in_the_way.rmdir()
    assert token(asker) in account.server.access
    assert account.kept.refresh == account.server.refresh[-1] != before.refresh


def test_a_failure_that_could_not_be_noted_replaces_no_newer_refresh_token(account: Account) -> None:
    """Another runner may have renewed it, or somebody logged in, before the disk takes anything again."""
    first, keys = rotating(account)
    token(first)
    account.ahead = 4000.0
    account.server.script = [(503, {})]
    with disk_full(account):
        assert "answered 503" in trouble(first)
    account.server.script = []
    account.ahead += source.PAUSE
    made = token(account.source(**keys))
    kept = account.kept
    assert token(first) == made
    assert account.kept == kept
    del account.server.refresh[:-1]
    account.ahead += 4000.0
    assert token(first) in account.server.access


@pytest.mark.parametrize("had", [True, False])
def test_a_new_refresh_token_that_could_not_be_written_outlives_what_others_meet_with_the_old_one(
    account: Account, *, had: bool
) -> None:
    first, keys = rotating(account)
    if had:
        token(first)
        account.ahead = 4000.0
    with disk_full(account):
        assert "cannot be stored" in trouble(first)
    del account.server.refresh[:-1]
    account.ahead += source.PAUSE
    assert "invalid_grant" in trouble(account.source(**keys))
    assert account.kept.failure
    assert token(first) in account.server.access
    assert account.kept.refresh == account.server.refresh[-1]
    assert not account.kept.failure
    account.ahead += 4000.0
    assert token(account.source(**keys)) in account.server.access


def test_a_refresh_token_that_could_not_be_written_replaces_no_login_that_was_made_since(
    account: Account,
) -> None:
    first, keys = rotating(account)
    token(first)
    account.ahead = 4000.0
    with disk_full(account):
        assert "cannot be stored" in trouble(first)
    login = Granted("by-login", 3600.0, account.server.new_refresh_token())
    asyncio.run(account.source(**keys).keep(login))
    assert token(first) == "by-login"
    assert account.kept.refresh == login.refresh


def test_a_directory_that_could_not_be_synced_is_synced_later(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was replaced: it is durable before the token is used, and nobody is asked for another."""
    first, _ = rotating(account)
    token(first)
    account.ahead = 4000.0
    sync, synced = Spool.sync_directory, list[str]()

    def fails(_: Spool, name: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), name)

    def counts(spool: Spool, name: str) -> None:
        sync(spool, name)
        synced.append(name)

    monkeypatch.setattr(Spool, "sync_directory", fails)
    assert "cannot be stored" in trouble(first)
    asked = account.server.asked()
    monkeypatch.setattr(Spool, "sync_directory", counts)
    assert token(first) in account.server.access
    assert synced == ["state"]
    assert account.server.asked() == asked
