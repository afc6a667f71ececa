"""A server that takes fewer recipients at a time gets them in more transactions, in the same attempt."""

import threading

import pytest
from outbound.hostile import DROP, AtMost, Server, Session, per_address, said
from outbound.sending import forward_to, found, queue
from testbed.ports import free_port
from testbed.relay import Relay

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.mail.reply import Reply
from mailer.send.batches import Batches
from mailer.send.smtp.extensions import Extensions, Limits
from mailer.send.smtp.hop_sessions import HANG_AFTER

TEN = [f"user{number}@example.net" for number in range(10)]


@pytest.mark.parametrize(
    ("reply", "extensions"),
    [
        ("452 4.5.3 Your message has too many recipients", ("PIPELINING",)),
        ("452 no", ()),
        ("552 Too many recipients", ("PIPELINING",)),
        ("550 5.5.3 too many", ("PIPELINING",)),
    ],
)
def test_recipients_that_are_too_many_follow_at_once_over_the_same_session(
    relay: Relay, reply: str, extensions: tuple[str, ...]
) -> None:
    with Server({"rcpt": AtMost(4, reply)}, extensions=extensions) as server:
        relay.configure(forward_to(server, batchDelay="1h"))
        message = queue(relay.spool, TEN)
        assert relay.mailer_send("--once").returncode == 0
        assert [sent.recipients for sent in server.messages] == [TEN[:4], TEN[4:8], TEN[8:]]
        assert len(server.sessions) == 1
    assert found(relay.spool, message) is None


def test_a_session_that_ends_with_one_too_many_is_followed_by_smaller_transactions(relay: Relay) -> None:
    """Six sessions ended like this in each attempt, and one recipient was sent the mail."""
    ended = said("421 4.5.3 Too many recipients", DROP)
    with Server({"rcpt": AtMost(4, ended)}) as server:
        relay.configure(forward_to(server, batchDelay="1h"))
        message = queue(relay.spool, TEN)
        assert relay.mailer_send("--once").returncode == 0
        assert [sent.recipients for sent in server.messages] == [TEN[:4], TEN[4:8], TEN[8:]]
        assert len(server.sessions) == 2
    assert found(relay.spool, message) is None


def test_a_server_that_takes_fewer_and_fewer_recipients_is_given_up(relay: Relay) -> None:
    ended = said("421 4.5.3 Too many recipients", DROP)
    with Server({"rcpt": [*[None] * 5, ended, *[None] * 3, ended, ended]}) as server:
        relay.configure(forward_to(server, batchDelay=0))
        message = queue(relay.spool, TEN)
        assert relay.mailer_send("--once").returncode == 0
        assert (server.messages, len(server.sessions) < 20) == ([], True)
    left = found(relay.spool, message)
    assert left
    assert set(left.statuses.values()) == {"deferred"}


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
@pytest.mark.parametrize("end", [DROP, said("421 go away", DROP)])
def test_one_recipient_that_ends_each_session_keeps_the_mail_from_no_other(
    relay: Relay, end: object, extensions: tuple[str, ...]
) -> None:
    """The next attempts have fewer recipients at a time; the others had the mail never."""
    with Server({"rcpt": per_address({TEN[3]: end})}, extensions=extensions) as server:
        relay.configure(forward_to(server, batchDelay=0))
        message = queue(relay.spool, TEN)
        shown = []
        for _ in range(3):
            assert relay.mailer_send("--once").returncode == 0
            shown.append(relay.mailer("spool", "why", message).stdout)
            relay.mailer("spool", "retry", "--all").check_returncode()
        assert "at most 2 of them" in " ".join(shown[0].split())
        assert "tried alone" in " ".join(shown[1].split())
        assert [sent.recipients for sent in server.messages] == [
            [*TEN[:2]], [*TEN[4:6]], [*TEN[6:8]], [*TEN[8:]], [TEN[2]],
        ]  # fmt: skip
    left = found(relay.spool, message)
    assert left
    assert {to for to, status in left.statuses.items() if status != "sent"} == {TEN[3]}


