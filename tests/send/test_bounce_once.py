"""A sender is notified once about each recipient, whatever is retried, held or lost."""

from pathlib import Path

import pytest
from outbound.bounces import notices_of, notifications, submit
from outbound.hostile import DROP, Server, per_address
from outbound.notifying import (
    ANN,
    BOB,
    EVE,
    LATER,
    NEVER,
    NO_DSN,
    attempts,
    only_notification,
    run,
    sending,
    times_offered,
)
from outbound.sending import SENDER, found, queue
from spools.walk import untold, walk
from testbed.capability import tracer
from testbed.faketime import faketime
from testbed.http_client import post
from testbed.relay import Relay
from testbed.waiting import until

from mailer.mail.envelope import Recipient


def test_a_failure_is_reported_although_the_message_is_held_for_an_uncertain_recipient(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: NEVER}), "dot": [DROP, None]}) as server:
        sending(relay, server, uncertain="hold")
        message = queue(relay.spool, [ANN, BOB])
        run(relay)
        assert list(only_notification(server).recipients) == [BOB]
        left = found(relay.spool, message)
        assert left is not None
        assert (left.place, left.statuses) == ("hold", {ANN: "uncertain", BOB: "bounced"})
        relay.mailer("spool", "release", message)
        run(relay)
        assert len(notifications(server)) == 1
    assert relay.mailer("spool", "fsck").stdout == ""


def test_a_retried_recipient_that_is_refused_again_is_not_reported_again(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server)
        message = queue(relay.spool, [ANN, BOB])
        run(relay)
        relay.mailer("spool", "retry", message)
        run(relay)
        assert times_offered(server, BOB) == 2
        assert [list(each.recipients) for each in notifications(server)] == [[BOB]]
    assert list(notices_of(relay.spool, message).values()) == [[BOB]]
    assert not untold(walk(relay.spool, ("failed",)))


def test_a_retried_recipient_that_was_sent_is_reported_only_to_senders_that_asked(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: NEVER, EVE: NEVER})}, extensions=NO_DSN) as server:
        sending(relay, server)
        message = submit(relay.spool, Recipient(BOB), Recipient(EVE, notify="SUCCESS,FAILURE"))
        run(relay)
        server.script.clear()
        relay.mailer("spool", "retry", message)
        run(relay)
        actions = [{a: r["Action"] for a, r in each.recipients.items()} for each in notifications(server)]
    assert actions == [{BOB: "failed", EVE: "failed"}, {EVE: "relayed"}]


@pytest.mark.parametrize("how", ["retry-failed", "retry --all"])
def test_trying_waiting_mail_every_hour_reopens_no_refused_recipient_and_notifies_nobody_twice(
    relay: Relay, how: str
) -> None:
    """Nor does it begin the maximum age anew, or mail tried every hour would never be given up."""
    with Server({"rcpt": per_address({BOB: NEVER, EVE: LATER})}) as server:
        sending(relay, server)
        message = queue(relay.spool, [ANN, BOB, EVE])
        run(relay)
        for attempt in (2, 3):
            if how == "retry-failed":
                with relay.monitor():
                    assert post(relay.http_port, "/admin/retry-failed").status == 200
                    until(lambda attempt=attempt: attempts(relay, message) == attempt, "another attempt")
            else:
                assert relay.mailer("spool", *how.split()).returncode == 0
                run(relay)
        assert [times_offered(server, who) for who in (ANN, BOB, EVE)] == [1, 1, 3]
        assert only_notification(server).recipients.keys() == {BOB}
        # The host was off for a month, as its operator knows.
        assert relay.mailer("spool", "trust-clock", under=faketime("+31d")).returncode == 0
        run(relay, "+31d")
        run(relay, "+32d")
        assert [list(each.recipients) for each in notifications(server)] == [[BOB], [EVE]]
    left = found(relay.spool, message)
    assert left is not None
    assert (left.place, left.statuses) == ("failed", {ANN: "sent", BOB: "bounced", EVE: "expired"})


def test_thousands_of_refusals_make_one_notification_that_names_all_to_programs(relay: Relay) -> None:
    many = [f"user{number}@example.net" for number in range(3000)]
    with Server({"rcpt": lambda _, line: "550 5.1.1 no" if b"example.net" in line else None}) as server:
        sending(relay, server, batchSize=1000)
        queue(relay.spool, many)
        run(relay)
        bounce = only_notification(server)
    assert list(bounce.recipients) == many
    assert "and 2900 more" in bounce.words
    assert len(bounce.words) < 20_000


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_disk_failure_during_a_bounce_leads_to_exactly_one_notification(
    relay: Relay, tmp_path: Path, number: int
) -> None:
    """The message waits in `cur/`, its outcome on record; nobody is mailed again, the sender is told once."""
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server)
        message = queue(relay.spool, [ANN, BOB])
        fault = f"inject=fsync,fdatasync:error=EIO:when={number}"
        relay.mailer_send("--once", under=(tracer(), "-f", "-o", str(tmp_path / "trace"), "-e", fault))
        run(relay)
        assert [each.recipients.keys() for each in notifications(server)] == [{BOB}]
        assert [to for to, _ in server.delivered() if to != SENDER] == [ANN]
    ((notice, whom),) = notices_of(relay.spool, message).items()
    assert whom == [BOB]
    assert walk(relay.spool, ("new", "cur", "retry", "failed", "sent")).keys() == {message}
    assert notice not in walk(relay.spool, ("tmp",))
