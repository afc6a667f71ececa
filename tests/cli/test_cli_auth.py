"""`mailer auth`: a login by device code, and what is shown of tokens without showing one."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from outbound.hostile import Server
from outbound.sending import forward_to, found, queue
from testbed.relay import Relay
from testbed.token_server import Answer, TokenServer
from testbed.waiting import until

from mailer.config.oauth import Grant, Kind, OAuth2
from mailer.oauth.device import Prompt, begin, wait
from mailer.oauth.grants import Credentials, Granted
from mailer.oauth.trouble import TokenTrouble

USER = "relay@example.com"


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    with TokenServer() as server:
        for name, value in server.trust(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield server


def through(port: int, tokens: TokenServer, **keys: Any) -> dict[str, Any]:
    auth = {
        "type": "oauth2", "grant": "deviceCode", "tokenUrl": tokens.url, "deviceUrl": tokens.device_url,
        "clientId": "app", "scope": "mail offline_access",
    }  # fmt: skip
    cloud = {"host": "127.0.0.1", "port": port, "name": "cloud", "username": USER, "auth": auth | keys}
    plain = {"host": "127.0.0.1", "port": port, "name": "plain"}
    return forward_to(forwardProviders=[cloud, plain])


def test_a_login_by_device_code_sends_mail_until_the_logout(relay: Relay, tokens: TokenServer) -> None:
    with Server(auth="XOAUTH2", bearers=lambda shown: shown in tokens.access) as server:
        settings = through(server.port, tokens)
        del settings["forwardProviders"][1]
        relay.configure(settings)
        waiting = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert "mailer auth login cloud" in relay.mailer("spool", "why", waiting).stdout
        with relay.starting("auth", "login", "cloud") as process:
            until(lambda: "WXYZ-1234" in process.output(), "the code")
            until(lambda: tokens.asked("device_code"), "a request before the user has agreed")
            tokens.device_codes = dict.fromkeys(tokens.device_codes, True)
            assert process.wait() == 0
            said = process.output()
        assert "https://login.example/device" in said
        assert "logged in" in said
        relay.mailer("spool", "retry", "--all")
        assert relay.mailer_send("--once").returncode == 0
        assert len(server.delivered()) == 1

        [row] = map(json.loads, relay.mailer("auth", "status", "--json").stdout.splitlines())
        assert (row["name"], row["usable"], row["refreshToken"], row["failure"]) == ("cloud", True, True, "")
        tried = relay.mailer("auth", "test", "cloud")
        assert tried.returncode == 0, tried.stdout
        assert "login" in tried.stdout
        status = relay.mailer("auth", "status").stdout
        assert relay.mailer("auth", "logout", "cloud").stdout == "cloud: its tokens were deleted\n"
        assert "no tokens" in relay.mailer("auth", "logout", "cloud").stdout
        again = relay.mailer("auth", "test", "cloud")
        assert again.returncode == 1
        assert "mailer auth login cloud" in again.stdout
    secrets = {*tokens.access, *tokens.refresh, *tokens.device_codes}
    assert not any(secret in said + status + tried.stdout + again.stdout for secret in secrets)
    assert found(relay.spool, waiting) is None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("login", "nobody"), 66, "those with tokens: cloud"),
        (("test", "plain"), 78, "not of type oauth2"),
        (("login", "cloud"), 78, "needs no user; try it with mailer auth test cloud"),
        (("logout",), 2, "PROVIDER"),
    ],
)
def test_what_is_no_login_is_said_in_a_sentence(
    relay: Relay, tokens: TokenServer, arguments: tuple[str, ...], code: int, words: str
) -> None:
    relay.configure(through(9, tokens, grant="clientCredentials", clientSecret="s3cret"))
    queue(relay.spool)
    done = relay.mailer("auth", *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_each_of_two_mailboxes_at_one_host_can_be_named_as_it_is_shown(
    relay: Relay, tokens: TokenServer
) -> None:
    """Neither has a `name`: the second is `HOST #2` wherever a provider is shown or named, or its login."""
    settings = through(9, tokens, grant="clientCredentials", clientSecret="s3cret")
    first = settings["forwardProviders"][0] | {"name": ""}
    second = first | {"username": "second@example.com"}
    rule = {"sender": "app@example.com", "provider": "127.0.0.1 #2"}
    relay.configure(settings | {"forwardProviders": [first, second], "routes": [rule]})
    waiting = queue(relay.spool)

    def done(*arguments: str) -> tuple[int, str]:
        one = relay.mailer(*arguments)
        return one.returncode, one.stdout + one.stderr

    none = "no tokens were stored\n"
    assert done("auth", "logout", "127.0.0.1 #2") == (0, f"127.0.0.1 #2: {none}")
    assert done("auth", "logout", "second@example.com@127.0.0.1") == (0, f"127.0.0.1 #2: {none}")
    assert done("auth", "logout", "127.0.0.1") == (0, f"127.0.0.1: {none}")
    code, said = done("auth", "login", "127.0.0.1 #2")
    assert (code, "mailer auth test '127.0.0.1 #2'" in said) == (78, True), said
    code, said = done("auth", "test", "127.0.0.1:9")
    assert (code, "several providers: 127.0.0.1, 127.0.0.1 #2" in said) == (2, True), said
    code, said = done("auth", "test", "127.0.0.1 #2")
    assert (code, "127.0.0.1 #2" in said) == (1, True), said
    rows = [json.loads(line)["name"] for line in done("auth", "status", "--json")[1].splitlines()]
    shown = [json.loads(line)["name"] for line in done("providers", "--json")[1].splitlines()]
    assert rows == shown == ["127.0.0.1", "127.0.0.1 #2"]
    well = ": as if there had been no trouble\n"
    assert done("providers", "reset", "127.0.0.1 #2") == (0, f"127.0.0.1 #2{well}")
    assert done("providers", "reset", "127.0.0.1:9") == (0, f"127.0.0.1{well}127.0.0.1 #2{well}")
    assert done("providers", "reset", "127.0.0.1 #3")[0] == 66
    code, said = done("route", "--from", "app@example.com", "--to", "bob@example.net")
    assert (code, "127.0.0.1 #2" in said) == (0, True), said
    assert found(relay.spool, waiting) is not None


# The device grant, with no time passing.


def credentials(tokens: TokenServer) -> Credentials:
    auth = OAuth2(
        type=Kind.OAUTH2,
        grant=Grant.DEVICE_CODE,
        token_url=tokens.url,
        device_url=tokens.device_url,
        client_id="app",
        scope="mail",
    )
    return Credentials(auth, USER, {})


def login(tokens: TokenServer, on_pause: Callable[[int], None]) -> tuple[Granted | None, list[float]]:
    """Log in; `on_pause` is called in each pause with its number."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        on_pause(len(pauses))

    async def run() -> Granted | None:
        prompt = await begin(credentials(tokens), 0)
        return [made async for made in wait(credentials(tokens), prompt, lambda: 0, sleep)][-1]

    return asyncio.run(run()), pauses


