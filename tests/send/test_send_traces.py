"""A session that fails leaves a trace: what was said, without passwords and content. One stands for many."""

import json
import os
import re
import ssl
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trustme
from outbound.hostile import DROP, EXTENSIONS, Server, Session, said
from outbound.sending import TO, at, forward_to, found, queue
from testbed.http_api import HttpApi, mailgun
from testbed.http_client import ask
from testbed.relay import Relay
from testbed.token_server import TokenServer

from mailer.mail.clock import seconds
from mailer.maillog import traces
from mailer.maillog.events import MailLog
from mailer.maillog.traces import Trace, likeness
from mailer.send.smtp.concealment import Concealment
from mailer.send.smtp.conversation import KEPT, Conversation, Kind
from mailer.send.smtp.transcript import Transcript
from mailer.send.traces import INTERVAL, PER_HOP, PER_MINUTE, Traces
from mailer.spool.directory import Spool
from mailer.spool.layout import TRACES

USER, PASSWORD = "relay@example.com", "ya29.s3cret+open/Sesame"
REFUSED = {"rcpt": "550 5.1.1 no such user"}


def files(relay: Relay) -> list[Path]:
    return sorted((relay.spool / "traces").glob("*"))


def text(relay: Relay) -> str:
    """The only trace."""
    [path] = files(relay)
    return path.read_text()


def lines(trace: str) -> list[str]:
    """What was said, without the times."""
    return [line[11:] for line in trace.partition("\n\n")[2].splitlines()]


def fail(relay: Relay, server: Server, **settings: object) -> str:
    """Have one message fail at a server; return its id."""
    relay.configure(forward_to(server, **settings))
    message = queue(relay.spool)
    done = relay.mailer_send("--once")
    assert done.returncode == 0, done.stderr
    return message


def with_login(server: Server, mechanism: str = "") -> dict[str, list[dict[str, object]]]:
    login = {"username": USER, "password": PASSWORD} | ({"auth": mechanism.lower()} if mechanism else {})
    return {"forwardProviders": [{"host": "127.0.0.1", "port": server.port, **login}]}


# What is in a trace.


def test_a_refused_recipient_leaves_a_trace_that_why_and_the_page_name(relay: Relay) -> None:
    with Server(REFUSED) as server:
        message = fail(relay, server)
    [path] = files(relay)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    trace = path.read_text()
    head, _, _ = trace.partition("\n\n")
    assert f"\nHop: {at(server)}\nMessage: {message}\nFailed: rcpt: 550 5.1.1 no such user" in head
    assert lines(trace) == [
        "S: 220 hostile.example ESMTP",
        *("C: EHLO " + line[8:] for line in lines(trace)[1:2]),
        "S: 250-hostile.example",
        *(f"S: 250-{extension}" for extension in EXTENSIONS[:-1]),
        f"S: 250 {EXTENSIONS[-1]}",
        "C: MAIL FROM:<app@example.com> SIZE=50",
        f"C: RCPT TO:<{TO}>",
        "C: DATA",
        "S: 250 2.1.0 ok",
        "S: 550 5.1.1 no such user",
        "S: 554 5.5.1 no valid recipients",
    ]
    assert all(re.match(r" +\d+\.\d{3}  ", line) for line in trace.partition("\n\n")[2].splitlines())
    why = relay.mailer("spool", "why", message)
    assert f"What was said in the session that failed: `mailer spool trace {message}`." in why.stdout
    told = json.loads(relay.mailer("spool", "why", message, "--json").stdout)
    assert told["traces"] == [f"traces/{path.name}"]
    with relay.monitor():
        assert f"mailer spool trace {message}" in ask(relay.http_port, f"/message/{message}").body.decode()


