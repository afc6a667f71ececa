"""Alerts reach the operator once when they begin and once when they are over, by other ways than mail."""

import asyncio
import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from outbound.sending import queue
from spools.states import Queue
from testbed.http_client import ask
from testbed.relay import Relay
from testbed.waiting import until

from mailer.config.calls import Alerts
from mailer.config.hops import Provider
from mailer.config.key_types import Seconds
from mailer.config.model import Config
from mailer.config.oauth import Grant, Kind, OAuth2
from mailer.config.secrets import Secret
from mailer.events import store as event_store
from mailer.events.store import Cursor, Progress
from mailer.mail import clock
from mailer.maillog.events import MailLog
from mailer.monitor.alerts import Alerting, AlertSettings
from mailer.monitor.reading import Lookout
from mailer.spool.directory import Spool
from mailer.spool.run.operate import Operator
from mailer.spool.scan import spots
from mailer.spool.state import last_run, token_store
from mailer.spool.state.last_run import LastRun
from mailer.spool.state.token_store import Tokens

NOTE = """
import os, sys
with open(sys.argv[1], "a") as file:
    file.write(sys.stdin.read().strip() + "\\n")
with open(sys.argv[1] + ".env", "w") as file:
    file.write(repr(dict(os.environ)))
sys.exit(os.path.exists(sys.argv[1] + ".fail"))
"""


class Pager:
    """A command that writes down what it is told; it fails while told to."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "told; $(touch shell)"
        (directory / "note.py").write_text(NOTE)
        self.command = (sys.executable, str(directory / "note.py"), str(self.path))
        self._fail = self.path.with_name(self.path.name + ".fail")

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    @property
    def statuses(self) -> list[tuple[str, str]]:
        return [(each["alert"], each["status"]) for each in self.told]

    @property
    def environment(self) -> str:
        return self.path.with_name(self.path.name + ".env").read_text()

    def fail(self, *, now: bool) -> None:
        self._fail.touch() if now else self._fail.unlink()


@pytest.fixture
def pager(tmp_path: Path) -> Pager:
    return Pager(tmp_path)


class Watched:
    """A spool, and an alerting that looks at it when it is told to, at a time that the test sets."""

    def __init__(self, path: Path, alerts: Alerts) -> None:
        self.queue = Queue(path)
        self.now = time.time()
        self.said: list[str] = []
        self._config = Config(alerts=alerts)
        self.restart()

    def provider(self, auth: OAuth2) -> Provider:
        """Have one provider, with such a login."""
        [made] = self.providers(cloud=auth)
        return made

    def providers(self, **logins: OAuth2) -> tuple[Provider, ...]:
        """Have these providers, by name."""
        made = tuple(
            Provider(host=f"smtp.{name}.example", name=name, auth=auth) for name, auth in logins.items()
        )
        self._config = replace(self._config, forward_smtp=True, forward_providers=made)
        self.restart()
        return made

    def restart(self) -> None:
        spool = self.queue.spool
        self._log = MailLog(lambda: self.now, lambda _level, *said: self.said.append(repr(said)))
        self._alerting = Alerting(spool, self._log, AlertSettings(self._config, "relay.example.com"))

    def look(self) -> frozenset[str]:
        lookout = Lookout(self.queue.spool, lambda: self.now)
        asyncio.run(self._alerting.consider(lookout.look()))
        return self._alerting.firing

    def fail_some(self, count: int) -> None:
        for _ in range(count):
            self.queue.fail(self.queue.new(), "550 no")

    def keep_failed(self, count: int) -> None:
        """Have the operator remove all but some of what failed."""
        failed = [spot for spot in spots(self.queue.spool) if spot.place == "failed"]
        for spot in failed[count:]:
            Operator(self.queue.spool, "alice").remove(spot)

    def run(self) -> None:
        at = clock.rfc3339(self.now)
        last_run.write(self.queue.spool, LastRun(at=at, began=at, seconds=0.0, mode="once"))


@contextmanager
def hook(status: int = 204) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A web server that takes alerts; yields its URL, with a secret in it, and what it was told."""
    told: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            assert self.headers["content-type"] == "application/json"
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hooks/s3cret-T0KEN", told
        finally:
            server.shutdown()
            thread.join()