def test_the_same_holds_where_the_next_provider_is_down(relay: Relay) -> None:
    with Server({"rcpt": per_address({TEN[3]: DROP})}) as server:
        relay.configure(forward_to(server, free_port()))
        message = queue(relay.spool, TEN[:4])
        for _ in range(2):
            assert relay.mailer_send("--once").returncode == 0
            relay.mailer("spool", "retry", "--all").check_returncode()
        assert [sent.recipients for sent in server.messages] == [[to] for to in TEN[:3]]
    left = found(relay.spool, message)
    assert left
    assert [to for to, status in left.statuses.items() if status != "sent"] == [TEN[3]]


def test_a_batch_whose_session_breaks_does_not_keep_those_behind_it(relay: Relay) -> None:
    with Server({"rcpt": per_address({TEN[1]: DROP})}) as server:
        relay.configure(forward_to(server, batchDelay=0, batchSize=4))
        message = queue(relay.spool, TEN)
        assert relay.mailer_send("--once").returncode == 0
        assert [sent.recipients for sent in server.messages] == [TEN[4:8], TEN[8:]]
    left = found(relay.spool, message)
    assert left
    assert [to for to, status in left.statuses.items() if status == "deferred"] == TEN[:4]


def test_a_server_whose_sessions_all_break_at_a_recipient_is_tried_three_times(relay: Relay) -> None:
    with Server({"rcpt": DROP}) as server:
        relay.configure(forward_to(server, batchDelay=0, batchSize=2))
        message = queue(relay.spool, TEN)
        assert relay.mailer_send("--once").returncode == 0
        assert len(server.sessions) == 3
    left = found(relay.spool, message)
    assert left
    assert set(left.statuses.values()) == {"deferred"}


LIMITED = ("PIPELINING", "LIMITS MAILMAX=2 RCPTMAX=3 rcptdomainmax=1 MAILMAX2=x")
"""RFC 9422, its keywords in any case, and one parameter that nobody knows."""


def test_a_server_that_says_its_limits_gets_no_more_at_once(relay: Relay) -> None:
    """In a transaction three recipients of one domain; in a session two transactions, and then QUIT."""
    others = ["a@example.org", "b@EXAMPLE.org"]
    with Server(extensions=LIMITED) as server:
        relay.configure(forward_to(server, batchDelay="1h", sending={"maxSessionsPerHop": 1}))
        queue(relay.spool, [TEN[0], *others, *TEN[1:5]])
        queue(relay.spool, [TEN[9]])
        assert relay.mailer_send("--once").returncode == 0
        server.wait()
        sent = [message.recipients for message in server.messages]
        assert sorted(sent) == sorted([[TEN[0], *TEN[1:3]], others, TEN[3:5], [TEN[9]]])
        assert [len(session.messages) for session in server.sessions] == [2, 2]
        assert all(session.commands[-1] == b"QUIT" for session in server.sessions)


@pytest.mark.parametrize(
    ("parameters", "limits"),
    [
        ("", Limits()),
        ("MAILMAX=100 RCPTMAX=20 RCPTDOMAINMAX=1", Limits(100, 20, 1)),
        ("RCPTMAX=0 MAILMAX=-1 RCPTDOMAINMAX=1234567", Limits()),
        ("RCPTMAX MAILMAX= RCPTMAX2=5", Limits()),
    ],
)
def test_limits_are_read_as_rfc_9422_writes_them(parameters: str, limits: Limits) -> None:
    assert Extensions.of(Reply(250, ("me", f"LIMITS {parameters}"))).limits == limits