def test_the_command_prints_lists_and_describes_traces(relay: Relay) -> None:
    with Server(REFUSED) as server:
        message = fail(relay, server)
        listed = relay.mailer("spool", "trace").stdout
        [path] = files(relay)
        for what in (message, message[:-2].lower(), path.name, str(path)):
            assert relay.mailer("spool", "trace", what).stdout == path.read_text()
        assert listed == f"{path.name}  rcpt: 550 5.1.1 no such user\n"
        one = json.loads(relay.mailer("spool", "trace", "--json").stdout)
        assert one == {
            "path": f"traces/{path.name}",
            "at": one["at"],
            "hop": at(server),
            "message": message,
            "failures": [{"phase": "rcpt", "reply": "550 5.1.1 no such user"}],
        }
        assert (
            json.loads(relay.mailer("spool", "trace", message, "--json").stdout)["text"] == path.read_text()
        )
        relay.mailer("spool", "rm", message, "--yes")
        assert relay.mailer("spool", "trace", message).stdout == path.read_text(), "told from the ledger"
    for what in ("20261122T214503.023Z-a.example.txt", "/etc/a.txt"):
        done = relay.mailer("spool", "trace", what)
        assert (done.returncode, done.stdout) == (66, "")
        assert "no such trace; list all: mailer spool trace" in done.stderr


def test_the_providers_name_the_trace_of_the_trouble_that_paused_them(relay: Relay) -> None:
    """Also for mail that was never tried, since its provider was paused before it came."""
    with Server({"auth": "535 5.7.8 wrong password"}, auth="PLAIN") as server, Server() as other:
        provider = with_login(server)["forwardProviders"][0] | {"name": "main"}
        both = [provider, {"host": "127.0.0.1", "port": other.port, "name": "second"}]
        fail(relay, server, forwardProviders=both)
    [path] = files(relay)
    shown = relay.mailer("providers").stdout
    assert shown.count("what was said") == 1
    assert f"wrong password\n    what was said: mailer spool trace {path.name}\n" in shown
    rows = map(json.loads, relay.mailer("providers", "--json").stdout.splitlines())
    assert {row["name"]: row["trace"] for row in rows} == {"main": f"traces/{path.name}", "second": ""}
    assert "Failed: auth: 535 5.7.8 wrong password" in relay.mailer("spool", "trace", path.name).stdout


def test_a_message_that_was_never_tried_has_no_trace(relay: Relay) -> None:
    message = queue(relay.spool)
    done = relay.mailer("spool", "trace", message)
    assert (done.returncode, done.stdout) == (66, "")
    assert f"what happened: mailer spool why {message}" in done.stderr
    assert relay.mailer("spool", "trace").stdout == ""
    assert "What was said" not in relay.mailer("spool", "why", message).stdout


@pytest.mark.parametrize(
    ("script", "phase", "last"),
    [
        (
            {"dot": DROP},
            "dot: connection closed by the server",
            ["C: (the message and its dot, 53 octets)", "   connection closed by the server"],
        ),
        ({"dot": "451 4.3.0 later"}, "dot: 451 4.3.0 later", ["S: 451 4.3.0 later"]),
        ({"data": said("421 4.3.2 bye", DROP)}, "data: 421 4.3.2 bye", ["S: 421 4.3.2 bye"]),
        ({"mail": b"what?\r\n"}, "mail: not an SMTP reply: ",
         ["S: what?", "   not an SMTP reply: 'what?\\r'"]),
        ({"banner": "554 5.3.2 not you"}, "banner: 554 5.3.2 not you", ["S: 554 5.3.2 not you"]),
        ({"ehlo": DROP, "banner": "220-a\n220 b"}, "ehlo: connection closed by the server",
         ["   connection closed by the server"]),
        ({"banner": said("220-half", DROP)}, "banner: connection closed by the server",
         ["   connection closed by the server", "S: 220-half"]),
    ],
)  # fmt: skip
def test_a_trace_says_in_which_phase_the_session_failed(
    relay: Relay, script: dict[str, object], phase: str, last: Sequence[str]
) -> None:
    with Server(script) as server:
        message = fail(relay, server)
    trace = text(relay)
    assert f"\nFailed: {phase}" in trace
    assert lines(trace)[-len(last) :] == last
    assert "hello" not in trace, "content"
    assert "mailer spool trace" in relay.mailer("spool", "why", message).stdout