def test_an_alert_is_sent_once_by_command_and_shown_everywhere_even_after_a_restart(
    relay: Relay, pager: Pager
) -> None:
    relay.configure({"alerts": {"failedMoreThan": 0, "command": list(pager.command)}})
    states = Queue(relay.spool)
    states.fail(states.new(), "550 no")
    with relay.monitor() as monitor:
        until(lambda: pager.told, "the alert")
        health = ask(relay.http_port, "/health").json
        assert (health["status"], health["checks"]["alerts"]["status"]) == ("degraded", "degraded")
        assert "failedMoreThan" in health["checks"]["alerts"]["message"]
        text = ask(relay.http_port, "/metrics", headers={"Accept": "text/plain"}).body
        assert b'mailer_alert_firing{alert="failedMoreThan"} 1.0' in text
        assert b'mailer_alert_firing{alert="noRunFor"} 0.0' in text
        assert "1 messages have failed" in monitor.output()
    [alert] = pager.told
    assert {key: alert[key] for key in ("alert", "status", "value", "threshold")} == {
        "alert": "failedMoreThan", "status": "firing", "value": 1, "threshold": 0
    }  # fmt: skip
    assert alert.keys() == {
        "alert",
        "about",
        "status",
        "value",
        "threshold",
        "since",
        "at",
        "host",
        "message",
    }
    assert "'MAILER_ALERT': 'failedMoreThan', 'MAILER_ALERT_STATUS': 'firing'" in pager.environment
    assert "MAILER_CONFIG" not in pager.environment
    assert not list(pager.path.parent.glob("**/shell"))
    with relay.monitor():
        until((relay.spool / "state/alerts.json").exists, "the state")
        assert ask(relay.http_port, "/health").json["checks"]["alerts"]["status"] == "degraded"
    assert len(pager.told) == 1


def test_a_webhook_gets_the_alert_and_its_url_is_a_secret(relay: Relay) -> None:
    queue(relay.spool, received=time.time() - 7000)
    with hook() as (url, told):
        relay.configure({"alerts": {"queueOlderThan": "1h", "webhook": url}})
        with relay.monitor() as monitor:
            until(lambda: told, "the alert")
            assert "T0KEN" not in monitor.output()
    [(path, body)] = told
    assert path == "/hooks/s3cret-T0KEN"
    assert json.loads(body)["alert"] == "queueOlderThan"
    assert json.loads(body)["value"] > 7000


def test_a_value_that_oscillates_around_its_threshold_raises_one_alert(
    spool_path: Path, pager: Pager
) -> None:
    watched = Watched(spool_path, Alerts(failed_more_than=10, command=pager.command))
    watched.fail_some(10)
    assert watched.look() == frozenset()
    watched.fail_some(1)
    assert watched.look() == {"failedMoreThan"}
    for count in (10, 9):
        watched.keep_failed(count)
        watched.restart()
        assert watched.look() == {"failedMoreThan"}
        watched.fail_some(2)
        assert watched.look() == {"failedMoreThan"}
    assert pager.statuses == [("failedMoreThan", "firing")]
    watched.keep_failed(8)
    assert watched.look() == frozenset()
    assert watched.look() == frozenset()
    watched.restart()
    assert watched.look() == frozenset()
    assert pager.statuses == [("failedMoreThan", "firing"), ("failedMoreThan", "resolved")]
    assert pager.told[1]["since"] == pager.told[0]["since"]
    watched.fail_some(3)
    watched.look()
    assert pager.statuses[2:] == [("failedMoreThan", "firing")]


