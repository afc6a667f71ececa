"""Whole programs deliver events: runs by cron, kills, silent receivers, and the user that a command has."""

import json
import os
import pwd
import random
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from outbound.event_hook import DROP, HANG, SECRET, Hook, hook
from outbound.hostile import Server
from outbound.sending import forward_to, queue
from testbed.ci import only_root
from testbed.faketime import faketime
from testbed.http_client import ask
from testbed.relay import Relay
from testbed.waiting import until

from mailer.events import store
from mailer.events.event import events_of
from mailer.maillog.lines import decode
from mailer.spool.directory import Spool
from mailer.spool.layout import LOG


@pytest.mark.security_case(125)
def test_runs_by_cron_alone_deliver_everything_and_each_command_shows_the_state(relay: Relay) -> None:
    """The receiver is down, then answers 500, then is well; nothing but `mailer-send --once` is started."""
    with hook() as made, Server({"rcpt": "550 5.1.1 no such user"}) as provider:
        relay.configure(forward_to(provider) | made.settings())
        assert relay.mailer_send("--once").returncode == 0
        made.script = [500]
        first = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        waiting = relay.mailer("events", "status", "--json")
        assert waiting.returncode == 1
        state = json.loads(waiting.stdout)
        assert (state["waiting"], state["failures"]) == (1, 1)
        assert state["error"] == "the webhook answered 500"
        text = relay.mailer("events", "status").stdout + relay.mailer("config", "show").stdout
        assert "1 wait, the first since" in text
        assert "T0KEN" not in text
        assert SECRET not in text
        doctor = relay.mailer("doctor", "--offline").stdout
        assert "the webhook answered 500" in doctor
        with relay.monitor():
            answer = ask(relay.http_port, "/health").json
            assert "the webhook answered 500" in answer["checks"]["events"]["message"]
            metrics = ask(relay.http_port, "/metrics", headers={"Accept": "text/plain"}).body
            assert b"\nmailer_events_failures 1.0" in metrics
            assert float(re.findall(rb"\nmailer_events_lag_seconds (\S+)", metrics)[0]) > 0
        assert made.taken == []
        assert relay.mailer_send("--once", under=faketime("+3m")).returncode == 0
        assert [(event["queueId"], event["event"], event["dsn"]) for event in made.taken] == [
            (first, "bounced", "5.1.1")
        ]
        assert relay.mailer("events", "status").stdout.startswith("all events are delivered\n")
        assert relay.mailer("events", "replay", "--since", "1h").returncode == 0
        assert json.loads(relay.mailer("events", "status", "--json").stdout)["waiting"] == 1
        relay.mailer_send("--once")
        assert [event["id"] for event in made.taken] == [made.taken[0]["id"]] * 2
        assert json.loads(relay.mailer("events", "test", "--json").stdout)["taken"]
        assert made.taken[-1]["event"] == "test"
        made.script = [410]
        refused = relay.mailer("events", "test")
        assert refused.returncode == 69
        assert "not taken: the webhook answered 410" in refused.stdout
        made.check_signatures()


def test_a_deliverer_killed_at_random_delivers_everything_in_order(relay: Relay) -> None:
    """While mail goes out, `--watch` is killed again and again, and the receiver fails now and then."""
    rng = random.Random(11)
    with hook() as made, Server() as provider:
        relay.configure(forward_to(provider) | made.settings())
        relay.mailer_send("--once")
        expected: set[tuple[str, str]] = set()
        for _ in range(5):
            for _ in range(6):
                to = [f"{each}@x.example" for each in range(3)]
                expected |= {(queue(relay.spool, to), address) for address in to}
            made.script = [rng.choice((204, 204, 500, DROP))]
            with relay.watch() as runner:
                seen = len(made.requests) + 1
                until(lambda seen=seen: len(made.requests) >= seen or not runner.running, "a request")
                runner.kill()
        made.script = []
        until(
            lambda: relay.mailer_send("--once").returncode == 0 and not list((relay.spool / "cur").iterdir()),
            "the mail",
        )
        until(
            lambda: (
                relay.mailer_send("--once", under=faketime("+10m")).returncode == 0
                and {(event["queueId"], event["to"]) for event in made.taken} >= expected
            ),
            "the events",
        )
        ids = {event["id"]: (event["queueId"], event["to"], event["event"]) for event in made.taken}
        assert len(ids) == len(set(ids.values()))
        check_order(relay.spool, made)


def check_order(spool: Path, made: Hook) -> None:
    """What was taken first of each event comes in the ledger's order."""
    first = list(dict.fromkeys(event["id"] for event in made.taken))
    ledger = dict.fromkeys(
        event.id
        for path in sorted((spool / LOG).iterdir())
        for raw in path.read_bytes().splitlines()
        if (line := decode(raw)) and line.event in {"sent", "deferred", "uncertain"}
        for event in events_of(line, ())
    )
    places = {name: number for number, name in enumerate(ledger)}
    assert [places[name] for name in first] == sorted(places[name] for name in first)


def test_a_run_that_is_stopped_or_out_of_time_abandons_a_receiver_that_hangs(relay: Relay) -> None:
    with hook() as made:
        relay.configure(made.settings())
        relay.mailer_send("--once")
        queue(relay.spool)
        made.script = [HANG] * 9
        assert relay.mailer_send("--once", "--max-seconds", "1").returncode == 0
        assert len(relay.delivered()) == 1
        with Spool.open(relay.spool) as spool:
            progress = store.read(spool)
        assert progress is not None
        assert "too slow" in progress.error


@only_root("only root can become another user")
def test_a_command_runs_as_the_spools_owner_without_our_environment(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    with TemporaryDirectory(prefix="mailer-test-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        relay = Relay(directory)
        output = directory / "output"
        output.touch()
        os.chown(output, nobody.pw_uid, nobody.pw_gid)
        script = f"id -u >> {output}; env >> {output}; cat >> {output}"
        relay.configure({"onEvent": {"command": ["/bin/sh", "-c", script]}})
        queue(relay.spool)
        for path in (relay.spool, *relay.spool.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        relay.mailer_send("--once")
        relay.mailer("events", "replay", "--since", "1h")
        assert relay.mailer_send("--once").returncode == 0
        said = output.read_text()
        assert said.startswith(f"{nobody.pw_uid}\n")
        assert '"event":"sent"' in said
        assert "MAILER_CONFIG" not in said
        assert {path.stat().st_uid for path in relay.spool.rglob("*")} == {nobody.pw_uid}
