"""One trace stands for all failures that are alike, and their number and size are bounded."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from outbound.failed_sessions import NOW, fail, only_trace, trace_files, with_login
from outbound.hostile import Server, Session
from outbound.sending import forward_to, found, queue
from testbed.relay import Relay

from mailer.maillog import traces
from mailer.maillog.events import MailLog
from mailer.maillog.traces import likeness
from mailer.send.smtp.conversation import Conversation, Kind
from mailer.send.traces import INTERVAL, PER_HOP, PER_MINUTE, Traces
from mailer.spool.directory import Spool
from mailer.spool.layout import TRACES


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
    trace = only_trace(relay)
    [own] = [message for message in messages if message in trace]
    for message in messages:
        whose = (
            "the session that failed"
            if message == own
            else "a session of other mail that failed in the same way"
        )
        shown = relay.mailer("spool", "why", message).stdout
        assert f"What was said in {whose}: `mailer spool trace {message}`." in shown
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
        word for path in trace_files(relay) for word in words if f"rcpt: {word}" in path.read_text()
    ) == sorted(words)


def test_a_server_with_new_words_each_time_has_eight_traces_in_ten_minutes(relay: Relay) -> None:
    words = [f"550 5.0.0 {chr(97 + number) * 5} no" for number in range(12)]
    with Server({"rcpt": words}) as server:
        relay.configure(forward_to(server, sending={"concurrency": 1}))
        for _ in words:
            queue(relay.spool)
        relay.mailer_send("--once")
        assert len(trace_files(relay)) == PER_HOP
        server.script["rcpt"] = "550 5.0.0 zzz no"
        queue(relay.spool)
        relay.mailer_send("--once")
    assert len(trace_files(relay)) == PER_HOP, "in all runs"


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


def test_a_trace_takes_no_space_that_mail_may_need(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MailLog(lambda: NOW, print)
    monkeypatch.setattr("mailer.send.traces.FREE", 2**62)
    failed(Traces(spool, log, lambda: NOW), "mx.example:25")
    assert not (spool.path / TRACES).exists()
    monkeypatch.undo()
    failed(Traces(spool, log, lambda: NOW), "mx.example:25")
    assert len(list((spool.path / TRACES).iterdir())) == 1