def agree_at(tokens: TokenServer, turn: int) -> Callable[[int], None]:
    def agree(number: int) -> None:
        if number >= turn:
            tokens.device_codes = dict.fromkeys(tokens.device_codes, True)

    return agree


def test_the_user_may_take_time(tokens: TokenServer) -> None:
    made, pauses = login(tokens, agree_at(tokens, 4))
    assert made is not None
    assert made.access in tokens.access
    assert made.refresh in tokens.refresh
    assert len(pauses) == 4


SLOW = (400, {"error": "slow_down"})


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([(400, {"error": "access_denied"})], "the user has refused"),
        ([(400, {"error": "authorization_declined"})], "the user has refused"),
        ([(400, {"error": "expired_token"})], "the code has expired"),
        ([(200, {"access_token": "a", "token_type": "Bearer"})], "offline_access"),
        ([(503, {})], "answered 503"),
    ],
)
def test_a_login_that_comes_to_nothing_says_why(
    tokens: TokenServer, script: list[Answer], words: str
) -> None:
    with pytest.raises(TokenTrouble) as caught:
        login(tokens, lambda _: setattr(tokens, "script", script))
    assert words in caught.value.text


def test_a_server_that_wants_fewer_requests_gets_fewer(tokens: TokenServer) -> None:
    def slow(number: int) -> None:
        tokens.script = [SLOW] if number < 3 else []
        agree_at(tokens, 3)(number)

    _, pauses = login(tokens, slow)
    assert pauses == [0, 5, 10]


def test_a_login_is_waited_for_no_longer_than_its_code_is_valid(tokens: TokenServer) -> None:
    prompt = Prompt("C", "https://x.example", 30, "none", 7)
    tokens.device_codes["none"] = False

    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> list[Granted | None]:
        return [made async for made in wait(credentials(tokens), prompt, lambda: 0, sleep)]

    with pytest.raises(TokenTrouble, match="in time"):
        asyncio.run(run())
    assert pauses == [7] * 5


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((400, {"error": "unauthorized_client"}), "unauthorized_client"),
        ((200, {"device_code": "d", "user_code": "C"}), "without a token or a reason"),
        ((200, {"device_code": "d", "user_code": "C", "verification_uri": "http://x/"}), "without https"),
    ],
)
def test_a_login_that_cannot_begin_says_why(tokens: TokenServer, answer: Answer, words: str) -> None:
    tokens.script = [answer]
    with pytest.raises(TokenTrouble) as caught:
        login(tokens, lambda _: None)
    assert words in caught.value.text
