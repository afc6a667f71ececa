"""No trace has a password, a token, or a part of one, whatever a server quotes."""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from outbound.failed_sessions import PASSWORD, USER, fail, only_trace, said_in, with_login
from outbound.hostile import Server, Session
from outbound.sending import forward_to, queue
from testbed.http_api import HttpApi, mailgun
from testbed.relay import Relay
from testbed.token_server import TokenServer

from mailer.send.smtp.concealment import Concealment
from mailer.send.smtp.conversation import KEPT, Conversation, Kind
from mailer.send.smtp.transcript import Transcript


def quoting(session: Session, _line: bytes) -> bytes:
    """Quote all that the client said, as a whole, and the password in pieces and encodings."""
    heard = b" ".join(session.commands)
    decoded = b" ".join(
        b64decode(word)
        for line in session.commands
        for word in line.split()[-1:]
        if re.fullmatch(rb"(?:[\w+/]{4})+(?:[\w+/]{2}==|[\w+/]{3}=)?", word)
    )
    decoded = decoded.replace(b"\0", b" ").replace(b"\1", b" ")
    half = PASSWORD.encode()[:9], PASSWORD.encode()[9:]
    return b"535-5.7.8 %b\r\n535-%b\r\n535-%b\r\n535 %b\r\n" % (heard, decoded, *half)


@pytest.mark.security_case(141)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("step", ["welcome", "mail", "dot"])
def test_a_login_that_a_server_quotes_is_in_no_file(relay: Relay, mechanism: str, step: str) -> None:
    """Neither in the trace nor in journal, ledger and state: not even CRAM-MD5's answer."""
    with Server({step: quoting, "banner": f"220 {PASSWORD}"}, auth=mechanism) as server:
        fail(relay, server, **with_login(server, mechanism))
    session = server.sessions[0]
    words = [word for line in session.commands for word in line.split()]
    sent = [word for word in words if re.fullmatch(rb"[A-Za-z0-9+/]{20,}={0,2}", word)]
    sent = [word for word in sent if b64decode(word) != USER.encode()]
    assert sent
    secrets = {PASSWORD.encode(), b64encode(PASSWORD.encode())[:16], PASSWORD.encode()[9:], *sent}
    if mechanism == "CRAM-MD5":
        secrets |= {b64decode(word).split()[-1] for word in sent}
        secrets |= {b64encode(b"<1.2@hostile>")}
    kept = {path: path.read_bytes() for path in relay.spool.rglob("*") if path.is_file()}
    assert any(path.parent.name == "traces" and b"***" in data for path, data in kept.items())
    found_in = {str(path): secret for path, data in kept.items() for secret in secrets if secret in data}
    assert found_in == {}
    trace = only_trace(relay)
    assert f"C: AUTH {mechanism}" in trace
    if mechanism != "PLAIN":
        assert "S: 334 ***" in said_in(trace)
        assert "C: ***" in said_in(trace)


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    with TokenServer(client_secret="s3cret~of-the.application") as server:
        for name, value in server.trust(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.security_case(141)
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_token_that_a_server_quotes_is_in_no_trace(
    relay: Relay, tokens: TokenServer, mechanism: str
) -> None:
    auth = {
        "type": "oauth2", "grant": "clientCredentials", "tokenUrl": tokens.url, "clientId": "app",
        "clientSecret": "s3cret~of-the.application", "scope": "mail", "username": USER,
    }  # fmt: skip
    with Server({"refused": quoting}, auth=mechanism, bearers=lambda _: False) as server:
        provider = {"host": "127.0.0.1", "port": server.port, "auth": auth}
        fail(relay, server, forwardProviders=[provider])
    assert tokens.access
    trace = only_trace(relay)
    blobs = [line.split()[2] for session in server.sessions for line in session.commands if b"AUTH" in line]
    assert len(blobs) == len(tokens.access)
    for secret in (*tokens.access, *(blob.decode()[20:] for blob in blobs), "s3cret~of-the.application"):
        assert secret not in trace
    assert f"C: AUTH {mechanism} ***" in said_in(trace)
    assert "S: 334 ***" in said_in(trace)


def test_a_failed_request_over_http_leaves_a_trace(relay: Relay, tokens: TokenServer) -> None:
    del tokens  # Its authority is trusted.
    key = "key-0123456789abcdef"
    with HttpApi(mailgun, bearers=lambda shown: shown == key) as api:
        api.script = [(400, {"message": f"no such user, says {key}"}, {})]
        keys = {"username": "mg.example.com", "password": key}
        provider = {"api": "mailgun", "apiUrl": api.url, "name": "gun", **keys}
        relay.configure(forward_to(forwardProviders=[provider]))
        message = queue(relay.spool)
        relay.mailer_send("--once")
    trace = only_trace(relay)
    assert key not in trace
    assert [line[:8] for line in said_in(trace)] == ["C: POST ", "   TLS: ", "S: HTTP "]
    assert "says ***" in said_in(trace)[2]
    assert f"mailer spool trace {message}" in relay.mailer("spool", "why", message).stdout


@pytest.mark.parametrize(
    "data",
    [
        f"554-{PASSWORD[:9]}\r\n554 {PASSWORD[9:]}\r\n".encode(),
        f"554-the {PASSWORD[:9]}\r\n554-{PASSWORD[9:]} is\r\n554 wrong\r\n".encode(),
        f"{PASSWORD} it is\r\n".encode(),
        f"554 {PASSWORD[:12]}".encode(),
        f"554-{PASSWORD[:12]}\r\n".encode(),
    ],
)
def test_no_part_of_a_password_is_shown_wherever_a_reply_is_cut(data: bytes) -> None:
    shown: list[str] = []
    transcript = Transcript(shown.append, Concealment.of_password(USER, PASSWORD))
    transcript.received(data)
    transcript.end()
    assert shown
    assert not [part for part in (PASSWORD[:9], PASSWORD[9:]) if part in "".join(shown)]


def test_a_password_in_latin_1_is_in_no_transcript() -> None:
    shown: list[str] = []
    Transcript(shown.append, Concealment.of_password("user", "schlüsselbund")).received(
        "535 der schlüsselbund\r\n".encode("latin-1")
    )
    assert shown == ["S: 535 der ***"]


def test_the_end_of_a_reply_whose_beginning_is_not_kept_is_not_shown() -> None:
    conceal = Concealment.of_password(USER, PASSWORD)
    rest = [(float(n), Kind.RECEIVED, b"250 ok\r\n", 0) for n in range(1, KEPT - 1)]
    for first in (f"{PASSWORD[9:]}\r\n250 the end\r\n", f"50-{PASSWORD[9:]}\r\n250-a\r\n250 b\r\n"):
        pieces = [(0.0, Kind.RECEIVED, first.encode(), 0), *rest, (90.0, Kind.SENT, b"QUIT\r\n", 0)]
        assert len(pieces) == KEPT
        shown = [line for _, line in Conversation("a:25", 0.0, (), tuple(pieces), 0, conceal).lines()]
        assert shown[0] == "   (what was said before this is left out)"
        assert {*shown[1:-1]} == {"S: 250 ok"}
        assert shown[-1] == "C: QUIT"
