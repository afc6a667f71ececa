"""XOAUTH2 and OAUTHBEARER: what is said to whom, and that a refused token is the provider's trouble."""

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from outbound.hostile import Server
from outbound.sending import forward_to, found, outcomes, queue
from testbed.http_client import ask
from testbed.relay import Relay
from testbed.token_server import TokenServer

from mailer.mail.login_causes import cause_of
from mailer.mail.outcome import Scope
from mailer.send.phase import Timeouts
from mailer.send.routes import breaker
from mailer.send.routes.breaker import Ailment
from mailer.send.smtp.client import Session
from mailer.send.smtp.concealment import Concealment
from mailer.send.smtp.events import Answered
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.login import TokenRefused
from mailer.send.smtp.machine import Dialogue
from mailer.send.smtp.sasl import OAuthBearer, XOAuth2, bearers
from mailer.send.trouble import HopTrouble
from mailer.spool.state.provider_state import ProviderState

USER, TOKEN = "relay@example.com", "ya29.a-token~of.some+length/that=="
SECRET = "s3cret~of-the.application"


class Fixed:
    """Gives these tokens in turn; the last one stays."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.refused: list[str] = []

    async def token(self, refused: str = "") -> str:
        if refused:
            self.refused.append(refused)
            if len(self.tokens) > 1:
                del self.tokens[0]
        return self.tokens[0]


def log_in(server: Server, source: Fixed, mechanism: str = "") -> Session:
    hop = Hop("127.0.0.1", server.port, username=USER, tokens=source, auth=mechanism)

    async def run() -> Session:
        session = await Session.open(hop, Timeouts())
        await session.close()
        return session

    return asyncio.run(run())


def refused(server: Server, source: Fixed) -> HopTrouble:
    with pytest.raises(HopTrouble) as caught:
        log_in(server, source)
    assert caught.value.scope is Scope.PROVIDER
    return caught.value


@pytest.mark.parametrize("token", [TOKEN, "x" * 300, "x" * 500, "x" * 12_000])
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_token_of_any_length_logs_in(mechanism: str, token: str) -> None:
    """RFC 4954 4: a command has 512 octets; a longer message waits for the server's empty challenge."""
    with Server(auth=f"PLAIN LOGIN {mechanism}", bearers=lambda shown: shown == token) as server:
        log_in(server, Fixed(token))
    commands = server.sessions[0].commands
    auth = next(line for line in commands if line.startswith(b"AUTH"))
    assert len(auth) <= 510
    assert (auth == b"AUTH " + mechanism.encode()) is (len(token) > 340)
    assert not any(line.startswith((b"AUTH PLAIN", b"AUTH LOGIN")) for line in commands)


@pytest.mark.parametrize(
    ("offered", "named", "expected"),
    [
        ("LOGIN XOAUTH2", "", ["XOAUTH2"]),
        ("OAUTHBEARER XOAUTH2", "", ["XOAUTH2", "OAUTHBEARER"]),
        ("OAUTHBEARER XOAUTH2", "OAUTHBEARER", ["OAUTHBEARER"]),
        ("PLAIN LOGIN CRAM-MD5", "", []),
        ("XOAUTH2", "OAUTHBEARER", []),
    ],
)
def test_which_mechanisms_are_tried(offered: str, named: str, expected: list[str]) -> None:
    usable = bearers(offered.split(), USER, TOKEN, ("smtp.example.com", 587), named)
    assert [one.name for one in usable] == expected


