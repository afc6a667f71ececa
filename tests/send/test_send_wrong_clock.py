"""A clock that is wrong for a while expires no mail and deletes no ledger."""

import json
import os
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from outbound.hostile import Server
from outbound.sending import TO, forward_to, found, outcomes, queue
from spools.walk import walk
from testbed.faketime import clock_set
from testbed.relay import Relay
from testbed.waiting import until

from mailer.spool.ids import new_id

pytestmark = pytest.mark.fault_row(10, 34)

DAY = 86_400
LATER = {"rcpt": "450 4.2.0 later"}


def ahead(seconds: float) -> tuple[str, ...]:
    """A clock that was set ahead, on a host whose files have the times of then."""
    command, *environment = clock_set(f"+{seconds:.0f}")
    return (command, "NO_FAKE_STAT=1", *environment)


@pytest.mark.parametrize("state", ["kept", "lost"])
@pytest.mark.parametrize("days", [6, 3650])
def test_a_clock_that_is_ahead_expires_no_fresh_mail_and_deletes_no_ledger(
    relay: Relay, days: int, state: str
) -> None:
    today = f"{datetime.fromtimestamp(time.time(), UTC):%Y%m%d}"
    with Server(LATER) as server:
        relay.configure(
            forward_to(
                server, retry={"schedule": ["1m"], "maxAge": "5d"}, delayWarning="4h", logRetention="3d"
            )
        )
        relay.configure({"bounce": "sender"})
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        left = relay.spool / "tmp" / new_id(time.time())
        left.touch(mode=0o600)
        for seconds in (0, 150, 300):
            if state == "lost":
                shutil.rmtree(relay.spool / "state")
            done = relay.mailer_send("--once", under=ahead(days * DAY + seconds))
            assert done.returncode == 0
            # Told by the first run that sees it; cron mails what each run says.
            assert ("while this host ran" in done.stderr) is (state == "kept" and seconds == 0)
        swept = relay.mailer("spool", "sweep", "--json", under=ahead(days * DAY + 400))
    assert json.loads(swept.stdout)["removed"] == 0
    now = found(relay.spool, message)
    assert now is not None
    assert outcomes(now) == [("deferred", (TO,))] * 4
    assert set(walk(relay.spool)) == {message}, "nobody was told of a failure or a delay"
    assert (relay.spool / "log" / f"{today}.jsonl").exists()
    assert left.exists()


def test_what_waits_for_the_clock_is_reported_and_done_once_the_operator_trusts_it(relay: Relay) -> None:
    def at(minutes: int) -> tuple[str, ...]:
        return ahead(30 * DAY + 60 * minutes)

    with Server(LATER) as server:
        relay.configure(forward_to(server, retry={"schedule": ["1m"], "maxAge": "5d"}))
        message = queue(relay.spool)
        relay.mailer_send("--once")
        relay.mailer_send("--once", under=at(0))
        why = relay.mailer("spool", "why", message, under=at(1)).stdout
        assert re.search(r"was set 30d ahead while this host ran: nothing is given up", why)
        doctor = relay.mailer("doctor", "--offline", "--json", under=at(1))
        guard = next(each for each in map(json.loads, doctor.stdout.splitlines()) if each["what"] == "guard")
        assert guard["grade"] == "warning"
        assert "mailer spool trust-clock" in guard["todo"]
        trusted = relay.mailer("spool", "trust-clock", under=at(2))
        assert "the clock is trusted from now on" in trusted.stdout
        doctor = relay.mailer("doctor", "--offline", "--json", under=at(2))
        guard = next(each for each in map(json.loads, doctor.stdout.splitlines()) if each["what"] == "guard")
        assert guard["grade"] == "ok"
        for minutes in (3, 6):
            relay.mailer_send("--once", under=at(minutes))
    now = found(relay.spool, message)
    assert now is not None
    assert (now.place, now.statuses) == ("failed", {TO: "expired"})


@pytest.mark.parametrize("days", [30, -400])
def test_a_runner_that_stays_sees_a_clock_that_is_set_and_that_comes_right(relay: Relay, days: int) -> None:
    """Its clock stands at the end of a minute, so it looks around every second."""
    clock = Clock(relay.directory / "now")
    clock.show()
    log, mark = relay.directory / "1-watch.log", relay.spool / "state/clock.json"

    def doubted(at: str) -> bool:
        doubt = json.loads(mark.read_text()).get("doubt") or {}
        return str(doubt.get("at", "")).startswith(at)

    with relay.watch(under=clock.command):
        until(mark.exists, "the first reading")
        for more in (0, 1, 2):
            shown = clock.show(days + more)
            until(lambda shown=shown: doubted(shown), "the leap is seen")
            if not more:
                old = (relay.spool / "log/20200101.jsonl", relay.spool / "tmp" / new_id(clock.now))
                for path in old:
                    path.touch(mode=0o600)
                    os.utime(path, (clock.now - 2 * DAY,) * 2)
        assert all(path.exists() for path in old)
        clock.show()
        until(lambda: not any(path.exists() for path in old), "it is right again, and what is old goes")
        until(lambda: "the clock is believed" in log.read_text(), "that is told")
        queue(relay.spool)
        until(lambda: len(relay.delivered()) == 1, "mail goes on")
    assert log.read_text().count("while this host ran") == 1


class Clock:
    """The wall clock of a program, to be set while it runs."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.now = time.time() // 60 * 60 + 59
        (command, *environment) = clock_set("+0")
        kept = [each for each in environment if not each.startswith("FAKETIME=")]
        ours = (f"FAKETIME_TIMESTAMP_FILE={file}", "FAKETIME_NO_CACHE=1", "NO_FAKE_STAT=1", "TZ=UTC")
        self.command = (command, *kept, *ours)

    def show(self, days: int = 0) -> str:
        """Stand so many days off; return the time that it shows."""
        moment = datetime.fromtimestamp(self.now + days * DAY, UTC)
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{moment:%Y-%m-%d %H:%M:%S}\n")
        beside.rename(self._file)
        return f"{moment:%Y-%m-%dT%H:%M:%S}"
