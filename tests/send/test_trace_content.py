"""A session that fails leaves a trace: what was said, when, and how the session ended."""

import json
import re
import ssl
from collections.abc import Sequence

import pytest
import trustme
from outbound.failed_sessions import (
    PASSWORD,
    REFUSED,
    USER,
    fail,
    only_trace,
    said_in,
    trace_files,
    with_login,
)
from outbound.hostile import DROP, EXTENSIONS, Server, said
from outbound.sending import TO, at, forward_to, queue
from testbed.http_client import ask
from testbed.relay import Relay


def test_a_refused_recipient_leaves_a_trace_that_why_and_the_page_name(relay: Relay) -> None:
    with Server(REFUSED) as server:
        message = fail(relay, server)
    [path] = trace_files(relay)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    trace = path.read_text()
    head, _, _ = trace.partition("\n\n")
    assert f"\nHop: {at(server)}\nMessage: {message}\nFailed: rcpt: 550 5.1.1 no such user" in head
    assert said_in(trace) == [
        "S: 220 hostile.example ESMTP",
        *("C: EHLO " + line[8:] for line in said_in(trace)[1:2]),
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
    shown = json.loads(relay.mailer("spool", "why", message, "--json").stdout)
    assert shown["traces"] == [f"traces/{path.name}"]
    with relay.monitor():
        assert f"mailer spool trace {message}" in ask(relay.http_port, f"/message/{message}").body.decode()


def test_the_command_prints_lists_and_describes_traces(relay: Relay) -> None:
    with Server(REFUSED) as server:
        message = fail(relay, server)
        listed = relay.mailer("spool", "trace").stdout
        [path] = trace_files(relay)
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
        assert relay.mailer("spool", "trace", message).stdout == path.read_text(), "shown from the ledger"
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
    [path] = trace_files(relay)
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
    trace = only_trace(relay)
    assert f"\nFailed: {phase}" in trace
    assert said_in(trace)[-len(last) :] == last
    assert "hello" not in trace, "content"
    assert "mailer spool trace" in relay.mailer("spool", "why", message).stdout


def test_a_long_message_that_is_cut_off_is_a_number_of_octets(relay: Relay) -> None:
    body = b"a secret line of the message\r\n" * 200_000
    with Server({"body": DROP}, body_after=1) as server:
        relay.configure(forward_to(server))
        queue(relay.spool, message=b"Subject: long\r\n\r\n" + body)
        relay.mailer_send("--once")
    trace = only_trace(relay)
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
    shown = said_in(only_trace(relay))
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
    trace = only_trace(relay)
    last = [line.decode() for line in server.sessions[0].commands if line.startswith(b"RCPT")][2]
    assert [line for line in said_in(trace) if "RCPT" in line] == [f"C: {last}"]
    assert "   (2 earlier transactions of this session are left out)\n" in trace
    assert "S: 220 hostile.example ESMTP" in trace


def test_what_a_server_says_is_escaped_and_cut(relay: Relay) -> None:
    with Server({"rcpt": b"550 \x1b[2J\xe2\x80\xae\x00"[:-1] + b"x" * 3000 + b"\r\n"}) as server:
        fail(relay, server)
    reply = next(line for line in said_in(only_trace(relay)) if line.startswith("S: 550"))
    assert reply.startswith("S: 550 \\x1b[2J\\u202exxx")
    assert reply.endswith("xxx...")
    assert len(reply) < 500