def test_the_messages_are_those_of_the_specifications() -> None:
    """RFC 7628 4.1, and Google's "SASL XOAUTH2 mechanism"."""
    xoauth2 = XOAuth2("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
    assert b64encode(xoauth2.initial() or b"") == (
        b"dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRH"
        b"RXVZMjl0Q2cBAQ=="
    )
    bearer = OAuthBearer(
        "user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==", "server.example.com", 587
    )
    assert b64encode(bearer.initial() or b"") == (
        b"bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9NTg3AWF1dGg9QmVhcmVyIHZGOWRmdDRx"
        b"bVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    )
    odd = OAuthBearer("a,b=c", "t", "h", 1).initial()
    assert odd == b"n,a=a=2Cb=3Dc,\1host=h\1port=1\1auth=Bearer t\1\1"


@pytest.mark.parametrize(("mechanism", "answer"), [("XOAUTH2", b""), ("OAUTHBEARER", b"AQ==")])
def test_an_error_as_challenge_is_answered_so_that_the_reply_is_read(mechanism: str, answer: bytes) -> None:
    with Server(auth=mechanism, bearers=lambda _: False) as server:
        trouble = refused(server, Fixed(TOKEN))
    assert isinstance(trouble, TokenRefused)
    assert trouble.text == f"535 5.7.8 no such token ({mechanism}, by access token)"
    commands = server.sessions[0].commands
    assert commands[-1] == answer
    assert len(server.sessions) == 1, "there was no other token to try"


def test_the_machine_answers_no_more_challenges_than_there_are() -> None:
    dialogue = Dialogue()
    dialogue.receive(b"220 x\r\n")
    dialogue.hello("EHLO", "x")
    dialogue.outgoing()
    dialogue.receive(b"250 x\r\n")
    dialogue.auth(XOAuth2(USER, "x" * 600))
    assert dialogue.outgoing() == b"AUTH XOAUTH2\r\n"
    assert dialogue.receive(b"334 \r\n") == []
    assert b64decode(dialogue.outgoing()).startswith(b"user=relay")
    assert dialogue.receive(b"334 eyJzdGF0dXMiOiI0MDAifQ==\r\n") == []
    assert dialogue.outgoing() == b"\r\n"
    [event] = dialogue.receive(b"535 5.7.8 no\r\n")
    assert isinstance(event, Answered)
    assert event.reply.code == 535


def test_a_token_that_is_refused_is_exchanged_once_and_in_a_new_session() -> None:
    with Server(auth="XOAUTH2", bearers=lambda shown: shown == "good") as server:
        source = Fixed("withdrawn", "good")
        log_in(server, source)
        assert source.refused == ["withdrawn"]
    assert len(server.sessions) == 2
    with Server(auth="XOAUTH2", bearers=lambda _: False) as server:
        refused(server, Fixed("one", "two", "three"))
    assert len(server.sessions) == 2, "one more token, and no more than that"


def test_a_reply_for_now_exchanges_nothing() -> None:
    with Server({"auth": "454 4.7.0 temporary"}, auth="XOAUTH2") as server:
        source = Fixed("one", "two")
        trouble = refused(server, source)
    assert trouble.temporary
    assert source.refused == []


def test_a_server_without_either_is_the_providers_trouble_and_no_password_is_sent() -> None:
    with Server(auth="PLAIN LOGIN") as server:
        trouble = refused(server, Fixed(TOKEN))
    assert "XOAUTH2 or OAUTHBEARER is not offered (offered: PLAIN LOGIN)" in trouble.text
    assert b"AUTH" not in server.sessions[0].received


def quotes(token: str) -> Iterator[str]:
    """What a server may make of a token."""
    yield token
    yield token[:20]
    yield b64encode(token.encode()).decode()
    for mechanism in (XOAuth2(USER, token), OAuthBearer(USER, token, "smtp.example.com", 587)):
        whole = b64encode(mechanism.initial() or b"").decode()
        yield whole
        yield whole[:60]


@pytest.mark.parametrize(
    "token", [TOKEN, "eyJ0eXAiOiJKV1QiLCJub25jZSI6." + "x" * 900, "EwBAAl3BAAUFFpUAo7J3Ve0bjLBWZ"]
)
def test_no_reply_shows_a_token_or_a_good_part_of_it(token: str) -> None:
    conceal = Concealment.of_token(USER, token)
    for quoted in quotes(token):
        said = conceal.words(f"535 5.7.8 bad {quoted} there")
        assert said == "535 5.7.8 bad *** there"
    assert conceal.words("535 5.7.3 Authentication unsuccessful") == "535 5.7.3 Authentication unsuccessful"


def test_no_reply_shows_the_token_of_the_session_before() -> None:
    conceal = Concealment.of_token(USER, "a-new-token-that-is-used", TOKEN)
    for token in ("a-new-token-that-is-used", TOKEN):
        assert conceal.words(f"220 hello {token}") == "220 hello ***"


# Real programs.


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    with TokenServer(client_secret=SECRET) as server:
        for name, value in server.trust(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield server


def through(server: Server, tokens: TokenServer, **others: Any) -> dict[str, Any]:
    auth = {
        "type": "oauth2", "grant": "clientCredentials", "tokenUrl": tokens.url, "clientId": "app",
        "clientSecret": SECRET, "scope": "mail", "username": USER, "expires": "2020-02-29",
    }  # fmt: skip
    provider = {"host": "127.0.0.1", "port": server.port, "name": "cloud", "auth": auth}
    return forward_to(forwardProviders=[provider, *others.get("more", [])])


def test_mail_goes_out_with_one_token_for_all_runs_and_with_a_new_one_when_it_is_withdrawn(
    relay: Relay, tokens: TokenServer
) -> None:
    with Server(auth="XOAUTH2", bearers=lambda shown: shown in tokens.access) as server:
        relay.configure(through(server, tokens))
        for _ in range(2):
            queue(relay.spool)
            done = relay.mailer_send("--once")
            assert done.returncode == 0, done.stderr
        assert tokens.asked() == 1
        assert len(server.delivered()) == 2
        tokens.revoke()
        [kept] = (relay.spool / "state").glob("token-*.json")
        older = json.loads(kept.read_text())
        older["obtained"] -= 300
        kept.write_text(json.dumps(older))
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert tokens.asked() == 2
        assert len(server.delivered()) == 3
    seen = "".join(path.read_text(errors="replace") for path in (relay.spool / "log").rglob("*.*"))
    assert not any(token in seen + done.stderr for token in (SECRET, *tokens.access))


def test_without_a_token_the_mail_waits_and_every_view_says_why_and_what_to_do(
    relay: Relay, tokens: TokenServer
) -> None:
    """Nobody is bounced, and no password is tried; the next provider takes what it can."""
    tokens.script = [(401, {"error": "invalid_client", "error_description": "AADSTS7000222: expired"})]
    with Server(auth="XOAUTH2 PLAIN") as server:
        relay.configure(through(server, tokens))
        waiting = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert server.sessions == []
        message = found(relay.spool, waiting)
        assert message is not None
        assert outcomes(message)[-1][0] == "deferred"
        assert message.place == "retry"
        todo = "Make a new client secret"
        shown = relay.mailer("providers").stdout
        assert "the client secret has expired" in shown
        assert todo in shown
        [row] = relay.mailer("providers", "--json").stdout.splitlines()
        assert json.loads(row)["cause"] == "clientSecretExpired"
        assert todo in relay.mailer("spool", "why", waiting).stdout
        assert todo in relay.mailer("doctor").stdout
        with relay.monitor():
            health = ask(relay.http_port, "/health").json["checks"]
        assert "the client secret has expired" in health["providers"]["message"]
        assert todo in health["providers"]["message"]
        assert health["tokens"]["status"] == "degraded"
        assert "cloud: the secret or certificate ended" in health["tokens"]["message"]
        with Server() as second:
            relay.configure(through(server, tokens, more=[{"host": "127.0.0.1", "port": second.port}]))
            relay.mailer("spool", "retry", "--all")
            assert relay.mailer_send("--once").returncode == 0
            assert len(second.delivered()) == 1


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (
            "535 5.7.3 Authentication unsuccessful [X.PROD.OUTLOOK.COM] (XOAUTH2, by access token)",
            "permission",
        ),
        ("535 5.7.3 Authentication unsuccessful [X.PROD.OUTLOOK.COM]", ""),
        (
            "535 5.7.139 no, SmtpClientAuthentication is disabled for the Tenant.",
            "smtpAuthDisabled",
        ),
        (
            "535 5.7.139 no, SmtpClientAuthentication is disabled for the Mailbox.",
            "smtpAuthDisabled",
        ),
        ("535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", "basicLoginRemoved"),
        ("550 5.7.30 Basic authentication is not supported for Client Submission.", "basicLoginRemoved"),
        ("550 5.7.30 This mail has been blocked because DKIM does not pass.", ""),
        ("430 4.2.0 STOREDRV; mailbox logon failure; STOREDRV.Submission.Exception", "mailboxPermission"),
        ("535 5.7.8 Username and Password not accepted (XOAUTH2, by access token)", "tokenRefused"),
        ("AUTH XOAUTH2 or OAUTHBEARER is not offered (offered: PLAIN)", "noMechanism"),
        ("no access token from login.example.com: slow_down: too many connections per session", "noToken"),
        ("no access token from login.example.com: invalid_grant: daily quota exceeded", "invalidGrant"),
        ("535 5.7.8 authentication failed", ""),
        ("Connection refused", ""),
    ],
)
def test_what_a_server_says_of_a_login_names_its_cause(said: str, cause: str) -> None:
    found = cause_of(said)
    assert (found.name if found else "") == cause
    if found:
        state = breaker.failed(ProviderState(), Ailment.of(Scope.PROVIDER, said), datetime.now(UTC))
        assert (state.words, state.open_until is not None) == (found.what, True)


def test_a_mailbox_that_the_application_may_not_open_costs_no_mail(relay: Relay, tokens: TokenServer) -> None:
    """Microsoft takes the login, and says so at the first mail, as something that passes."""
    said = "430 4.2.0 STOREDRV; mailbox logon failure; STOREDRV.Submission.Exception:MapiExceptionLogonFailed"
    with Server({"mail": said}, auth="XOAUTH2") as server:
        relay.configure(through(server, tokens))
        waiting = [queue(relay.spool, (f"bob@{n}.example.net",), sender=f"a@{n}.example") for n in range(2)]
        assert relay.mailer_send("--once").returncode == 0
    places = {message.place for each in waiting if (message := found(relay.spool, each))}
    assert places == {"retry"}
    [row] = relay.mailer("providers", "--json").stdout.splitlines()
    assert (json.loads(row)["cause"], json.loads(row)["health"]) == ("mailboxPermission", "open")
