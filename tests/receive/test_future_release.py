"""Mail that its sender has scheduled (FUTURERELEASE, RFC 4865) is neither early nor lost."""

import json
import re
import smtplib
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from inbound.receiving import OPEN, running
from spools.crash import dying_at
from spools.runner import claims_of
from spools.strategies import NOW
from spools.walk import walk
from testbed.faketime import faketime
from testbed.relay import USERNAME, Relay

from mailer.mail.envelope import Envelope, Recipient
from mailer.monitor.queue import QueueView
from mailer.receive.smtp.parameters import ParameterError, mail_parameters
from mailer.spool.changes import make_durable
from mailer.spool.directory import Spool
from mailer.spool.due import due_buckets
from mailer.spool.incoming import Incoming
from mailer.spool.layout import Place, bucket_for, full_minute, scheduled_bucket_for
from mailer.spool.message_state import Disposition
from mailer.spool.run.operate import Operator
from mailer.spool.run.sweep import requeue_due
from mailer.spool.scan import find
from mailer.spool.view.inspect import listing
from mailer.spool.view.summary import Summary, of_seen, summaries

TO = "bob@example.net"
DAY = 86_400.0
HORIZON = 3600.0
MESSAGE = b"From: <app@example.com>\r\nSubject: x\r\n\r\nhello\r\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HOLDFOR=1", 1),
        ("holdfor=999999999", 999_999_999),
        ("HOLDUNTIL=2027-01-31T08:00:00Z", 1_801_382_400.0),
        ("HOLDUNTIL=2027-01-31T09:00:00.25+01:00", 1_801_382_400.25),
        ("HOLDFOR", None),
        ("HOLDFOR=0", None),
        ("HOLDFOR=-1", None),
        ("HOLDFOR=1e3", None),
        ("HOLDFOR=\u00b2", None),
        ("HOLDFOR=1000000000", None),
        ("HOLDUNTIL=2027-01-31T07:59:60Z", 1_801_382_400.0),
        ("HOLDUNTIL=2027-01-31T08:59:60+01:00", 1_801_382_400.0),
        ("HOLDUNTIL=2027-01-31T08:00:61Z", None),
        ("HOLDUNTIL", None),
        ("HOLDUNTIL=tomorrow", None),
        ("HOLDUNTIL=2027-01-31", None),
        ("HOLDUNTIL=2027-01-31T08:00:00", None),
        ("HOLDUNTIL=2027-13-31T08:00:00Z", None),
        ("HOLDUNTIL=2027-W05-7T08:00:00Z", None),
        ("HOLDFOR=1 HOLDUNTIL=2027-01-31T08:00:00Z", None),
        ("HOLDFOR=1 HOLDFOR=1", None),
    ],
)
@pytest.mark.security_case(121)
def test_a_time_to_wait_for_is_one_or_is_refused(text: str, expected: float | None) -> None:
    if expected is None:
        with pytest.raises(ParameterError) as refused:
            mail_parameters(text)
        assert refused.value.code == 501
    else:
        given = mail_parameters(text)
        assert (given.hold_for or given.hold_until) == expected


