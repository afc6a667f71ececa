"""What the operator does over HTTP is done once, whoever asks how often."""

import json
import os
import pwd
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from outbound.hostile import HANG, Server, per_address, reached
from outbound.sending import TO, forward_to, queue
from spools.states import Queue
from spools.walk import walk
from testbed.ci import only_root
from testbed.faketime import clock_set
from testbed.http_client import ask, post
from testbed.ports import LOOPBACK
from testbed.proc import children, opened
from testbed.relay import ADMIN_TOKEN, Relay
from testbed.waiting import until

from mailer.spool.directory import Spool

RETRY = "/admin/retry-failed"


@pytest.fixture
def states(relay: Relay) -> Queue:
    return Queue(relay.spool)


def ledger(relay: Relay) -> Iterator[dict[str, object]]:
    for day in sorted((relay.spool / "log").glob("*.jsonl")):
        yield from map(json.loads, day.read_text().splitlines())


def test_retry_failed_delivers_what_failed_and_what_waits(relay: Relay, states: Queue) -> None:
    states.fail(states.new("a@example.net"), "550 no", "a@example.net")
    states.defer(states.new("b@example.net"), "450 later", "b@example.net", seconds=5000)
    states.hold(states.new("c@example.net"), "not yet")
    with relay.monitor():
        answer = post(relay.http_port, RETRY)
        assert answer.status == 200
        assert answer.json == {
            "status": "ok", "message": "1 failed message and 1 deferred message will be tried now"
        }  # fmt: skip
        until(lambda: len(relay.delivered()) == 2, "both to be delivered")
    assert [found.place for found in walk(relay.spool).values()] == ["hold"]
    requeued = [line for line in ledger(relay) if line["event"] == "requeued"]
    assert [line["by"] for line in requeued] == ["admin request"] * 2


def test_a_recipient_that_has_the_mail_is_not_tried_again(relay: Relay) -> None:
    with Server({"rcpt": per_address({"never@example.net": "550 5.1.1 unknown"})}) as server:
        relay.configure(forward_to(server))
        queue(relay.spool, ["a@example.net", "never@example.net"])
        relay.mailer_send()
        server.script.clear()
        with relay.monitor():
            assert post(relay.http_port, RETRY).status == 200
            until(lambda: len(server.delivered()) == 2, "the rest of it to be sent")
        assert Counter(to for to, _ in server.delivered()) == {"a@example.net": 1, "never@example.net": 1}


@pytest.mark.security_case(94)
def test_a_thousand_at_once_send_nothing_twice_and_run_one_at_a_time(relay: Relay, states: Queue) -> None:
    recipients = [f"user{number}@example.net" for number in range(50)]
    for address in recipients:
        states.fail(states.new(address), "550 no", address)
    most = 0
    over = threading.Event()

    def count(pid: int) -> None:
        nonlocal most
        while not over.wait(0.002) and Path(f"/proc/{pid}").exists():
            most = max(most, len(children(pid)))

    with Server() as server:
        relay.configure(forward_to(server))
        with relay.monitor() as monitor:
            counting = threading.Thread(target=count, args=(monitor.pid,))
            counting.start()
            with ThreadPoolExecutor(200) as pool:
                answers = list(pool.map(lambda _: post(relay.http_port, RETRY), range(1000)))
            assert {answer.status for answer in answers} == {200}
            requeued = [answer for answer in answers if answer.json["message"].startswith("50 failed")]
            assert len(requeued) == 1
            until(lambda: len(server.delivered()) >= len(recipients), "everything to be sent")
            until(lambda: children(monitor.pid) == [], "the last run to end")
            over.set()
            counting.join()
        assert Counter(to for to, _ in server.delivered()) == dict.fromkeys(recipients, 1)
    assert most == 1
    assert walk(relay.spool) == {}