def test_a_receiver_of_events_that_is_dead_for_an_hour_raises_an_alert(
    spool_path: Path, pager: Pager
) -> None:
    watched = Watched(spool_path, Alerts(events_older_than=Seconds(3600), command=pager.command))
    waiting = Progress(
        cursor=Cursor(positions={}), looked=watched.now, failures=9, waiting_since=clock.rfc3339(watched.now)
    )
    event_store.write(watched.queue.spool, waiting)
    watched.now += 3599
    assert watched.look() == frozenset()
    watched.now += 2
    assert watched.look() == {"eventsOlderThan"}
    event_store.write(watched.queue.spool, Progress(cursor=Cursor(positions={}), looked=watched.now))
    assert watched.look() == frozenset()
    assert pager.statuses == [("eventsOlderThan", "firing"), ("eventsOlderThan", "resolved")]


def test_an_expiry_within_14_days_raises_one_alert_and_its_renewal_another(
    spool_path: Path, pager: Pager
) -> None:
    """By the date that the operator wrote down, unless something ends before it, as a server has said."""
    watched = Watched(spool_path, Alerts(command=pager.command))
    auth = OAuth2(type=Kind.OAUTH2, grant=Grant.REFRESH_TOKEN, client_id="app", expires="2027-01-31")
    watched.provider(auth)
    day = 86_400.0
    watched.now = clock.seconds("2027-01-31T00:00:00.000000Z") - 14.1 * day
    assert watched.look() == frozenset()
    watched.now += 0.2 * day
    for _ in range(2):
        assert watched.look() == {"secretEndsWithin"}
    assert pager.statuses == [("secretEndsWithin", "firing")]
    assert "cloud: the secret or certificate ends 2027-01-31" in pager.told[0]["message"]
    newer = replace(auth, expires="2028-01-31")
    account = newer.record(watched.provider(newer).account)
    assert watched.look() == frozenset()
    unused = watched.now - 77 * day
    kept = Tokens(account=account, refreshed=unused, refresh_ends=unused + 90 * day, replaced=True)
    token_store.write(watched.queue.spool, kept.account, kept)
    assert watched.look() == {"secretEndsWithin"}
    assert "cloud: the refresh token ends" in pager.told[-1]["message"]
    assert "mailer auth test cloud puts that off" in pager.told[-1]["message"]


def ending(day: str) -> OAuth2:
    return OAuth2(type=Kind.OAUTH2, grant=Grant.REFRESH_TOKEN, client_id="app", expires=day)


def at(day: str) -> float:
    return clock.seconds(f"{day}T00:00:00.000000Z")


def test_each_expiry_raises_an_alert_whatever_expires_before_it(spool_path: Path, pager: Pager) -> None:
    """One that has ended and is not renewed hides no other; each is over when it itself is renewed."""
    watched = Watched(spool_path, Alerts(command=pager.command))
    watched.providers(first=ending("2027-01-10"), second=ending("2027-01-20"))

    def told() -> list[tuple[str, str]]:
        return [(each["about"].partition(":")[0], each["status"]) for each in pager.told]

    for day, expected in (
        ("2026-12-20", []),
        ("2026-12-28", [("first", "firing")]),
        ("2027-01-07", [("first", "firing"), ("second", "firing")]),
        ("2027-01-12", [("first", "firing"), ("second", "firing")]),
    ):
        watched.now = at(day)
        for _ in range(2):
            watched.look()
            watched.restart()
        assert told() == expected
    watched.providers(first=ending("2028-01-10"), second=ending("2027-01-20"))
    assert watched.look() == {"secretEndsWithin"}
    assert told()[2:] == [("first", "resolved")]
    watched.providers(first=ending("2028-01-10"), second=ending("2028-01-20"))
    assert watched.look() == frozenset()
    assert told()[3:] == [("second", "resolved")]
    assert {each["alert"] for each in pager.told} == {"secretEndsWithin"}


def test_all_expiries_of_one_provider_raise_alerts(spool_path: Path, pager: Pager) -> None:
    watched = Watched(spool_path, Alerts(command=pager.command))
    auth = ending("2027-01-10")
    [made] = watched.providers(cloud=auth)
    account, watched.now = auth.record(made.account), at("2027-01-09")
    kept = Tokens(account=account, refreshed=watched.now, refresh_ends=at("2027-01-12"))
    token_store.write(watched.queue.spool, account, kept)
    watched.look()
    assert [each["about"] for each in pager.told] == [
        "cloud: the secret or certificate", "cloud: the refresh token"
    ]  # fmt: skip


