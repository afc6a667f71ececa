"""When mail is tried again, when it is given up, and what a clock that jumps does to both."""

import time
from pathlib import Path

import pytest
from outbound.hostile import Server, per_address
from outbound.sending import MESSAGE, TO, forward_to, found, outcomes, queue
from spools.walk import Found, walk
from testbed.faketime import faketime
from testbed.relay import Relay

from mailer.mail.clock import seconds
from mailer.send.backoff import JITTER, Backoff

LATER = {"rcpt": "450 4.2.2 mailbox full"}


def left(relay: Relay, message: str) -> Found:
    now = found(relay.spool, message)
    assert now is not None
    return now


def run(relay: Relay, shift: str) -> None:
    """One run with the clock off by this much, such as `+10y`."""
    assert relay.mailer_send("--once", under=faketime(shift)).returncode == 0


def attempts(message: Found) -> list[int]:
    return [event["attempt"] for event in message.events if event["event"] in {"deferred", "expired"}]


def test_each_pause_is_the_schedules_next_and_the_last_one_repeats(relay: Relay) -> None:
    with Server(LATER) as server:
        relay.configure(forward_to(server, retry={"schedule": ["1m", "10m"], "maxAge": "5d"}))
        message = queue(relay.spool)
        for shift in ("+0", "+3m", "+20m", "+40m"):
            run(relay, shift)
    events = [event for event in left(relay, message).events if event["event"] == "deferred"]
    pauses = [seconds(event["next"]) - seconds(event["at"]) for event in events]
    assert [event["attempt"] for event in events] == [1, 2, 3, 4]
    for pause, planned in zip(pauses, (60, 600, 600, 600), strict=True):
        assert planned - 1 <= pause <= planned * (1 + JITTER)


def test_a_message_in_a_bucket_that_is_not_due_is_not_even_opened(relay: Relay) -> None:
    with Server(LATER) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        relay.mailer_send()
        before = left(relay, message)
        relay.mailer_send()
        assert len(server.sessions) == 1
    assert left(relay, message) == before


def test_mail_older_than_the_maximum_age_expires_at_its_second_overdue_attempt(relay: Relay) -> None:
    with Server(LATER) as server:
        relay.configure(forward_to(server, retry={"schedule": ["1m"], "maxAge": "1h"}))
        message = queue(relay.spool)
        run(relay, "+0")
        run(relay, "+2h")
        assert left(relay, message).place == "retry"
        assert left(relay, message).events[-1]["reason"] == "overdue"
        run(relay, "+130m")
    now = left(relay, message)
    assert now.place == "failed"
    assert outcomes(now) == [("deferred", (TO,)), ("deferred", (TO,)), ("expired", (TO,))]
    assert now.events[-1]["reply"] == LATER["rcpt"]


def test_overdue_mail_whose_hop_takes_it_after_all_is_sent(relay: Relay) -> None:
    with Server({"rcpt": [*LATER.values(), *LATER.values(), None]}) as server:
        relay.configure(forward_to(server, retry={"schedule": ["1m"], "maxAge": "1h"}))
        message = queue(relay.spool)
        for shift in ("+0", "+2h", "+130m"):
            run(relay, shift)
        assert server.delivered() == [(TO, MESSAGE)]
    assert found(relay.spool, message) is None


@pytest.mark.fault_row(10)
@pytest.mark.parametrize("jump", ["+10y", "-1y"])
def test_a_clock_that_jumps_and_comes_back_expires_nothing_and_makes_no_hot_loop(
    jump: str, relay: Relay
) -> None:
    """A run tries the message once at most, though its bucket lies years ahead or behind."""
    with Server(LATER) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        for shift in ("+0", jump, "+0", jump, "+0", "+1h"):
            run(relay, shift)
            now = left(relay, message)
            assert (now.place, now.statuses) == ("retry", {TO: "deferred"})
        assert len(server.sessions) <= 6
    assert attempts(now) == list(range(1, len(attempts(now)) + 1))


def test_ids_made_while_the_clock_stood_still_are_unique(relay: Relay, tmp_path: Path) -> None:
    ids = {queue(tmp_path / "spool", received=1e9) for _ in range(100)}
    assert len(ids) == 100


def test_a_run_over_a_spool_of_a_year_ahead_takes_each_message_once(relay: Relay) -> None:
    with Server({"rcpt": per_address({TO: "450 4.2.2 full"})}) as server:
        relay.configure(forward_to(server))
        for _ in range(20):
            queue(relay.spool)
        run(relay, "+1y")
        run(relay, "+0")
        assert len([line for s in server.sessions for line in s.commands if line.startswith(b"RCPT")]) == 40
    assert {message.place for message in walk(relay.spool).values()} == {"retry"}


def test_an_attempt_longer_than_its_pause_is_not_due_the_moment_it_ends(relay: Relay) -> None:
    """The server takes its time; the pause runs from the outcome, so the run ends after one attempt."""
    with Server({"rcpt": slow_refusal}) as server:
        relay.configure(forward_to(server, retry={"schedule": [1]}))
        message = queue(relay.spool)
        relay.mailer_send("--once", "--max-seconds", "10")
        commands = [line for session in server.sessions for line in session.commands]
        assert sum(line.startswith(b"RCPT") for line in commands) <= 2  # a minute may have passed meanwhile
    assert left(relay, message).place == "retry"


def slow_refusal(_session: object, _line: bytes) -> str:
    time.sleep(1.5)
    return "450 4.2.2 mailbox full"


def test_the_operators_retry_opens_what_had_bounced(relay: Relay) -> None:
    with Server({"rcpt": ["550 5.1.1 no such user", None]}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        relay.mailer_send()
        assert left(relay, message).place == "failed"
        assert relay.mailer("spool", "retry", message).returncode == 0
        relay.mailer_send()
        assert server.delivered() == [(TO, MESSAGE)]
    assert found(relay.spool, message) is None


def test_the_last_delay_repeats_and_jitter_only_adds() -> None:
    backoff = Backoff(delays=(60.0, 300.0), max_age=3600.0)
    assert [backoff.delay(attempt, lambda: 0.0) for attempt in (1, 2, 3, 99)] == [60, 300, 300, 300]
    assert backoff.delay(1, lambda: 0.5) == pytest.approx(63)
    assert backoff.horizon == pytest.approx(330)


def test_a_message_is_overdue_only_beyond_its_maximum_age() -> None:
    backoff = Backoff(delays=(60.0,), max_age=3600.0)
    assert not backoff.overdue(since=1000.0, now=4600.0)
    assert backoff.overdue(since=1000.0, now=4600.1)
