"""Mail that came by a clock that was ahead, and put right, is told whole and in the order of events."""

import json
import os
import re
import time

import pytest
from outbound.hostile import Server
from outbound.sending import MESSAGE, TO, forward_to, queue
from spools.walk import walk
from testbed.faketime import clock_set
from testbed.relay import Relay

from mailer.mail import clock
from mailer.maillog.ledger import Line, encode
from mailer.maillog.search import Query, lines_of
from mailer.spool.directory import Spool
from mailer.spool.ids import earliest, new_id
from mailer.spool.layout import LOG

NOW = 1_800_000_000.0
DAY = 86_400.0


def at(days: float) -> str:
    return clock.rfc3339(NOW + days * DAY)


@pytest.mark.parametrize("length", [26, 14])
@pytest.mark.parametrize(
    "days",
    [
        (0, 0.1, 0.2),
        (0, 3, 6),
        (3650, 0.1, 0.2),
        (3650, 3650.1, 0.2),
        (0, 3650, 0.1),
        (0, 0.1, 3650),
        (2, 0.1, 3),
        (0.5, 0, 0.6),
    ],
)
def test_the_history_of_a_message_is_complete_and_in_order_over_several_days(
    relay: Relay, days: tuple[float, float, float], length: int
) -> None:
    name = new_id(NOW + days[0] * DAY)
    with Spool.open(relay.spool, create=True) as spool:
        story = [
            Line(at=at(days[0]), event="accepted", id=name, sender="a@example.com", to=(TO,)),
            Line(at=at(days[1]), event="deferred", id=name, to=(TO,), attempt=1),
            Line(at=at(days[1]), event="requeued", id=name),
            Line(at=at(days[2]), event="sent", id=name, to=(TO,), attempt=2, message="delivered"),
        ]
        for line in story:
            with (spool.path / LOG / f"{line.at[:10].replace('-', '')}.jsonl").open("ab") as file:
                file.write(encode(line))
        prefix = name[:length]
        query = Query(id=prefix, nothing_before=earliest(prefix))
        found = [line.event for line, _ in lines_of(lambda: spool.directory(LOG), query)]
    assert found == ["accepted", "deferred", "requeued", "sent"]


@pytest.mark.parametrize("shift", ["+3650d", "-400d"])
def test_the_age_of_mail_that_came_by_a_wrong_clock_counts_from_when_it_came(
    relay: Relay, shift: str
) -> None:
    """A dead battery and a late time server must not bounce what was accepted a minute ago."""
    with Server({"rcpt": "450 4.2.0 later"}) as server:
        relay.configure(forward_to(server, retry={"schedule": ["1m"], "maxAge": "5d"}))
        assert relay.mailer_send("--once").returncode == 0
        before = time.time()
        with relay.serve(under=clock_set(shift)), relay.connect() as session:
            session.sendmail("app@example.com", [TO], MESSAGE)
        after = time.time()
        for ahead in ("+0", "+3m", "+6m"):
            assert relay.mailer_send("--once", under=clock_set(ahead)).returncode == 0
    (message,) = walk(relay.spool).values()
    assert [event["event"] for event in message.events[1:]] == ["dated", *["deferred"] * 3]
    assert message.place == "retry"
    # The boot clock is written to a tenth of a second.
    assert before - 1 < clock.seconds(str(message.events[1]["since"])) < after + 1
    why = relay.mailer("spool", "why", message.name).stdout
    assert f"its age counts from {message.events[1]['since']}" in why


def test_mail_from_a_boot_whose_clock_was_ahead_does_not_outlive_its_age_by_years(relay: Relay) -> None:
    with Server({"rcpt": "450 4.2.0 later"}) as server:
        relay.configure(forward_to(server))
        name = queue(relay.spool, received=time.time() + 3650 * DAY)
        before = time.time()
        # A spool of one day would have as many signs for the one clock as for the other.
        yesterday = relay.spool / "log" / time.strftime("%Y%m%d.jsonl", time.gmtime(before - DAY))
        yesterday.touch()
        os.utime(yesterday, (before - DAY, before - DAY))
        assert relay.mailer_send("--once").returncode == 0
    (dated,) = [event for event in walk(relay.spool)[name].events if event["event"] == "dated"]
    assert before <= clock.seconds(str(dated["since"])) <= time.time()


def test_mail_that_came_by_a_clock_ahead_is_reported_as_sent_and_is_not_the_last_for_ten_years(
    relay: Relay,
) -> None:
    ahead = clock_set("+3650d")
    with Server() as server:
        relay.configure(forward_to(server))
        with relay.serve(under=ahead), relay.connect() as session:
            session.sendmail("app@example.com", [TO], MESSAGE)
        assert relay.mailer_send("--once").returncode == 0
        last = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert len(server.delivered()) == 2
    lines = [json.loads(line) for line in relay.mailer("log", "--json").stdout.splitlines()]
    (leapt,) = [line["id"] for line in lines if line["event"] == "accepted"]
    told = relay.mailer("log", "--id", leapt, "--json").stdout.splitlines()
    assert [json.loads(line)["event"] for line in told] == ["accepted", "sent"]
    why = relay.mailer("spool", "why", leapt).stdout
    assert "Sent to every recipient" in why
    assert re.search(r"accepted for.*\n.*sent for", why)
    for told_last in (lines[-1:], [json.loads(relay.mailer("log", "--json", "-n", "1").stdout)]):
        assert [line["id"] for line in told_last] == [last]