def test_what_fails_during_a_run_is_tried_by_the_next_request_too(relay: Relay, states: Queue) -> None:
    """The run that is under way may have passed it; so another one follows, and not at the same time."""
    claimed, seen = threading.Event(), []
    with Server({"mail": reached(claimed, HANG)}) as server:
        relay.configure(forward_to(server, sending={"shutdownGrace": 0}))
        queue(relay.spool, ["first@example.net"])
        with relay.monitor() as monitor:
            post(relay.http_port, RETRY)
            assert claimed.wait(60)
            [run] = children(monitor.pid)
            seen.append(run)
            states.fail(states.new("second@example.net"), "550 no", "second@example.net")
            assert post(relay.http_port, RETRY).json["message"].startswith("1 failed message")
            assert children(monitor.pid) == [run]
            server.script.clear()
            os.kill(run, 15)
            until(lambda: len(server.delivered()) == 2, "both to be sent")
    assert sorted(to for to, _ in server.delivered()) == ["first@example.net", "second@example.net"]


def test_a_message_in_a_runners_hands_is_left_to_it(relay: Relay, states: Queue) -> None:
    with relay.monitor(), states.claimed(states.new()):
        assert post(relay.http_port, RETRY).json["message"].startswith("0 failed messages and 0")


def test_the_run_that_a_request_started_finishes_what_is_in_flight_and_ends_with_the_monitor(
    relay: Relay,
) -> None:
    at_the_dot, go_on = threading.Event(), threading.Event()

    def hesitate(*_: object) -> str:
        at_the_dot.set()
        go_on.wait(60)
        return "250 2.0.0 queued"

    with Server({"dot": hesitate}) as server:
        relay.configure(forward_to(server, sending={"concurrency": 1}))
        for _ in range(5):
            queue(relay.spool)
        with relay.monitor() as monitor:
            post(relay.http_port, RETRY)
            assert at_the_dot.wait(60)
            [run] = children(monitor.pid)
            monitor.signal(signal.SIGTERM)
            until(lambda: "waiting for the run" in monitor.output(), "the run to be told to end")
            go_on.set()
            assert monitor.wait() == 0
            assert not Path(f"/proc/{run}").exists()
        # The reply may reach the run together with the signal, and the next message begin before that.
        delivered = len(server.delivered())
        assert delivered in {1, 2}
    assert [found.place for found in walk(relay.spool).values()] == ["new"] * (5 - delivered)


def test_a_client_that_leaves_does_not_stop_what_it_asked_for(relay: Relay, states: Queue) -> None:
    for _ in range(200):
        states.fail(states.new(), "550 no")
    with relay.monitor():
        with socket.create_connection((LOOPBACK, relay.http_port)) as connection:
            presented = f"Authorization: Bearer {ADMIN_TOKEN}"
            connection.sendall(f"POST {RETRY} HTTP/1.1\r\nHost: localhost\r\n{presented}\r\n\r\n".encode())
        until(lambda: not any((relay.spool / "failed").iterdir()), "all to be requeued")


def test_pause_and_resume_over_http_are_shown_everywhere(relay: Relay) -> None:
    queue(relay.spool)
    with relay.monitor():
        for _ in range(2):
            assert post(relay.http_port, "/admin/pause?reason=maintenance").json["status"] == "ok"
        health = ask(relay.http_port, "/health").json
        assert health["checks"]["paused"]["status"] == "degraded"
        assert "by admin request since 20" in health["checks"]["paused"]["message"]
        assert "(maintenance)" in health["checks"]["paused"]["message"]
        text = ask(relay.http_port, "/metrics", headers={"Accept": "text/plain"}).body
        assert b"mailer_paused 1.0" in text
        assert post(relay.http_port, RETRY).json["message"].endswith("will be tried once the pause ends")
        relay.mailer_send()
        assert relay.delivered() == []
        for _ in range(2):
            assert post(relay.http_port, "/admin/resume").json["status"] == "ok"
        until(lambda: len(relay.delivered()) == 1, "the mail to be sent by the run that follows")
        assert ask(relay.http_port, "/health").json["checks"]["paused"]["status"] == "ok"
    events = [line["event"] for line in ledger(relay) if line["event"] in {"paused", "resumed"}]
    assert events == ["paused", "resumed"]