def test_an_expiry_postponed_by_days_raises_another_alert_once_the_first_is_past(
    spool_path: Path, pager: Pager
) -> None:
    watched = Watched(spool_path, Alerts(command=pager.command))
    watched.provider(ending("2027-01-10"))
    for day, renewed, ends in (
        ("2027-01-07", "2027-01-10", ["2027-01-10"]),
        ("2027-01-08", "2027-01-18", ["2027-01-10"]),
        ("2027-01-11", "2027-01-18", ["2027-01-10", "2027-01-18"]),
        ("2027-01-19", "2027-01-18", ["2027-01-10", "2027-01-18"]),
    ):
        watched.provider(ending(renewed))
        watched.now = at(day)
        assert watched.look() == {"secretEndsWithin"}
        assert [
            end for each, end in zip(pager.told, ends, strict=True) if f"ends {end}" in each["message"]
        ] == ends


def test_a_host_without_runs_raises_an_alert_and_one_that_was_off_for_a_night_does_not(
    spool_path: Path, pager: Pager
) -> None:
    watched = Watched(spool_path, Alerts(no_run_for=Seconds(600), command=pager.command))
    watched.run()
    watched.now += 8 * 3600
    watched.restart()
    assert watched.look() == frozenset()
    watched.now += 599
    assert watched.look() == frozenset()
    watched.now += 2
    assert watched.look() == {"noRunFor"}
    watched.run()
    assert watched.look() == frozenset()
    assert pager.statuses == [("noRunFor", "firing"), ("noRunFor", "resolved")]


def test_an_alert_that_could_not_be_sent_is_sent_later_unless_it_is_over(
    spool_path: Path, pager: Pager
) -> None:
    watched = Watched(spool_path, Alerts(failed_more_than=0, command=pager.command))
    pager.fail(now=True)
    watched.fail_some(1)
    assert watched.look() == {"failedMoreThan"}
    assert watched.look() == {"failedMoreThan"}
    assert len(pager.told) == 1  # The next try is a minute away.
    assert any("could not be sent" in each for each in watched.said)
    pager.fail(now=False)
    watched.restart()
    watched.look()
    watched.look()
    assert len(pager.told) == 2
    pager.fail(now=True)
    watched.keep_failed(0)
    watched.look()
    pager.fail(now=False)
    watched.restart()
    assert watched.look() == frozenset()
    assert pager.statuses[2:] == [("failedMoreThan", "resolved")] * 2


@pytest.mark.parametrize("trouble", ["refused", "500", "missing command", "no secret"])
def test_a_way_that_does_not_work_is_said_and_stops_nothing(spool_path: Path, trouble: str) -> None:
    with hook(500) as (url, _):
        alerts = {
            "refused": Alerts(failed_more_than=0, webhook=Secret("http://127.0.0.1:1/s3cret-T0KEN")),
            "500": Alerts(failed_more_than=0, webhook=Secret(url)),
            "missing command": Alerts(failed_more_than=0, command=("/nonexistent",)),
            "no secret": Alerts(failed_more_than=0, webhook=Secret("", environ={})),
        }[trouble]
        watched = Watched(spool_path, alerts)
        watched.fail_some(1)
        assert watched.look() == {"failedMoreThan"}
    said = "\n".join(watched.said)
    assert ("could not be sent" in said) == (trouble != "no secret")
    assert "T0KEN" not in said


def test_a_state_file_that_cannot_be_read_counts_as_none(spool_path: Path, pager: Pager) -> None:
    with Spool.open(spool_path, create=True):
        (spool_path / "state" / "alerts.json").write_bytes(b'{"failedMoreThan":\xff')
    watched = Watched(spool_path, Alerts(failed_more_than=0, command=pager.command))
    watched.fail_some(1)
    assert watched.look() == {"failedMoreThan"}
    assert len(pager.told) == 1
