"""The sign of life that a runner leaves: `state/last-run.json`, for the monitor and the doctor."""

import json
import signal
from pathlib import Path

from outbound.hostile import Server, per_address
from outbound.sending import forward_to, queue
from testbed.relay import Relay
from testbed.waiting import until

from mailer import __version__
from mailer.mail import clock
from mailer.spool.directory import Spool
from mailer.spool.state import last_run, small_files


def marker(spool: Path) -> dict[str, object]:
    marked: dict[str, object] = json.loads((spool / "state/last-run.json").read_text())
    return marked


def test_a_run_says_when_it_ended_and_what_it_did(relay: Relay) -> None:
    replies = per_address({"later@example.net": "450 4.2.2 full", "never@example.net": "550 5.1.1 unknown"})
    with Server({"rcpt": replies}) as server:
        relay.configure(forward_to(server))
        for name in ("a", "b", "later", "never"):
            queue(relay.spool, [f"{name}@example.net"])
        assert relay.mailer_send().returncode == 0
    marked = marker(relay.spool)
    counts = {"claimed": 4, "sent": 2, "deferred": 1, "failed": 1, "held": 0}
    assert {key: marked[key] for key in counts} == counts
    assert (marked["mode"], marked["version"]) == ("once", __version__)
    assert clock.seconds(str(marked["at"])) >= clock.seconds(str(marked["began"]))
    assert [path.name for path in (relay.spool / "state").glob("*last-run*")] == ["last-run.json"]
    assert relay.mailer_send().returncode == 0
    assert marker(relay.spool)["claimed"] == 0
    with Spool.open(relay.spool) as spool:
        found = last_run.read(spool)
    assert found is not None
    assert found.at == marker(relay.spool)["at"]


def test_a_runner_that_stays_says_so_from_its_start_to_its_end(relay: Relay) -> None:
    path = relay.spool / "state/last-run.json"
    with relay.watch() as runner:
        until(path.exists, "the first mark")
        first = marker(relay.spool)
        queue(relay.spool)
        until(lambda: len(relay.delivered()) == 1, "the message")
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0
    last = marker(relay.spool)
    assert (first["mode"], last["sent"]) == ("watch", 1)
    assert last["began"] == first["began"]


def test_a_mark_that_cannot_be_written_stops_no_mail(relay: Relay) -> None:
    queue(relay.spool)
    (relay.spool / "state/last-run.json").mkdir()
    done = relay.mailer_send()
    assert done.returncode == 0
    assert "state/last-run.json cannot be written; no mail depends on it" in done.stderr
    assert len(relay.delivered()) == 1
    with Spool.open(relay.spool) as spool:
        assert last_run.read(spool) is None
        assert small_files.read(spool, "no such file") is None


def test_a_dry_run_leaves_no_mark(relay: Relay) -> None:
    queue(relay.spool)
    assert relay.mailer_send("--dry-run").returncode == 0
    assert not (relay.spool / "state/last-run.json").exists()
