"""What the monitor tells: the Go relay's fields to its users' scripts, and Prometheus's to Prometheus."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from outbound.hostile import DROP, Server, per_address
from outbound.sending import forward_to, queue
from prometheus_client.parser import text_string_to_metric_families
from spools.states import Queue
from testbed.capability import with_own_mounts
from testbed.http_client import PROMETHEUS, ask, post
from testbed.process import ServerProcess
from testbed.relay import Relay
from testbed.tools import prometheus_program
from testbed.waiting import until

from mailer.mail import clock
from mailer.spool.directory import Spool
from mailer.spool.state import last_run, provider_state
from mailer.spool.state.last_run import LastRun
from mailer.spool.state.provider_state import ProviderState

TEXT = {"Accept": "text/plain"}


def samples(port: int, accept: str = "text/plain") -> dict[str, float]:
    """Every sample of an exposition, by its name and labels as they are written."""
    text = ask(port, "/metrics", headers={"Accept": accept}).body.decode()
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def checks(port: int) -> dict[str, str]:
    return {name: check["status"] for name, check in ask(port, "/health").json["checks"].items()}


@pytest.fixture
def mixed(relay: Relay) -> Relay:
    """Five messages with six recipients: sent, sent in part, deferred, refused, and one that nobody tried."""
    replies = per_address({"later@example.net": "450 4.2.2 full", "never@example.net": "550 5.1.1 unknown"})
    with Server({"rcpt": replies}) as server:
        relay.configure(forward_to(server))
        queue(relay.spool, ["a@example.net"])
        queue(relay.spool, ["b@example.net", "never@example.net"])
        queue(relay.spool, ["later@example.net"])
        queue(relay.spool, ["never@example.net"])
        with relay.serve(), relay.connect() as client:
            client.sendmail("app@example.com", ["c@example.net"], b"Subject: by SMTP\r\n\r\nhello\r\n")
        assert relay.mailer_send().returncode == 0
    queue(relay.spool, ["untried@example.net"])
    return relay


def test_scripts_of_the_go_relay_find_every_field_they_read(mixed: Relay) -> None:
    with mixed.monitor(), mixed.serve():
        until(lambda: ask(mixed.http_port, "/health").json["status"] == "ok", "all to be well")
        health = ask(mixed.http_port, "/health")
        metrics = ask(mixed.http_port, "/metrics")
    assert health.status == 200
    told = health.json
    assert told["status"] == "ok"
    assert abs(clock.seconds(told["timestamp"]) - time.time()) < 60
    details = told["details"]
    assert set(details) == {
        "disk_space_available_mb", "queued_emails", "failed_emails", "total_emails_processed", "success_rate"
    }  # fmt: skip
    assert details["queued_emails"] == 2
    assert details["failed_emails"] == 2
    free = os.statvfs(mixed.spool)
    assert abs(details["disk_space_available_mb"] - free.f_bavail * free.f_frsize / 2**20) < 2000
    # The ledger of this spool begins with the receiver: what `queue` put there was never told.
    assert details["total_emails_processed"] == 4
    assert details["success_rate"] == 50.0
    assert set(metrics.json) == {
        "total_emails", "successful_emails", "failed_emails", "total_recipients", "avg_processing_time_ms"
    }  # fmt: skip
    assert metrics.json["total_emails"] == 1
    assert (metrics.json["successful_emails"], metrics.json["failed_emails"]) == (2, 2)
    assert metrics.json["avg_processing_time_ms"] > 0


def test_prometheus_gets_the_same_numbers_and_promtool_finds_nothing_wrong(mixed: Relay) -> None:
    with mixed.monitor():
        for accept in (*PROMETHEUS, "text/plain"):
            answer = ask(mixed.http_port, "/metrics", headers={"Accept": accept})
            kind = answer.headers["content-type"]
            assert kind.startswith("application/openmetrics-text" if "openm" in accept else "text/plain")
        found = samples(mixed.http_port)
        text = ask(mixed.http_port, "/metrics", headers=TEXT).body
    assert found["mailer_messages_accepted_total"] == 1
    assert found["mailer_messages_delivered_total"] == 2
    assert found["mailer_messages_failed_total"] == 2
    outcomes = {"sent": 3, "deferred": 1, "bounced": 2, "expired": 0, "uncertain": 0}
    for outcome, count in outcomes.items():
        assert found[f"mailer_recipients_total{{outcome={outcome}}}"] == count
    states = {"new": 1, "cur": 0, "retry": 1, "hold": 0, "failed": 2, "corrupt": 0}
    for state, count in states.items():
        assert found[f"mailer_queue_messages{{state={state}}}"] == count
        assert (found[f"mailer_queue_oldest_age_seconds{{state={state}}}"] > 0) == (count > 0)
    assert found["mailer_delivery_delay_seconds_count"] == 3
    assert found["mailer_last_run_timestamp_seconds"] > time.time() - 600
    assert found["mailer_spool_free_bytes"] > 0
    for name in ("mailer_build_info", "mailer_provider_up"):
        assert [value for sample, value in found.items() if sample.startswith(name)] == [1]
    done = subprocess.run(
        [prometheus_program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_json_goes_to_everyone_who_does_not_ask_for_text(relay: Relay) -> None:
    """curl, requests, axios and browsers among them."""
    with relay.monitor():
        for accept in (
            None,
            "*/*",
            "application/json",
            "application/json, text/plain, */*",
            "text/html,*/*;q=0.8",
            "text/plain;q=0",
            "text/plain;q=high, */*",
        ):
            answer = ask(relay.http_port, "/metrics", headers={} if accept is None else {"Accept": accept})
            assert answer.json["total_emails"] == 0, accept


@pytest.mark.security_case(95)
def test_addresses_never_become_labels(mixed: Relay) -> None:
    """What clients and remote servers say adds no series, however much of it there is."""
    with mixed.monitor():
        before = samples(mixed.http_port)
        for number in range(20):
            queue(mixed.spool, [f"user{number}@domain{number}.example"], sender=f"sender{number}@example.org")
        mixed.mailer_send()
        after = samples(mixed.http_port)
        text = ask(mixed.http_port, "/metrics", headers=TEXT).body
    assert before.keys() == after.keys()
    assert before != after
    assert b"@" not in text


def test_counters_never_go_back_when_the_monitor_restarts_or_days_are_removed(mixed: Relay) -> None:
    with mixed.monitor() as monitor:
        before = samples(mixed.http_port)
        assert monitor.stop() == 0
    for day in (mixed.spool / "log").glob("*.jsonl"):
        day.unlink()
    with mixed.monitor():
        after = samples(mixed.http_port)
    counters = [name for name in before if name.startswith("mailer_") and "_total" in name]
    assert counters
    assert {name: after[name] for name in counters} == {name: before[name] for name in counters}


def test_liveness_and_readiness(relay: Relay) -> None:
    with relay.monitor():
        assert ask(relay.http_port, "/livez").json == {"status": "ok"}
        assert ask(relay.http_port, "/readyz").json == {"status": "ok"}
        head = ask(relay.http_port, "/health", "HEAD")
        assert (head.status, head.body) == (200, b"")


def test_a_spool_that_is_gone_is_failing_and_not_ready_and_the_monitor_lives(relay: Relay) -> None:
    with relay.monitor() as monitor:
        assert ask(relay.http_port, "/health").status == 200
        shutil.rmtree(relay.spool)
        until(lambda: ask(relay.http_port, "/health").status == 503, "the monitor to see it")
        told = ask(relay.http_port, "/health")
        assert told.json["status"] == "failing"
        assert told.json["checks"]["spool"]["status"] == "failing"
        assert ask(relay.http_port, "/livez").status == 200
        until(lambda: ask(relay.http_port, "/readyz").status == 503, "readiness to see it")
        for path in ("/metrics", "/readyz"):
            assert "spool" in ask(relay.http_port, path).error
        answer = post(relay.http_port, "/admin/retry-failed")
        assert answer.status == 503
        assert "the spool" in answer.error
        assert "defect" not in monitor.output()


def test_too_little_room_is_failing(relay: Relay) -> None:
    relay.configure({"minFreeSpace": "1000TiB"})
    with relay.monitor():
        told = ask(relay.http_port, "/health")
        assert (told.status, told.json["status"]) == (503, "failing")
        assert told.json["checks"]["disk_space"]["status"] == "failing"
        assert "452" in told.json["checks"]["disk_space"]["message"]
        assert ask(relay.http_port, "/readyz").status == 503


def test_too_few_inodes_are_failing(tmp_path: Path) -> None:
    """The receiver refuses all mail then, however much space is free."""
    ask_it = (
        "import sys, time; from pathlib import Path; from mailer.config.model import Config\n"
        "from mailer.monitor.checks import judge; from mailer.monitor.reading import Lookout\n"
        "from mailer.spool.directory import Spool\n"
        "with Spool.open(Path(sys.argv[1], 'spool'), create=True) as spool:\n"
        "    reading = Lookout(spool, time.time).look()\n"
        "print(dict(judge(reading, Config(), frozenset()))['disk_space'])"
    )
    mount = f'mount -t tmpfs -o size=1g,nr_inodes=$1,mode=700 none {tmp_path} && exec "$0" -c "$2" {tmp_path}'
    for inodes, status in ((500, "failing"), (5000, "ok")):
        command = [*with_own_mounts(), "sh", "-c", mount, sys.executable, str(inodes), ask_it]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert f"'{status}'" in done.stdout, done.stdout + done.stderr
        assert ("452" in done.stdout) is (status == "failing")


def test_a_queue_at_its_limit_is_failing(relay: Relay) -> None:
    relay.configure({"maxQueued": 2})
    queued = Queue(relay.spool)
    queued.new()
    with relay.monitor():
        told = ask(relay.http_port, "/health").json["checks"]["queue_limit"]
        assert told == {"status": "ok", "message": "1 of 2 messages wait (maxQueued)"}
        queued.new()
        until(lambda: ask(relay.http_port, "/health").status == 503, "the monitor to see it")
        told = ask(relay.http_port, "/health").json["checks"]["queue_limit"]
        assert (told["status"], "452" in told["message"]) == ("failing", True)


def mark_run(spool: Path, ago: float) -> None:
    at = clock.rfc3339(time.time() - ago)
    with Spool.open(spool) as opened:
        last_run.write(opened, LastRun(at=at, began=at, seconds=0.0, mode="once"))


def test_without_a_run_mail_that_waits_is_a_matter_of_time(relay: Relay) -> None:
    """waits: seconds since the oldest message came; ran: since the last run ended.

    Runs that work and send nothing of what waits for over an hour are no better than none.
    """
    with relay.monitor():
        for waits, ran, status, whole in (
            (None, None, "ok", 200),
            (None, 60, "ok", 200),
            (None, 600, "degraded", 200),
            (60, None, "ok", 200),
            (600, None, "degraded", 200),
            (3000, 60, "ok", 200),
            (7200, 60, "ok", 503),
            (7200, 7200, "failing", 503),
            (7200, None, "failing", 503),
        ):
            if waits is not None:
                queue(relay.spool, received=time.time() - waits)
            if ran is not None:
                mark_run(relay.spool, ran)
            told = ask(relay.http_port, "/health")
            assert told.json["checks"]["last_run"]["status"] == status, (waits, ran)
            assert told.status == whole
            for left in (*relay.spool.glob("new/*"), *relay.spool.glob("state/last-run.json")):
                left.unlink()


def test_a_clock_that_went_back_is_seen(relay: Relay) -> None:
    Spool.open(relay.spool, create=True).close()
    mark_run(relay.spool, -3600)
    with relay.monitor():
        assert checks(relay.http_port)["clock"] == "degraded"


def test_a_ledger_that_cannot_be_read_costs_no_answer(mixed: Relay) -> None:
    with mixed.monitor():
        before = ask(mixed.http_port, "/metrics").json
        shutil.move(mixed.spool / "log", mixed.directory / "moved")
        assert checks(mixed.http_port)["ledger"] == "degraded"
        assert ask(mixed.http_port, "/metrics").json == before
        queue(mixed.spool)
        assert mixed.mailer_send().returncode == 0
    assert json.loads((mixed.spool / "state/last-run.json").read_text())["claimed"] == 2


@pytest.fixture
def up(relay: Relay) -> Iterator[ServerProcess]:
    relay.configure({"enableHealthCheck": True, "healthCheckPort": relay.http_port})
    with relay.up() as process:
        process.await_port(relay.http_port)
        yield process


def test_up_starts_the_monitor_too_and_all_is_well(up: ServerProcess, relay: Relay) -> None:
    with relay.connect() as client:
        client.sendmail("app@example.com", ["bob@example.net"], b"Subject: hi\r\n\r\nhello\r\n")
    until(lambda: ask(relay.http_port, "/metrics").json["successful_emails"] == 1, "the count of the mail")
    told = ask(relay.http_port, "/health").json
    assert told["status"] == "ok", told
    assert up.stop() == 0


def test_up_goes_on_without_a_monitor_whose_port_is_taken_and_says_so(relay: Relay) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", relay.http_port))
        taken.listen()
        relay.configure({"enableHealthCheck": True, "healthCheckPort": relay.http_port})
        with relay.up() as up:
            until(lambda: "mailer monitor ended with exit code 69; mail goes on" in up.output(), "the words")
            with relay.connect() as client:
                client.sendmail("app@example.com", ["bob@example.net"], b"Subject: hi\r\n\r\nhello\r\n")
            until(lambda: len(relay.delivered()) == 1, "the mail")
            assert "Another program, perhaps another monitor, listens there" in up.output()
            assert up.stop() == 0


@pytest.fixture
def states(relay: Relay) -> Queue:
    return Queue(relay.spool)


def test_every_state_is_counted_with_its_age(relay: Relay, states: Queue) -> None:
    old = time.time() - 5000
    states.fail(states.new(received=old), "550 no")
    states.defer(states.new(), "450 later")
    states.hold(states.new(), "asked")
    states.damage(states.new())
    with relay.monitor(), states.claimed(states.new()):
        found = samples(relay.http_port)
        assert {s: found[f"mailer_queue_messages{{state={s}}}"] for s in ("new", "cur", "retry", "hold")} == {
            "new": 0, "cur": 1, "retry": 1, "hold": 1
        }  # fmt: skip
        assert found["mailer_queue_messages{state=failed}"] == 1
        assert found["mailer_queue_messages{state=corrupt}"] == 1
        assert 5000 <= found["mailer_queue_oldest_age_seconds{state=failed}"] < 5300


def test_what_is_unreadable_needs_a_look_and_what_is_held_is_named(relay: Relay, states: Queue) -> None:
    states.hold(states.new(), "asked")
    with relay.monitor():
        held = ask(relay.http_port, "/health").json
        assert (held["status"], held["checks"]["held"]["status"]) == ("degraded", "degraded")
        assert held["checks"]["held"]["message"].startswith("1 message is held: mailer spool ls --state hold")
        assert "Needs a look</strong>: 1 held;" in ask(relay.http_port, "/").body.decode()
        assert "\n1 held;" in relay.mailer("top", "--once").stdout
        states.damage(states.new())
        told = ask(relay.http_port, "/health").json
        assert (told["status"], told["checks"]["quarantine"]["status"]) == ("degraded", "degraded")
        assert told["checks"]["quarantine"]["message"].startswith("1 message is unreadable")
        page = ask(relay.http_port, "/").body.decode()
        assert "Needs a look</strong>: 1 held, 1 unreadable;" in page
        assert "<li>1 message is unreadable" in page
        top = relay.mailer("top", "--once").stdout
        assert top.startswith("mailer needs a look")
        assert "mailer spool ls --state corrupt" in top


TWO = [
    {"host": "smtp.example.com", "username": "one@example.com", "password": "x", "priority": 0},
    {"host": "smtp.example.com", "username": "two@example.com", "password": "x", "priority": 1},
]


def known(**accounts: ProviderState) -> dict[str, ProviderState]:
    return {f"smtp.example.com:587 as {name}@example.com": state for name, state in accounts.items()}


def test_a_paused_provider_is_shown_without_its_login(relay: Relay) -> None:
    relay.configure({"forwardSMTP": True, "forwardProviders": TWO})
    now = datetime.now(UTC)
    login = ProviderState(opened=now, open_until=now + timedelta(minutes=5), kind="login", trouble="535 no")
    with Spool.open(relay.spool, create=True) as spool:
        provider_state.write(spool, known(two=login))
    with relay.monitor():
        found = samples(relay.http_port)
        told = ask(relay.http_port, "/health")
    up = {name: value for name, value in found.items() if name.startswith("mailer_provider_up")}
    assert up == {
        "mailer_provider_up{provider=smtp.example.com}": 1,
        "mailer_provider_up{provider=smtp.example.com #2}": 0,
    }
    assert told.json["checks"]["providers"] == {
        "status": "degraded", "message": "smtp.example.com #2: it refuses our login"
    }  # fmt: skip
    assert told.status == 200
    assert b"@example.com" not in told.body


@pytest.mark.parametrize(("hours", "status"), [(0.1, "degraded"), (2, "failing")])
def test_without_any_provider_for_an_hour_mail_does_not_go_out(
    relay: Relay, hours: float, status: str
) -> None:
    relay.configure({"forwardSMTP": True, "forwardProviders": TWO})
    now = datetime.now(UTC)
    down = ProviderState(opened=now - timedelta(hours=hours), open_until=now, kind="down", trouble="refused")
    with Spool.open(relay.spool, create=True) as spool:
        provider_state.write(spool, known(one=down, two=down))
    with relay.monitor():
        assert checks(relay.http_port)["providers"] == status


def test_a_provider_found_down_by_a_run_is_down_for_the_monitor(relay: Relay) -> None:
    with Server({"connect": DROP}) as server:
        relay.configure(forward_to(server))
        for _ in range(5):
            queue(relay.spool)
        relay.mailer_send()
    with relay.monitor():
        assert samples(relay.http_port)["mailer_provider_up{provider=127.0.0.1}"] == 0
        assert checks(relay.http_port)["providers"] == "degraded"