def test_a_long_message_that_is_cut_off_is_a_number_of_octets(relay: Relay) -> None:
    body = b"a secret line of the message\r\n" * 200_000
    with Server({"body": DROP}, body_after=1) as server:
        relay.configure(forward_to(server))
        queue(relay.spool, message=b"Subject: long\r\n\r\n" + body)
        relay.mailer_send("--once")
    trace = text(relay)
    assert re.search(r"C: \(a part of the message, without its end, \d+ octets\)\n", trace)
    assert "secret line" not in trace
    assert "Failed: body: " in trace


def test_tls_is_described_with_the_name_that_the_certificate_proves(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(relay.directory / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(relay.directory / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with Server(REFUSED, tls=context) as server:
        provider = {"host": "localhost", "port": server.port, "username": USER, "password": PASSWORD}
        server.auth = "PLAIN"
        fail(relay, server, forwardProviders=[provider])
    shown = lines(text(relay))
    [tls] = [line for line in shown if "TLS:" in line]
    assert re.fullmatch(r"   TLS: TLSv1\.3 TLS_\S+ verified as localhost", tls)
    assert shown.index("S: 220 go ahead") < shown.index(tls) < shown.index("C: AUTH PLAIN ***")


def test_a_session_that_is_reused_shows_its_opening_and_the_transaction_that_failed(relay: Relay) -> None:
    with Server({"rcpt": [None, None, "550 5.1.1 no such user"]}) as server:
        relay.configure(forward_to(server, sending={"concurrency": 1}))
        for name in ("first", "second", "third"):
            queue(relay.spool, [f"{name}@example.net"])
        relay.mailer_send("--once")
        assert len(server.sessions) == 1
    trace = text(relay)
    last = [line.decode() for line in server.sessions[0].commands if line.startswith(b"RCPT")][2]
    assert [line for line in lines(trace) if "RCPT" in line] == [f"C: {last}"]
    assert "   (2 earlier transactions of this session are left out)\n" in trace
    assert "S: 220 hostile.example ESMTP" in trace


def test_what_a_server_says_is_escaped_and_cut(relay: Relay) -> None:
    with Server({"rcpt": b"550 \x1b[2J\xe2\x80\xae\x00"[:-1] + b"x" * 3000 + b"\r\n"}) as server:
        fail(relay, server)
    reply = next(line for line in lines(text(relay)) if line.startswith("S: 550"))
    assert reply.startswith("S: 550 \\x1b[2J\\u202exxx")
    assert reply.endswith("xxx...")
    assert len(reply) < 500


# What must not be in a trace.


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
    trace = text(relay)
    assert f"C: AUTH {mechanism}" in trace
    if mechanism != "PLAIN":
        assert "S: 334 ***" in lines(trace)
        assert "C: ***" in lines(trace)


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
    trace = text(relay)
    blobs = [line.split()[2] for session in server.sessions for line in session.commands if b"AUTH" in line]
    assert len(blobs) == len(tokens.access)
    for secret in (*tokens.access, *(blob.decode()[20:] for blob in blobs), "s3cret~of-the.application"):
        assert secret not in trace
    assert f"C: AUTH {mechanism} ***" in lines(trace)
    assert "S: 334 ***" in lines(trace)


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
    trace = text(relay)
    assert key not in trace
    assert [line[:8] for line in lines(trace)] == ["C: POST ", "   TLS: ", "S: HTTP "]
    assert "says ***" in lines(trace)[2]
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
        told = [line for _, line in Conversation("a:25", 0.0, (), tuple(pieces), 0, conceal).lines()]
        assert told[0] == "   (what was said before this is left out)"
        assert {*told[1:-1]} == {"S: 250 ok"}
        assert told[-1] == "C: QUIT"


# How many there are.


def test_mail_that_is_sent_leaves_no_trace(relay: Relay) -> None:
    with Server(auth="PLAIN") as server:
        fail(relay, server, **with_login(server))
        assert len(server.delivered()) == 1
    assert {path.suffix for path in (relay.spool / "log").iterdir()} == {".jsonl"}


def test_one_trace_stands_for_all_failures_that_are_alike_in_all_runs(relay: Relay) -> None:
    def refuse(session: Session, line: bytes) -> str:
        return f"451 4.2.1 <{line[9:-1].decode()}> is full, session {len(session.received)}x{id(session)}"

    with Server({"rcpt": refuse}) as server:
        relay.configure(forward_to(server))
        messages = [queue(relay.spool, [f"user{number}@example.net"]) for number in range(20)]
        assert relay.mailer_send("--once").returncode == 0
        messages.append(queue(relay.spool, ["later@example.net"]))
        assert relay.mailer_send("--once").returncode == 0
    trace = text(relay)
    [own] = [message for message in messages if message in trace]
    for message in messages:
        whose = (
            "the session that failed"
            if message == own
            else "a session of other mail that failed in the same way"
        )
        told = relay.mailer("spool", "why", message).stdout
        assert f"What was said in {whose}: `mailer spool trace {message}`." in told
        if message == messages[-1]:
            assert relay.mailer("spool", "trace", message).stdout == trace


def test_different_failures_have_traces_of_their_own(relay: Relay) -> None:
    words = ["550 5.1.1 no such user", "451 4.2.1 is full", "550 5.7.1 go away"]
    with Server({"rcpt": words}) as server:
        relay.configure(forward_to(server, sending={"concurrency": 1}))
        for _ in words:
            queue(relay.spool)
        relay.mailer_send("--once")
    assert sorted(
        word for path in files(relay) for word in words if f"rcpt: {word}" in path.read_text()
    ) == sorted(words)


def test_a_server_with_new_words_each_time_has_eight_traces_in_ten_minutes(relay: Relay) -> None:
    words = [f"550 5.0.0 {chr(97 + number) * 5} no" for number in range(12)]
    with Server({"rcpt": words}) as server:
        relay.configure(forward_to(server, sending={"concurrency": 1}))
        for _ in words:
            queue(relay.spool)
        relay.mailer_send("--once")
        assert len(files(relay)) == PER_HOP
        server.script["rcpt"] = "550 5.0.0 zzz no"
        queue(relay.spool)
        relay.mailer_send("--once")
    assert len(files(relay)) == PER_HOP, "in all runs"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool.open(tmp_path / "spool", create=True) as made:
        yield made


def failed(kept: Traces, hop: str) -> None:
    piece = (0.0, Kind.RECEIVED, b"554 no\r\n", 0)
    kept.keep(Conversation(hop, 0.0, (), (piece,)), [("banner", "554 no")], "")


def test_a_run_writes_thirty_traces_in_a_minute_however_many_servers_fail(spool: Spool) -> None:
    now, said = NOW, []
    kept = Traces(spool, MailLog(lambda: now, lambda *line: said.append(line)), lambda: now)
    fail_at, log = partial(failed, kept), partial(spool.directory, TRACES)
    for number in range(PER_MINUTE + 5):
        fail_at(f"mx{number}.example:25")
    assert len(traces.traces(log)) == PER_MINUTE
    now += 60
    fail_at("mx.example:25")
    fail_at("mx0.example:25")
    now += INTERVAL
    fail_at("mx0.example:25")
    hops = [trace.hop for trace in traces.traces(log)]
    assert hops[PER_MINUTE:] == ["mx.example:25", "mx0.example:25"]
    assert said == []


def test_a_server_that_is_down_leaves_no_trace(relay: Relay) -> None:
    """Nothing was said; the journal has the error."""
    with Server() as server:
        port = server.port
    relay.configure(forward_to(port))
    message = queue(relay.spool)
    assert relay.mailer_send("--once").returncode == 0
    left = found(relay.spool, message)
    assert left is not None
    assert left.events[-1]["reply"] == "Connection refused"
    assert not (relay.spool / "traces").exists()


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("550 5.1.1 <a@b.example>: unknown", "550 5.1.1 <b@c.example>: unknown", True),
        ("451 4.7.1 wait 300 seconds, id 4Xy1", "451 4.7.1 wait 299 seconds, id 77z", True),
        ("550 5.1.1 unknown", "550 5.7.1 unknown", False),
        ("451 unknown", "551 unknown", False),
        ("Connection refused", "Connection timed out", False),
        (f"550 5.0.0 {'a b ' * 50}c", f"550 5.0.0 {'a b ' * 50}d", True),
    ],
)
def test_failures_are_alike_by_their_words(one: str, other: str, *, alike: bool) -> None:
    assert (likeness("a:25", one) == likeness("a:25", other)) is alike
    assert likeness("a:25", one) != likeness("b:25", one)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def directory(path: Path) -> partial[AbstractContextManager[int]]:
    return partial(opened, path)


NOW = seconds("2026-11-22T21:45:03Z")


def at_time(moment: float, reply: str = "550 no") -> Trace:
    return Trace(moment, "mx.example[192.0.2.1]:25", (("rcpt", reply),), "01M82KGEY3WBBXBFP3K78QFDBH")


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for number in range(traces.MOST + 5):
        traces.write(directory(tmp_path), at_time(NOW + number), ["S: 220"])
    kept = traces.traces(directory(tmp_path))
    assert [trace.at for trace in kept] == [NOW + number for number in range(5, traces.MOST + 5)]


def test_traces_of_a_clock_that_was_ahead_go_first(tmp_path: Path) -> None:
    for number in range(traces.MOST):
        traces.write(directory(tmp_path), at_time(NOW + 1e8 + number), ["S: 220"])
    traces.write(directory(tmp_path), at_time(NOW), ["S: 220"])
    kept = traces.traces(directory(tmp_path))
    assert len(kept) == traces.MOST
    assert kept[0].at == NOW


def test_the_middle_of_a_long_trace_is_left_out(tmp_path: Path) -> None:
    said = [f"    0.000  S: {number} {'ü' * 50}" for number in range(1000)]
    traces.write(directory(tmp_path), at_time(NOW), said)
    [trace] = traces.traces(directory(tmp_path))
    text = traces.text(directory(tmp_path), trace.name)
    assert traces.LARGEST - 400 < len(text.encode()) <= traces.LARGEST
    shown = text.partition("\n\n")[2].splitlines()
    cut = next(place for place, line in enumerate(shown) if line.startswith("("))
    assert shown == [
        *said[:cut],
        f"({1000 - len(shown) + 1} lines are left out here)",
        *said[cut + 1 - len(shown) :],
    ]


def test_a_trace_takes_no_space_that_mail_may_need(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MailLog(lambda: NOW, print)
    monkeypatch.setattr("mailer.send.traces.FREE", 2**62)
    failed(Traces(spool, log, lambda: NOW), "mx.example:25")
    assert not (spool.path / TRACES).exists()
    monkeypatch.undo()
    failed(Traces(spool, log, lambda: NOW), "mx.example:25")
    assert len(list((spool.path / TRACES).iterdir())) == 1


def test_traces_are_deleted_with_the_ledger_also_by_a_run_that_finds_no_mail(relay: Relay) -> None:
    relay.configure({"logRetention": "30d"})
    assert relay.mailer_send("--once").returncode == 0
    with Server(REFUSED) as server:
        fail(relay, server, logRetention="30d")
    [kept] = files(relay)
    old = kept.parent / "20200229T000000.000Z-mx.example.txt"
    other = kept.parent / "notes.txt"
    for path in (old, other):
        path.write_text("# old\n")
    assert relay.mailer_send("--once").returncode == 0
    assert files(relay) == sorted([kept, other])


def test_traces_lie_beside_the_ledger_so_that_cat_reads_all_of_log(relay: Relay) -> None:
    with Server(REFUSED) as server:
        fail(relay, server)
    assert len(files(relay)) == 1
    assert [path.name for path in (relay.spool / "log").iterdir() if not path.is_file()] == []


@pytest.mark.parametrize("newer", [True, False])
def test_traces_of_an_earlier_version_are_moved_out_of_log(relay: Relay, *, newer: bool) -> None:
    """Also when that version has run again after this one, by scripts/install --previous."""
    with Server(REFUSED) as server:
        message = fail(relay, server)
    [path] = files(relay)
    before, old = path.read_text(), relay.spool / "log" / "traces"
    old.mkdir()
    path.rename(old / path.name)
    if newer:
        (path.parent / "20261122T214503.000Z-other.txt").touch()
    else:
        path.parent.rmdir()
    assert relay.mailer_send("--once").returncode == 0
    assert path in files(relay)
    assert not old.exists()
    assert relay.mailer("spool", "trace", message).stdout == before
    assert relay.mailer("spool", "fsck").returncode == 0


# A directory that is not as it should be.


@pytest.mark.security_case(142)
def test_what_is_planted_in_place_of_an_earlier_versions_traces_stays(relay: Relay) -> None:
    elsewhere = relay.directory / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    assert relay.mailer_send("--once").returncode == 0
    (relay.spool / "log" / "traces").symlink_to(elsewhere)
    assert relay.mailer_send("--once").returncode == 0
    assert [each.name for each in elsewhere.iterdir()] == ["mine"]
    assert not (relay.spool / "traces").exists()


@pytest.mark.security_case(142)
@pytest.mark.parametrize("planted", ["link", "file"])
def test_a_directory_that_is_none_costs_the_trace_and_nothing_else(relay: Relay, planted: str) -> None:
    elsewhere = relay.directory / "elsewhere"
    elsewhere.mkdir()
    with Server({"rcpt": "451 4.2.1 full"}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        if planted == "link":
            (relay.spool / "traces").symlink_to(elsewhere)
        else:
            (relay.spool / "traces").write_text("mine\n")
        done = relay.mailer_send("--once")
        assert (done.returncode, "trace" in done.stderr) == (0, False), done.stderr
    assert list(elsewhere.iterdir()) == []
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert "451 4.2.1 full" in relay.mailer("spool", "why", message).stdout
    done = relay.mailer("spool", "trace")
    assert done.returncode == (0 if not done.stderr else 66)


@pytest.mark.security_case(142)
def test_planted_names_are_neither_read_nor_followed(relay: Relay) -> None:
    secret = relay.directory / "secret"
    secret.write_text("# x\nHop: top secret\nFailed: a: b\n\nsecret\n")
    with Server(REFUSED) as server:
        message = fail(relay, server)
    [kept] = files(relay)
    stem = "20261122T214503.000Z"
    (kept.parent / f"{stem}-link.txt").symlink_to(secret)
    os.mkfifo(kept.parent / f"{stem}-fifo.txt")
    (kept.parent / f"{stem}-directory.txt").mkdir()
    (kept.parent / f"{stem}-half.txt").write_text("# x\nHop: a:25\n")
    (kept.parent / f"{stem}-\x1b.txt").write_text(secret.read_text())
    listed = relay.mailer("spool", "trace")
    assert (listed.returncode, listed.stdout) == (0, f"{kept.name}  rcpt: 550 5.1.1 no such user\n")
    assert relay.mailer("spool", "trace", f"{stem}-link.txt").returncode == 66
    assert relay.mailer("spool", "trace", message).stdout == kept.read_text()