@pytest.mark.parametrize(
    ("domains", "fit", "following"),
    [
        (["net"] * 6, 2, 2),
        # One that fits, left out like the others, shows that it is not the domains that are too many.
        (["net", "org", "net", "net", "net", "net"], 2, 2),
        # A limit of domains: those of the next one may be many.
        (["net", "org", "org", "org", "org", "org"], 1, 5),
    ],
)
def test_the_next_batch_is_as_large_as_what_the_server_took(
    domains: list[str], fit: int, following: int
) -> None:
    recipients = [Recipient(f"user{n}@example.{domain}") for n, domain in enumerate(domains)]
    batches = Batches(recipients, 6)
    batch = batches.next()
    asked = [one for one in batch if one.address.endswith("net")][:fit]
    batches.settle(batch, [_outcome(one, sent=one in asked) for one in batch])
    assert len(batches.next()) == following


def test_batches_end_where_all_that_were_asked_are_too_many_and_the_others_wait() -> None:
    """Each time the server takes three by its limits (RFC 9422), and then refuses them for their number."""
    batches, settled = Batches([Recipient(address) for address in TEN], 10), 0
    for _ in range(30):
        batch = batches.next()
        outcomes = [_outcome(one, sent=False) for one in batch]
        outcomes[:3] = [
            Outcome(one.address, Status.DEFERRED, "mx.example", "452 4.5.3 too many", Scope.RECIPIENT)
            for one in batch[:3]
        ]
        settled += len(batches.settle(batch, outcomes)[0])
    assert settled == len(TEN)


def _outcome(recipient: Recipient, *, sent: bool) -> Outcome:
    status = Status.SENT if sent else Status.PENDING
    return Outcome(recipient.address, status, "mx.example", "as it is", Scope.RECIPIENT)


def test_others_answers_stand_while_those_that_were_too_many_are_asked_again(relay: Relay) -> None:
    limit = AtMost(3, "452 4.5.3 too many")

    def rcpt(session, line):
        return "550 5.1.1 no such user" if b"user1@" in line else limit(session, line)

    with Server({"rcpt": rcpt}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, TEN[:5])
        relay.mailer_send("--once")
        assert [sent.recipients for sent in server.messages] == [[TEN[0], TEN[2]], [TEN[3], TEN[4]]]
    left = found(relay.spool, message)
    assert left is not None
    assert left.statuses == {to: "bounced" if to == TEN[1] else "sent" for to in TEN[:5]}


def test_a_server_to_which_even_one_is_too_many_is_asked_again_later(relay: Relay) -> None:
    """Halved down to one, which ends it: no endless loop."""
    with Server({"rcpt": "452 4.5.3 too many"}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, TEN[:4])
        relay.mailer_send("--once")
        assert server.messages == []
        mails = [c for session in server.sessions for c in session.commands if c.startswith(b"MAIL")]
        assert len(mails) <= 8
    left = found(relay.spool, message)
    assert left is not None
    assert (left.place, set(left.statuses.values())) == ("retry", {"deferred"})


def test_a_pause_between_batches_keeps_no_place_from_other_messages(relay: Relay) -> None:
    first, letter = threading.Event(), threading.Event()

    def taken(session: Session, _line: bytes) -> None:
        recipients = [command for command in session.commands if command.startswith(b"RCPT")]
        (letter if b"password@example.net" in recipients[-1] else first).set()

    with Server({"dot": taken}) as server:
        hour = {"batchSize": 1, "batchDelay": "1h", "sending": {"concurrency": 1, "shutdownGrace": 0}}
        relay.configure(forward_to(server, **hour))
        campaign = queue(relay.spool, [f"user{number}@example.net" for number in range(3)])
        with relay.watch():
            assert first.wait(30)
            queue(relay.spool, ["password@example.net"])
            assert letter.wait(HANG_AFTER - 1)  # After that it would be taken for one that hangs.
    left = found(relay.spool, campaign)
    assert left is not None
    assert sorted(left.statuses.values()) == ["pending", "pending", "sent"]