def test_cleaning_removes_only_what_failed_long_ago(relay: Relay, states: Queue) -> None:
    day = 86_400
    old, older = (states.new(received=time.time() - days * day) for days in (10, 40))
    waiting = states.new(received=time.time() - 50 * day)
    fresh = states.new()
    for each in (old, older, fresh):
        states.fail(each, "550 no")
    with relay.monitor():
        answer = post(relay.http_port, "/admin/clean-old-emails")
        assert (answer.status, answer.json["status"]) == (200, "ok")
        assert set(walk(relay.spool)) == {old, fresh, waiting}
        for wrong in ("soon", "-1", "%00", "1e9"):
            assert post(relay.http_port, f"/admin/clean-old-emails?olderThan={wrong}").status == 400
        told = post(relay.http_port, "/admin/clean-old-emails?olderThan=5d").json["message"]
        assert told == "1 failed message deleted that arrived over 5d ago"
        assert set(walk(relay.spool)) == {fresh, waiting}
    removed = [line for line in ledger(relay) if line["event"] == "removed"]
    assert [(line["id"], line["by"]) for line in removed] == [
        (older, "admin request"),
        (old, "admin request"),
    ]


def test_nothing_is_cleaned_by_a_clock_that_was_set_ahead(relay: Relay, states: Queue) -> None:
    states.fail(failed := states.new(), "550 no")
    assert relay.mailer_send("--once").returncode == 0
    with relay.monitor(under=clock_set("+60d")):
        answer = post(relay.http_port, "/admin/clean-old-emails")
    assert answer.status == 409
    assert "mailer spool trust-clock" in answer.error
    assert failed in walk(relay.spool)


@pytest.mark.security_case(96)
def test_the_configuration_is_shown_without_secrets(relay: Relay) -> None:
    provider = {"host": "h", "username": "u", "password": "pr0vider-secret"}
    alerts = {"webhook": "https://hooks.example/T0KEN", "command": ["page", "--key", "T0KEN"]}
    relay.configure({"forwardProviders": [provider], "alerts": alerts})
    with relay.monitor():
        answer = ask(relay.http_port, "/admin/config")
    assert answer.json["defaultPassword"] == "********"
    assert answer.json["forwardProviders"][0]["password"] == "********"
    assert b"pr0vider" not in answer.body
    assert b"T0KEN" not in answer.body
    assert answer.json["smtpPort"] == relay.port
    assert answer.json["alerts"]["command"] == ["page", "********", "********"]


def test_the_run_inherits_no_open_connection(relay: Relay) -> None:
    claimed = threading.Event()
    with Server({"mail": reached(claimed, HANG)}) as server:
        relay.configure(forward_to(server, sending={"shutdownGrace": 0}))
        queue(relay.spool, [TO])
        with relay.monitor() as monitor:
            post(relay.http_port, RETRY)
            assert claimed.wait(60)
            [run] = children(monitor.pid)
            shared = {*opened(run)} & {*opened(monitor.pid)}
            assert not [each for each in shared if each.startswith("socket:")]


@only_root("only root can become another user")
def test_root_leaves_no_file_of_its_own_in_another_users_spool() -> None:
    with TemporaryDirectory(prefix="mailer-test-") as directory:
        Path(directory).chmod(0o711)
        relay = Relay(Path(directory))
        Spool.open(relay.spool, create=True).close()
        nobody = pwd.getpwnam("nobody")
        for path in (relay.spool, *relay.spool.rglob("*")):
            shutil.chown(path, nobody.pw_uid, nobody.pw_gid)
        with relay.monitor() as monitor:
            for path in ("/health", "/metrics", "/readyz", "/admin/config"):
                assert ask(relay.http_port, path).status == 200
            assert ask(relay.http_port, "/metrics", headers={"Accept": "text/plain"}).status == 200
            assert post(relay.http_port, "/admin/pause").status == 200
            # Root's Python, or configuration, may be closed to the owner; then it says that no run can begin.
            assert post(relay.http_port, RETRY).status in {200, 500}
            assert "defect" not in monitor.output()
        owners = {path.stat().st_uid for path in (relay.spool, *relay.spool.rglob("*"))}
        assert owners == {nobody.pw_uid}
