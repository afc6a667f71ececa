"""A clock that is wrong for a while expires no mail and deletes no ledger: FAULTS row 10."""

import shutil
import time
from datetime import UTC, datetime

import pytest
from hostile import Server
from sending import TO, forward_to, found, outcomes, queue
from spool_walk import walk
from testbed.faketime import faketime
from testbed.relay import Relay

from mailer.send.leap import begun_after_gap

DAY = 86_400.0
NOW = 1_800_000_000.0
AHEAD = 3650


@pytest.mark.parametrize(
    ("moments", "begun"),
    [
        ([], None),
        ([NOW - DAY], None),
        ([NOW - 6 * DAY, NOW - 12 * DAY], None),
        ([NOW - 8 * DAY], NOW),
        ([NOW - 150, NOW - 3650 * DAY], NOW - 150),
        ([NOW + 3650 * DAY, NOW - DAY], None),
    ],
)
def test_the_newest_signs_of_life_are_apart_from_older_ones(
    moments: list[float], begun: float | None
) -> None:
    assert begun_after_gap(moments, NOW) == begun


@pytest.mark.parametrize("state", ["kept", "lost"])
def test_two_readings_ten_years_ahead_expire_no_fresh_mail_and_delete_no_ledger(
    relay: Relay, state: str
) -> None:
    today = f"{datetime.fromtimestamp(time.time(), UTC):%Y%m%d}"
    with Server({"rcpt": "450 4.2.0 later"}) as server:
        relay.configure(forward_to(server, retry={"schedule": ["1m"], "maxAge": "5d"}, delayWarning="4h"))
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        for seconds in (0, 150):
            if state == "lost":
                shutil.rmtree(relay.spool / "state")
            shift = faketime(f"+{AHEAD * 86_400 + seconds}")
            assert (
                relay.mailer_send("--once", under=(*shift[:1], "NO_FAKE_STAT=1", *shift[1:])).returncode == 0
            )
    now = found(relay.spool, message)
    assert now is not None
    assert outcomes(now) == [("deferred", (TO,))] * 3
    assert set(walk(relay.spool)) == {message}, "nobody was told of a failure"
    assert (relay.spool / "log" / f"{today}.jsonl").exists()
