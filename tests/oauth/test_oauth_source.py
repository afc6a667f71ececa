"""Access tokens: asked for as each grant has it, kept for all, renewed in time, and never lost to trouble."""

import asyncio
import errno
import gc
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import msgspec
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from testbed.modules import module_command
from testbed.ports import free_port
from testbed.token_server import HANG, REDIRECT, TokenServer
from testbed.waiting import until

from mailer.calls.post import proxy_for
from mailer.config.load import load
from mailer.config.oauth import OAuth2
from mailer.mail.login_causes import CAUSES, cause_of
from mailer.oauth import source
from mailer.oauth.grants import Granted
from mailer.oauth.source import TokenSource
from mailer.oauth.trouble import TokenTrouble
from mailer.spool.directory import Spool
from mailer.spool.free_space import FreeSpace
from mailer.spool.state import token_store
from mailer.spool.state.token_store import Tokens

USER, SECRET, ACCOUNT = "relay@example.com", "s3cret~of-the.application", "smtp.example.com:587"
USUAL = {"grant": "clientCredentials", "clientSecret": SECRET}


class Bench:
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


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with (
        TokenServer(client_secret=SECRET) as server,
        Spool.open(tmp_path / "spool", create=True) as spool,
    ):
        for name, value in server.trust(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield Bench(server, spool, tmp_path)


def token(from_source: TokenSource, refused: str = "") -> str:
    return asyncio.run(from_source.token(refused))


def trouble(from_source: TokenSource, refused: str = "") -> str:
    with pytest.raises(TokenTrouble) as caught:
        token(from_source, refused)
    return caught.value.text


# Grants.


def test_client_credentials_with_a_secret(bench: Bench) -> None:
    assert token(bench.source()) in bench.server.access
    [form] = bench.server.forms
    assert form == {
        "grant_type": "client_credentials", "client_id": "app", "client_secret": SECRET, "scope": "mail",
    }  # fmt: skip


def certificate() -> tuple[str, Any]:
    """PEM of a certificate and its RSA key, and the public key."""
    leaf = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("app.example", key_type=trustme.KeyType.RSA)
    private = leaf.private_key_pem.bytes()
    key = load_pem_private_key(private, None).public_key()
    return leaf.cert_chain_pems[0].bytes().decode() + private.decode(), key


@pytest.mark.parametrize("algorithm", ["PS256", "RS256"])
def test_client_credentials_with_a_certificate(bench: Bench, algorithm: str) -> None:
    pem, bench.server.key = certificate()
    assert token(bench.source(grant="clientCredentials", certificate=pem, algorithm=algorithm))
    [form] = bench.server.forms
    assert "client_secret" not in form
    assert bench.server.header["alg"] == algorithm
    assert len(bench.server.header["x5t#S256"]) == 43
    assert (bench.server.claims["iss"], bench.server.claims["sub"]) == ("app", "app")


def test_a_service_account_acts_for_the_mailbox(bench: Bench) -> None:
    pem, bench.server.key = certificate()
    private = pem[pem.index("-----BEGIN", 20) :]
    key_file = {"client_email": "svc@project.example", "private_key": private, "private_key_id": "k1"}
    assert token(bench.source(grant="serviceAccount", serviceAccount=json.dumps(key_file)))
    assert {"iss": "svc@project.example", "sub": USER, "scope": "mail"}.items() <= bench.server.claims.items()
    assert bench.server.header == {"alg": "RS256", "typ": "JWT", "kid": "k1"}


def test_a_refresh_token_that_is_replaced_is_kept_and_used_from_then_on(bench: Bench) -> None:
    first = bench.server.new_refresh_token()
    keys = {"grant": "refreshToken", "refreshToken": first, "clientSecret": SECRET}
    for turn in range(3):
        bench.ahead = 4000.0 * turn
        assert token(bench.source(**keys)) in bench.server.access
        assert bench.kept.refresh == bench.server.refresh[-1]
    assert len({form["refresh_token"] for form in bench.server.forms}) == 3


@pytest.mark.parametrize(
    ("days", "replaced", "told"), [(0, True, False), (7, True, False), (7, False, True), (90, True, True)]
)
def test_the_end_of_a_refresh_token_is_kept_where_its_server_says_it(
    bench: Bench, days: float, *, replaced: bool, told: bool
) -> None:
    """One that lasts for days and is replaced at each use ends only where no mail is sent."""
    keys = {"grant": "refreshToken", "refreshToken": bench.server.new_refresh_token(), "clientSecret": SECRET}
    for turn in range(3):
        bench.ahead = 4000.0 * turn
        answer = {"access_token": f"a-{turn}", "expires_in": 3600, "refresh_token_expires_in": days * 86_400}
        bench.server.script = [(200, answer | ({"refresh_token": f"r-{turn}"} if replaced else {}))]
        token(bench.source(**keys))
    [ending] = token_store.endings(bench.spool).values()
    assert bool(ending.refresh) is told
    if told:
        assert abs(ending.refresh - bench.clock() - days * 86_400) < 1000
        bench.server.script = [(200, {"access_token": "a", "expires_in": 3600})]
        bench.ahead += 4000.0
        token(bench.source(**keys))
        [later] = token_store.endings(bench.spool).values()
        assert later.refresh == ending.refresh, "what is not said again stays"


@pytest.mark.parametrize(("preset", "told"), [("microsoft365", True), ("google", False)])
def test_microsoft_ends_a_refresh_token_that_is_not_used_for_90_days(
    bench: Bench, preset: str, *, told: bool
) -> None:
    first = bench.server.new_refresh_token()
    keys = {"grant": "refreshToken", "refreshToken": first, "clientSecret": SECRET, "preset": preset}
    for turn in range(2):
        bench.ahead = 4000.0 * turn
        token(bench.source(**keys))
    [ending] = token_store.endings(bench.spool).values()
    assert (bool(ending.refresh), ending.put_off) == (told, True)
    if told:
        assert abs(ending.refresh - bench.clock() - 90 * 86_400) < 1000


def test_another_refresh_token_in_the_configuration_counts_more_than_the_one_that_is_kept(
    bench: Bench,
) -> None:
    first = bench.server.new_refresh_token()
    token(bench.source(grant="refreshToken", refreshToken=first, clientSecret=SECRET))
    second = bench.server.new_refresh_token()
    token(bench.source(grant="refreshToken", refreshToken=second, clientSecret=SECRET))
    assert bench.server.forms[-1]["refresh_token"] == second


# Kept.


def test_a_token_is_requested_once_and_stored_for_its_owner_alone(bench: Bench) -> None:
    first = token(bench.source())
    assert token(bench.source()) == first
    assert bench.server.asked() == 1
    files = [path for path in (bench.directory / "spool" / "state").iterdir() if "token" in path.name]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert len(files) == 2  # and its lock
    assert first not in repr(bench.kept)


@pytest.mark.parametrize(
    ("lasts", "age", "renewed"),
    [(3600, 2990, False), (3600, 3010, True), (3600, 3700, True), (100, 45, False), (100, 55, True)],
)
def test_a_token_is_renewed_before_it_ends(bench: Bench, lasts: float, age: float, *, renewed: bool) -> None:
    bench.server.lasts = lasts
    first = token(bench.source())
    bench.ahead = age
    assert (token(bench.source()) != first) is renewed


@pytest.mark.parametrize("written", ["3600", "soon", None, -1, True, 1e300, []])
def test_a_lifetime_in_any_form_is_no_trouble(bench: Bench, written: object) -> None:
    answer = {"access_token": "a-token", "token_type": "bearer", "expires_in": written}
    bench.server.script = [(200, answer)]
    assert token(bench.source()) == "a-token"
    assert bench.kept.ends - bench.kept.obtained == (3600 if written == "3600" else 600)


def test_a_clock_that_was_set_back_makes_no_token_eternal(bench: Bench) -> None:
    bench.ahead = 10 * 86_400
    first = token(bench.source())
    bench.ahead = 0
    assert token(bench.source()) != first


def test_a_token_server_that_is_down_does_not_invalidate_a_valid_token(bench: Bench) -> None:
    first = token(bench.source())
    bench.server.script = [(503, {})]
    bench.ahead = 3300
    assert token(bench.source()) == first
    assert bench.kept.failure
    asked = bench.server.asked()
    bench.ahead += source.WAIT - 1
    assert token(bench.source()) == first
    assert bench.server.asked() == asked, "it was asked again at once"
    bench.ahead = 3601
    assert "answered 503" in trouble(bench.source())
    bench.server.script = []
    bench.ahead += source.PAUSE
    assert token(bench.source()) != first
    assert not bench.kept.failure


def test_a_token_that_is_refused_is_exchanged_unless_it_is_new(bench: Bench) -> None:
    first = token(bench.source())
    assert token(bench.source(), refused=first) == first
    bench.ahead = source.YOUNG
    second = token(bench.source(), refused=first)
    assert second != first
    assert token(bench.source(), refused=first) == second, "another runner asks with the old one"
    assert bench.server.asked() == 2


def test_a_refused_token_is_not_used_when_there_is_no_other(bench: Bench) -> None:
    first = token(bench.source())
    bench.server.script = [(400, {"error": "invalid_grant"})]
    bench.ahead = source.YOUNG
    assert "invalid_grant" in trouble(bench.source(), refused=first)
    assert bench.kept.access == first


@pytest.mark.parametrize("damage", [b"", b"\0" * 50, b"[]", b'{"ends": "x"}', b"{" * 9999, b'{"ends": -1}'])
def test_a_damaged_token_file_counts_as_missing(bench: Bench, damage: bytes) -> None:
    token(bench.source())
    [file] = (bench.directory / "spool" / "state").glob("token-*.json")
    file.write_bytes(damage)
    assert token(bench.source()) in bench.server.access


def test_a_damaged_token_file_is_kept_because_its_refresh_token_may_be_legible(bench: Bench) -> None:
    """A refresh token may be legible in it, and is the only way back."""
    keys = {"grant": "deviceCode", "deviceUrl": bench.server.device_url}
    asyncio.run(bench.source(**keys).keep(Granted("a", 3600.0, "the-only-way-back")))
    [file] = (bench.directory / "spool" / "state").glob("token-*.json")
    damage = file.read_bytes()[:-3]
    file.write_bytes(damage)
    aside = file.with_name(f"{file.name}.damaged")
    for _ in range(2):
        text = trouble(bench.source(**keys))
        assert "no login is stored" in text
        assert str(aside) in text
        assert aside.read_bytes() == damage
        bench.ahead += source.PAUSE
    # The operator puts it right, or logs in again.
    aside.rename(file)
    file.write_bytes(damage + b"\n}\n")
    assert asyncio.run(bench.source(**keys).kept()).refresh == "the-only-way-back"
    file.write_bytes(damage)
    asyncio.run(bench.source(**keys).keep(Granted("b", 3600.0, "another")))
    assert aside.read_bytes() == damage
    assert token(bench.source(**keys)) == "b"
    assert asyncio.run(bench.source(**keys).forget())
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


def test_a_token_file_that_cannot_be_read_is_not_overwritten(bench: Bench) -> None:
    first, keys = rotating(bench)
    made = token(first)
    [file] = (bench.directory / "spool" / "state").glob("token-*.json")
    kept = file.read_bytes()
    asked = bench.server.asked()
    asker = bench.source(**keys)
    with unreadable(file):
        for _ in range(2):
            with pytest.raises(TokenTrouble) as caught:
                token(asker)
            assert (caught.value.temporary, caught.value.local) == (True, True)
            assert f"chown --reference={file.parent} {file}" in caught.value.text
            with pytest.raises(TokenTrouble):
                asyncio.run(asker.renew())
            with pytest.raises(OSError, match="denied"):
                token_store.write(bench.spool, bench.auth(**keys).record(ACCOUNT), Tokens())
        assert token_store.endings(bench.spool) == {}
    assert file.read_bytes() == kept
    assert bench.server.asked() == asked
    assert token(asker) == made
    with unreadable(file):
        asyncio.run(asker.keep(Granted("by-login", 3600.0, "another")))
        assert token(asker) == "by-login"
    assert file.with_name(f"{file.name}.damaged").read_bytes() == kept


def test_tokens_are_stored_later_and_none_is_requested_on_a_full_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = Spool.free_space
    monkeypatch.setattr(Spool, "free_space", lambda _: FreeSpace(token_store.ROOM - 1, None))
    assert "disk is full" in trouble(bench.source())
    assert bench.server.asked() == 0
    monkeypatch.setattr(Spool, "free_space", free)
    asker = bench.source()
    state = bench.directory / "spool" / "state"
    [lock] = state.glob("token-*.lock")
    (state / f"{lock.stem}.json").unlink(missing_ok=True)
    blocked = state / f".{lock.stem}.json.{os.getpid()}"
    blocked.mkdir()
    assert "cannot be stored" in trouble(asker)
    blocked.rmdir()
    made = token(asker)
    assert made in bench.server.access


def test_a_refresh_token_that_could_not_be_written_is_written_later(bench: Bench) -> None:
    """It may be the only way back: a server that rotates takes the last one no more."""
    keys = {"grant": "refreshToken", "refreshToken": bench.server.new_refresh_token(), "clientSecret": SECRET}
    asker = bench.source(**keys)
    token(asker)
    before = bench.kept
    [file] = (bench.directory / "spool" / "state").glob("token-*.json")
    in_the_way = file.with_name(f".{file.name}.{os.getpid()}")
    in_the_way.mkdir()
    bench.ahead = 4000.0
    assert "cannot be stored" in trouble(asker)
    assert bench.kept == before
    in_the_way.rmdir()
    assert token(asker) in bench.server.access
    assert bench.kept.refresh == bench.server.refresh[-1] != before.refresh


def rotating(bench: Bench) -> tuple[TokenSource, dict[str, str]]:
    """A runner, and its configuration; the server takes no refresh token that it has replaced."""
    keys = {"grant": "refreshToken", "refreshToken": bench.server.new_refresh_token(), "clientSecret": SECRET}
    return bench.source(**keys), keys


@contextmanager
def disk_full(bench: Bench) -> Iterator[None]:
    """Nothing can be written for the account."""
    name = hashlib.sha256(bench.auth(grant="refreshToken", refreshToken="-").record(ACCOUNT).encode())
    in_the_way = bench.directory / "spool" / "state" / f".token-{name.hexdigest()[:20]}.json.{os.getpid()}"
    in_the_way.mkdir()
    yield
    in_the_way.rmdir()


def test_a_failure_that_could_not_be_noted_replaces_no_newer_refresh_token(bench: Bench) -> None:
    """Another runner may have renewed it, or somebody logged in, before the disk takes anything again."""
    first, keys = rotating(bench)
    token(first)
    bench.ahead = 4000.0
    bench.server.script = [(503, {})]
    with disk_full(bench):
        assert "answered 503" in trouble(first)
    bench.server.script = []
    bench.ahead += source.PAUSE
    made = token(bench.source(**keys))
    kept = bench.kept
    assert token(first) == made
    assert bench.kept == kept
    del bench.server.refresh[:-1]
    bench.ahead += 4000.0
    assert token(first) in bench.server.access


@pytest.mark.parametrize("had", [True, False])
def test_a_new_refresh_token_that_could_not_be_written_outlives_what_others_meet_with_the_old_one(
    bench: Bench, *, had: bool
) -> None:
    first, keys = rotating(bench)
    if had:
        token(first)
        bench.ahead = 4000.0
    with disk_full(bench):
        assert "cannot be stored" in trouble(first)
    del bench.server.refresh[:-1]
    bench.ahead += source.PAUSE
    assert "invalid_grant" in trouble(bench.source(**keys))
    assert bench.kept.failure
    assert token(first) in bench.server.access
    assert bench.kept.refresh == bench.server.refresh[-1]
    assert not bench.kept.failure
    bench.ahead += 4000.0
    assert token(bench.source(**keys)) in bench.server.access


def test_a_refresh_token_that_could_not_be_written_replaces_no_login_that_was_made_since(
    bench: Bench,
) -> None:
    first, keys = rotating(bench)
    token(first)
    bench.ahead = 4000.0
    with disk_full(bench):
        assert "cannot be stored" in trouble(first)
    login = Granted("by-login", 3600.0, bench.server.new_refresh_token())
    asyncio.run(bench.source(**keys).keep(login))
    assert token(first) == "by-login"
    assert bench.kept.refresh == login.refresh


def test_a_directory_that_could_not_be_synced_is_synced_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was replaced: it is durable before the token is used, and nobody is asked for another."""
    first, _ = rotating(bench)
    token(first)
    bench.ahead = 4000.0
    sync, synced = Spool.sync_directory, list[str]()

    def fails(_: Spool, name: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), name)

    def counts(spool: Spool, name: str) -> None:
        sync(spool, name)
        synced.append(name)

    monkeypatch.setattr(Spool, "sync_directory", fails)
    assert "cannot be stored" in trouble(first)
    asked = bench.server.asked()
    monkeypatch.setattr(Spool, "sync_directory", counts)
    assert token(first) in bench.server.access
    assert synced == ["state"]
    assert bench.server.asked() == asked


def test_a_mistake_in_the_configuration_that_is_undone_costs_no_login(bench: Bench) -> None:
    first, keys = rotating(bench)
    token(first)
    del bench.server.refresh[:-1]
    wrong = bench.source(**keys | {"refreshToken": "mistyped"})
    for _ in range(2):
        assert "invalid_grant" in trouble(wrong)
    assert bench.server.asked() == 2, "it was asked again at once"
    bench.ahead = 4000.0
    assert token(bench.source(**keys)) in bench.server.access


def test_a_failure_that_only_a_person_can_fix_is_remembered_for_all_programs(bench: Bench) -> None:
    bench.server.script = [(401, {"error": "invalid_client"})]
    for _ in range(2):
        with pytest.raises(TokenTrouble, match="invalid_client") as caught:
            token(bench.source())
        assert not caught.value.temporary
    assert bench.server.asked() == 1


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


def test_what_a_netrc_has_for_the_server_is_not_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = bench.directory / "netrc"
    netrc.write_text("default login somebody password word\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    token(bench.source())
    assert "Authorization" not in bench.server.headers[-1]


def test_a_program_stopped_during_a_request_does_not_block_programs_that_have_a_token(bench: Bench) -> None:
    first = token(bench.source())
    bench.ahead = 3300
    with token_store.locked(bench.spool, bench.auth(**USUAL).record(ACCOUNT)) as mine:
        assert mine
        assert token(bench.source()) == first
    assert token(bench.source()) != first


def test_two_logins_to_one_account_are_kept_apart(bench: Bench) -> None:
    refresh = bench.server.new_refresh_token()
    ways: list[dict[str, Any]] = [
        USUAL,
        {"grant": "refreshToken", "refreshToken": refresh, "clientSecret": SECRET},
    ]
    first = [token(bench.source(**keys)) for keys in ways]
    assert [token(bench.source(**keys)) for keys in ways] == first
    assert bench.server.asked() == 2


# Trouble.


def refusal(error: str, description: str) -> tuple[int, dict[str, str]]:
    return 400, {"error": error, "error_description": description}


@pytest.mark.parametrize(
    ("answer", "cause", "words"),
    [
        (refusal("invalid_grant", "AADSTS700082: The refresh token"), "refreshTokenUnused", "AADSTS700082"),
        (refusal("invalid_grant", "AADSTS70043: expired due to sign-in"), "conditionalAccess", "AADSTS70043"),
        (refusal("invalid_client", "AADSTS7000215: Invalid secret"), "clientSecretWrong", "AADSTS7000215"),
        (refusal("invalid_client", "AADSTS7000222: keys expired"), "clientSecretExpired", "AADSTS7000222"),
        ((400, {"error": "invalid_grant"}), "invalidGrant", "invalid_grant"),
        ((401, {"error": "invalid_client"}), "invalidClient", "invalid_client"),
        ((400, {"error": "invalid_scope"}), "invalidScope", "invalid_scope"),
        ((400, {"error": "unauthorized_client"}), "consentMissing", "unauthorized_client"),
        ((503, {}), "tokenServerDown", "503"),
        (REDIRECT, "noToken", "redirects to elsewhere.example"),
        (b"<html>", "noToken", "without a token"),
        (b"[1]", "noToken", "without a token"),
        (b"{" * 100_000, "noToken", "without a token"),
        (b'{"access_token": "' + b"x" * 300_000, "noToken", "larger than"),
        ((200, {"access_token": "a\r\nb"}), "noToken", "its token is too long for SMTP"),
        ((200, {"access_token": "x" * 20_000}), "noToken", "its token is too long for SMTP"),
        ((200, {"access_token": "x", "token_type": "mac"}), "noToken", "not a bearer token"),
        ((200, {"access_token": 5}), "noToken", "without a token"),
        (refusal("invalid_client", f"not {SECRET}\ntrace"), "invalidClient", "not ***"),
        (refusal("invalid_client", f"not {SECRET[:16]}..., but"), "invalidClient", "not *** but"),
    ],
)  # fmt: skip
def test_what_a_server_answers_names_its_cause(bench: Bench, answer: Any, cause: str, words: str) -> None:
    bench.server.script = [answer]
    text = trouble(bench.source())
    found = cause_of(text)
    assert found is not None
    assert found.name == cause
    assert words in text
    assert SECRET not in text + bench.kept.failure
    assert "trace" not in text
    assert text.isprintable()


@pytest.mark.parametrize("encoded", [str, quote_plus, lambda text: quote_plus(quote_plus(text)), json.dumps])
def test_a_server_that_quotes_the_request_reveals_no_secret(
    bench: Bench, encoded: Callable[[str], str]
) -> None:
    """Google's refresh tokens begin with `1//`, and secrets in base64 have `+`, `/` and `=`."""
    secret, refresh = "S3cr/et+va lue=99", "1//0gAbCdEf-GhIjKl/MnOpQrStUvWxYz_0123"
    form = f"client_id=app&client_secret={encoded(secret)}&refresh_token={encoded(refresh)}"
    for error in ({"error": form}, {"error": "invalid_client", "error_description": f"not this: {form}"}):
        bench.server.script = [(400, error)]
        bench.ahead += source.PAUSE
        text = trouble(bench.source(grant="refreshToken", refreshToken=refresh, clientSecret=secret))
        assert "client_id=app&client_secret=" in text
        assert "***" in text
        for part in ("S3cr", "lue", "0gAb", "0123"):
            assert part not in text
            assert part not in bench.kept.failure


def test_a_clock_that_is_wrong_is_named(bench: Bench) -> None:
    pem, bench.server.key = certificate()
    bench.server.skew = 7200
    keys = {"grant": "clientCredentials", "certificate": pem}
    text = trouble(bench.source(**keys))
    assert "clock is " in text
    assert "behind theirs" in text
    found = cause_of(text)
    assert found is not None
    assert found.name == "clockSkew"
    clearer = cause_of(f"no access token from x: AADSTS700027: no certificate{text[text.index(';') :]}")
    assert clearer is not None
    assert clearer.name == "certificateUnknown"


def test_a_server_that_is_not_reached_not_found_or_not_trusted_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(url: str) -> str:
        found = cause_of(trouble(bench.source(grant="clientCredentials", clientSecret=SECRET, tokenUrl=url)))
        assert found is not None
        return found.name

    assert name(f"https://localhost:{free_port()}/token") == "tokenServerDown"
    assert name("https://nowhere.invalid/token") == "dns"
    monkeypatch.delenv("SSL_CERT_FILE")
    assert name(bench.server.url) == "untrustedCertificate"
    assert bench.server.forms == []


def test_what_this_program_lacks_is_no_failure_of_the_server(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program, or this one a moment later, has a descriptor for the request."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def ask() -> None:
        with monkeypatch.context() as without_descriptors:
            without_descriptors.setattr(socket, "socket", full)
            await bench.source().token()

    with pytest.raises(TokenTrouble, match="Too many open files") as caught:
        asyncio.run(ask())
    assert caught.value.local
    assert bench.kept == Tokens()
    assert token(bench.source()) in bench.server.access


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_silent_server_is_given_up_after_the_time_limit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mailer.oauth import post  # noqa: PLC0415 - what a run imports late

    monkeypatch.setattr(post, "TIMEOUT", 0.2)
    bench.server.script = [HANG]
    assert "not answered in time" in trouble(bench.source())
    gc.collect()  # TLS would wait for that server's own end of it, and the loop has ended before


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"grant": "clientCredentials", "clientSecret": {"env": "NOT_SET"}},
            "auth.clientSecret: environment",
        ),
        ({"grant": "clientCredentials", "certificate": "none"}, "auth.certificate: it has no certificate"),
        (
            {"grant": "serviceAccount", "serviceAccount": "{}"},
            "auth.serviceAccount: it is not a service account",
        ),
        ({"grant": "deviceCode", "deviceUrl": "https://x.example/"}, "no login is stored"),
    ],
)
def test_missing_settings_are_named_without_a_request(bench: Bench, keys: dict[str, Any], words: str) -> None:
    assert words in trouble(bench.source(**keys))
    assert bench.server.forms == []