def test_clients_hear_how_far_ahead_they_may_schedule_and_no_further_is_taken(tmp_path: Path) -> None:
    with (
        running(tmp_path, replace(OPEN, max_future_release=3600)) as receiver,
        smtplib.SMTP(*receiver.address, timeout=60) as client,
    ):
        client.ehlo()
        most, last = client.esmtp_features["futurerelease"].split()
        assert most == "3600"
        ahead = datetime.strptime(last, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp() - time.time()
        assert 3600 - 600 < ahead <= 3600
        assert client.mail(USERNAME, ["HOLDFOR=3601"]) == (
            501,
            b"5.5.4 The message may wait for 1h at most, 3600 seconds (maxFutureRelease)",
        )
        assert client.mail(USERNAME, ["HOLDUNTIL=2099-01-01T00:00:00Z"])[0] == 501
        assert client.mail(USERNAME, ["HOLDUNTIL=2001-01-01T00:00:00Z"])[0] == 250
        client.rcpt(TO)
        assert client.data(MESSAGE)[0] == 250
        assert client.mail(USERNAME, ["HOLDFOR=3600"])[0] == 250
        client.rset()
        client.helo()
        assert client.mail(USERNAME, ["HOLDFOR=10"])[0] == 555
        assert {found.place for found in walk(receiver.spool).values()} == {"new"}, "its time has passed"
    with (
        running(tmp_path, replace(OPEN, max_future_release=0)) as receiver,
        smtplib.SMTP(*receiver.address, timeout=60) as client,
    ):
        client.ehlo()
        assert "futurerelease" not in client.esmtp_features
        assert client.mail(USERNAME, ["HOLDFOR=10"])[0] == 555


def schedule(spool: Spool, due: float, *, key: bool = False) -> str:
    envelope = Envelope(USERNAME, (Recipient(TO), Recipient("eve@example.org")))
    incoming = Incoming.create(spool, received=NOW, user="", peer="127.0.0.1", envelope=envelope)
    incoming.write(MESSAGE)
    incoming.seal(NOW, scheduled=due)
    make_durable(spool, incoming)
    incoming.release()
    return incoming.id


def test_nothing_is_early_however_far_ahead_and_a_wrong_clock_of_ours_still_is(tmp_path: Path) -> None:
    due = NOW + 20 * DAY
    with Spool.open(tmp_path / "spool", create=True) as spool:
        name = schedule(spool, due)
        ours = bucket_for(due)
        spool.make_directory(f"{Place.RETRY}/{ours}")
        assert due_buckets(spool, NOW, HORIZON) == [ours]
        assert due_buckets(spool, due - 60, HORIZON) == []
        assert due_buckets(spool, due + 60, HORIZON) == [ours, scheduled_bucket_for(due)]
        (seen,) = listing(spool, NOW)
        assert seen.entry
        state = seen.entry.state
        assert (state.scheduled, state.next, state.since) == (due, due, due)
        assert state.disposition(NOW, HORIZON) is Disposition.WAIT
        assert state.disposition(due, HORIZON) is Disposition.ATTEMPT
        # A listing takes it from the file's bytes, and says the same.
        (summary,) = summaries(spool, time.time() + DAY)
        assert isinstance(summary, Summary)
        assert summary == of_seen(seen)
        # It counts as mail that waits, and is not late: no alert is for it.
        queue = QueueView(spool, time.time).snapshot()
        assert (queue.waiting, queue.waiting_age(due), queue.due) == (1, 0.0, ((full_minute(due), 1),))
        # The operator's word is not the sender's: what was requeued is due.
        Operator(spool, "ann").retry(find(spool, name)[0], NOW)
        (seen,) = listing(spool, NOW)
        assert seen.entry
        state = seen.entry.state
        assert (seen.spot.place, state.scheduled, state.next, state.since) == (Place.NEW, None, None, NOW)


@pytest.mark.parametrize("torn", [False, True])
def test_whenever_the_receiver_dies_scheduled_mail_is_whole_and_not_early_or_not_there(
    tmp_path: Path, *, torn: bool
) -> None:
    die_at, dead = 0, True
    while dead:
        root = tmp_path / str(die_at)
        Spool.open(root, create=True).close()
        with Spool.open(root) as spool, dying_at(die_at, torn=torn) as boundary:
            schedule(spool, NOW + DAY)
        dead = boundary.dead
        left = walk(root)
        assert all(
            found.intact and found.bucket == scheduled_bucket_for(NOW + DAY) for found in left.values()
        )
        with Spool.open(root) as spool:
            assert list(requeue_due(spool, claims_of(spool, NOW), NOW, HORIZON)) == []
            later = NOW + DAY + 60
            requeued = [spot.name for spot in requeue_due(spool, claims_of(spool, later), later, HORIZON)]
            assert requeued == list(left)
        die_at += 1
    assert len(left) == 1
    assert boundary.calls.count("fsync") == 3, "the message, its bucket, retry/"


def queue_states(relay: Relay) -> list[dict[str, object]]:
    return [json.loads(line) for line in relay.mailer("spool", "ls", "--json").stdout.splitlines()]


def test_scheduled_mail_waits_for_its_time_or_for_the_operators_word(relay: Relay) -> None:
    with relay.serve(), relay.connect() as client:
        ids = []
        for _ in range(2):
            client.mail(USERNAME, [f"HOLDFOR={20 * 86_400}"])
            client.rcpt(TO)
            code, text = client.data(MESSAGE)
            assert code == 250
            ids.append(text.split()[4].decode())
    assert relay.mailer_send("--once").returncode == 0
    listed = relay.mailer("spool", "ls").stdout
    assert len(re.findall(r"scheduled until \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ, in 20d", listed)) == 2, listed
    why = relay.mailer("spool", "why", ids[0]).stdout
    assert "Not tried yet; scheduled until" in why
    assert f"`mailer spool retry {ids[0]}` sends it now." in why
    # What is for all mail is not for this; what is held and released waits on.
    assert "0 messages" in relay.mailer("spool", "retry", "--all").stderr
    for verb in ("hold", "release"):
        assert relay.mailer("spool", verb, ids[0]).returncode == 0
    assert relay.mailer_send("--once").returncode == 0
    assert [state["state"] for state in queue_states(relay)] == ["retry", "retry"]
    assert relay.mailer("spool", "fsck").returncode == 0
    assert relay.delivered() == []
    assert relay.mailer("spool", "retry", ids[0]).returncode == 0
    assert relay.mailer_send("--once").returncode == 0
    assert len(relay.delivered()) == 1
    # It is not too old at once: its age counts from its time.
    # Of a clock that is set ahead all at once nothing is believed, least of all what cannot be called back.
    assert relay.mailer_send("--once", under=faketime("+21d")).returncode == 0
    assert "0 messages requeued" in relay.mailer("spool", "sweep", under=faketime("+21d")).stdout
    assert len(relay.delivered()) == 1
    assert relay.mailer("spool", "trust-clock", under=faketime("+21d")).returncode == 0
    assert relay.mailer_send("--once", under=faketime("+21d")).returncode == 0
    assert len(relay.delivered()) == 2
    assert queue_states(relay) == []