def test_each_cause_says_what_to_do_in_words_that_can_be_typed() -> None:
    for cause in CAUSES:
        text = cause.advice("primary")
        assert text.endswith("."), cause.name
        assert "{" not in text


# Many programs.


def askers(bench: Bench, auth: OAuth2, *arguments: str) -> subprocess.Popen[str]:
    """Start a program that asks as `arguments` say, in processes of its own."""
    plain = {"spool": str(bench.directory / "spool"), "config": str(bench.directory / "config.json")}
    assert auth.token_url == bench.server.url
    return subprocess.Popen(
        module_command("outbound.token_askers", json.dumps(plain), *arguments),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_64_programs_make_one_request(bench: Bench) -> None:
    auth = bench.auth(grant="clientCredentials", clientSecret=SECRET)
    with askers(bench, auth, "64") as process:
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    lines = out.split()
    assert len(lines) == 64
    assert set(lines) == bench.server.access
    assert bench.server.asked() == 1


def test_a_program_that_is_killed_while_it_renews_loses_no_login(bench: Bench) -> None:
    """Whenever it dies, the refresh token that is kept is one that the server still takes."""
    first = bench.server.new_refresh_token()
    keys = {"grant": "refreshToken", "refreshToken": first, "clientSecret": SECRET}
    auth = bench.auth(**keys)
    for turn in range(5):
        so_far = bench.server.asked()
        with askers(bench, auth, "renew") as process:
            until(lambda so_far=so_far, turn=turn: bench.server.asked() > so_far + turn, "another request")
            process.send_signal(signal.SIGKILL)
        bench.ahead += source.YOUNG
        kept = bench.kept.access
        assert token(bench.source(**keys), refused=kept) in bench.server.access
    assert bench.server.asked() > 5


def test_nothing_prints_a_secret(bench: Bench) -> None:
    auth = bench.auth(grant="refreshToken", refreshToken="r-e-f-r-e-s-h", clientSecret=SECRET)
    asker = bench.source()
    token(asker)
    shown = repr(auth) + str(auth) + repr(asker._credentials) + repr(bench.kept)
    assert SECRET not in shown
    assert "r-e-f-r-e-s-h" not in shown
    assert bench.kept.access not in shown
