"""Recipients that their servers do not know get on the suppression list, and nobody else does."""

import fcntl
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from outbound.hostile import Server, per_address
from outbound.sending import forward_to, queue
from testbed.relay import Relay

from mailer.cli.suppress import suspicion
from mailer.config.model import Config, SuppressUnknown
from mailer.mail.clock import rfc3339
from mailer.mail.outcome import SUPPRESSION_LIST, Outcome, Scope, Status
from mailer.maillog.events import MailLog
from mailer.send.suppressed import Suppressed
from mailer.send.unknown_recipients import Unknown, says_unknown
from mailer.spool.directory import Spool
from mailer.spool.state import suppression
from mailer.spool.state.suppression import Entry

DAY = 86_400.0
HOP = "mx1.example.net[192.0.2.1]:25"
NOBODY = "550 5.1.1 <bob@example.net>: Recipient address rejected: User unknown"


def refusal(reply: str, *, hop: str = HOP, phase: str = "rcpt", status: Status = Status.BOUNCED) -> Outcome:
    return Outcome("bob@example.net", status, hop, reply, Scope.RECIPIENT, phase=phase)


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (refusal(NOBODY), True),
        (refusal("550 5.1.1 The email account that you tried to reach does not exist."), True),
        (refusal("554 5.1.1 no such user here"), True),
        (refusal("550 5.1.1"), True),
        (refusal("550 5.1.1 Bad destination mailbox address"), True),
        # What settles all recipients of a transaction means nobody in particular.
        (refusal("550 5.1.1 no such user", phase="data"), False),
        (refusal("550 5.1.1 no such user", phase="dot"), False),
        (refusal("550 5.1.1 no such user", phase=""), False),
        # Words without the code, and codes of something else.
        (refusal("550 No such user here"), False),
        (refusal("550 5.2.1 The account is disabled"), False),
        (refusal("552 5.2.2 mailbox full"), False),
        (refusal("550 5.1.2 Domain not found"), False),
        (refusal("550 5.7.1 Message rejected as spam"), False),
        # The code, with words of our account, our host or our standing.
        (refusal("550 5.1.1 Your account is suspended, contact billing"), False),
        (refusal("550 5.1.1 Relay access denied"), False),
        (refusal("550 5.1.1 Sender address not verified for this account"), False),
        (refusal("550 5.1.1 Sending quota exceeded"), False),
        (refusal("550 5.1.1 Your IP 192.0.2.9 is listed at bl.example"), False),
        (refusal("550 5.1.1 Recipient is blacklisted here"), False),
        # The code, with words of something else.
        (refusal("550 5.1.1 Mailbox full"), False),
        (refusal("550 5.1.1 over quota"), False),
        (refusal("550 5.1.1 temporarily unavailable, try later"), False),
        (refusal("550 5.1.1 mail from this domain is refused by recipient"), False),
        (refusal("550 5.1.1 One or more recipients rejected"), False),
        (refusal("550 5.1.1 Host unknown"), False),
        (refusal("550 5.1.1 Recipient address rejected: Domain not found"), False),
        (refusal("550 5.1.1 unrouteable address"), False),
        (refusal("550 5.1.1 Only members may post"), False),
        (refusal("550 5.1.1 content rejected: virus"), False),
        (refusal("550 5.1.1 Message rejected"), False),
        (refusal("550 5.1.1 User unknown, or its mailbox is full"), False),
        # Not for good, or not a server's word.
        (refusal("450 4.1.1 user unknown"), False),
        (refusal(NOBODY, status=Status.DEFERRED), False),
        (refusal(NOBODY, hop="example.net"), False),
        (refusal("550 5.1.1 bob is on the list", hop=SUPPRESSION_LIST), False),
    ],
)  # fmt: skip
@pytest.mark.security_case(139)
def test_only_a_servers_clear_word_about_the_recipient_counts(outcome: Outcome, *, counts: bool) -> None:
    assert says_unknown(outcome, alone=False) == counts


def test_words_to_the_final_dot_count_where_there_is_one_recipient() -> None:
    assert says_unknown(refusal(NOBODY, phase="dot"), alone=True)
    assert not says_unknown(refusal("550 5.1.1 Message rejected", phase="dot"), alone=True)


_NOT_OF_A_MAILBOX = (
    "pleine", "overquota", "over quota", "is full", "quota violation", "recipient rejected", "inactive email",
    "not accepting", "techie.example", "not configured", "no longer available", "Address Error",
    "Mailbox delivery", "Not our Customer", "have authorization", "Inactive mbox", "domain map",
)  # fmt: skip
"""What real refusals of recipients with this code have that need not mean that the mailbox does not exist."""


def test_real_refusals_of_unknown_mailboxes_count_and_others_do_not() -> None:
    read = map(json.loads, (Path(__file__).parents[1] / "data" / "replies.jsonl").read_text().splitlines())
    texts = [row["text"] for row in read if row["phase"] == "rcpt" and row["about"] == "recipient"]
    lines = [f"{text[:3]} " + " ".join(line[4:] for line in text.split("\n")) for text in texts]
    coded = [line for line in lines if re.search(r"\b5\.1\.1\b", line)]
    count = [line for line in coded if says_unknown(refusal(line), alone=False)]
    assert len(count) > 20
    assert count == [line for line in coded if not any(words in line for words in _NOT_OF_A_MAILBOX)]


@dataclass
class Feed:
    """A list, what feeds it, and a clock."""

    spool: Spool
    terms: SuppressUnknown
    now: float = 1e9
    said: list[str] = field(default_factory=list)

    def learn(self, *refused: Outcome, sent: tuple[str, ...] = (), dated: bool = True) -> None:
        log = MailLog(lambda: self.now, lambda _level, text, _fields: self.said.append(text))
        exempt = {"postmaster@example.com"}.__contains__
        Unknown(self.terms, self.spool, lambda: self.now, log, exempt).learn(refused, sent, dated=dated)

    def listed(self) -> Entry | None:
        return suppression.find(self.spool, "bob@example.net", rfc3339(self.now))


@pytest.fixture
def feed(spool_path: Path) -> Feed:
    return Feed(Spool.open(spool_path, create=True), SuppressUnknown(enabled=True))


def test_a_second_refusal_a_day_later_puts_a_recipient_on_the_list(feed: Feed) -> None:
    """An hour in which a provider says so of everybody does not, however much mail there is."""
    feed.learn(refusal(NOBODY))
    [entry] = suppression.entries(feed.spool)
    assert f"bob@example.net  not yet: refused at 2001-09-09 01:46:40Z by {HOP}: {NOBODY}" in suspicion(entry)
    for _ in range(10):
        feed.learn(refusal(NOBODY))
        feed.now += 3600
        assert feed.listed() is None
    feed.now += DAY
    feed.learn(refusal(NOBODY))
    entry = feed.listed()
    assert entry
    assert (entry.by, entry.reason, entry.at) == (HOP, NOBODY, rfc3339(feed.now))
    feed.now += 180 * DAY
    assert feed.listed() is None
    feed.learn(refusal(NOBODY))
    assert feed.listed() is None, "what has ended begins anew"
    feed.now += 2 * DAY
    feed.learn(refusal(NOBODY))
    assert feed.listed()


def test_a_delivery_in_between_makes_the_first_refusal_a_mistake(feed: Feed) -> None:
    feed.learn(refusal(NOBODY))
    feed.now += 2 * DAY
    feed.learn(sent=("Bob@example.net", "eve@example.org"))
    feed.learn(refusal(NOBODY))
    assert feed.listed() is None
    feed.now += 2 * DAY
    feed.learn(refusal(NOBODY))
    assert feed.listed()


def test_a_delivery_counts_and_a_refusal_does_not_while_the_clock_is_doubted(feed: Feed) -> None:
    feed.learn(refusal(NOBODY), dated=False)
    assert list(suppression.entries(feed.spool)) == []
    feed.learn(refusal(NOBODY))
    feed.learn(sent=("bob@example.net",), dated=False)
    assert list(suppression.entries(feed.spool)) == []


def test_a_list_that_an_operators_command_has_locked_is_not_waited_for(feed: Feed) -> None:
    feed.learn(refusal(NOBODY))
    feed.now += 2 * DAY
    with feed.spool.directory("suppressed") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        feed.learn(refusal(NOBODY))
        assert feed.said[-1] == "the suppression list was not changed"
        assert feed.listed() is None
    feed.learn(refusal(NOBODY))
    assert feed.listed()


def test_our_own_addresses_are_left_out_in_every_spelling(feed: Feed) -> None:
    config = Config(origin_domain="bücher.example", bounce="Ops@münchen.example")
    listed = Suppressed(config, feed.spool, lambda: feed.now)
    assert listed.exempts("postmaster@xn--bcher-kva.example")
    assert listed.exempts("PostMaster@bücher.example")
    assert listed.exempts("ops@xn--mnchen-3ya.example")
    assert not listed.exempts("eve@xn--mnchen-3ya.example")


def test_an_operators_entry_stays_as_it_is_and_our_own_addresses_are_left_out(feed: Feed) -> None:
    by_hand = Entry(address="bob@example.net", at=rfc3339(feed.now), by="alice", reason="said no")
    suppression.add(feed.spool, [by_hand])
    feed.terms = SuppressUnknown(enabled=True, confirm_after=0.0, keep_for=0.0)  # type: ignore[arg-type]
    feed.learn(refusal(NOBODY), Outcome("postmaster@example.com", Status.BOUNCED, HOP, NOBODY), sent=("x",))
    assert list(suppression.entries(feed.spool)) == [by_hand]
    suppression.remove(feed.spool, ["bob@example.net"])
    feed.learn(refusal(NOBODY))
    entry = feed.listed()
    assert entry
    assert entry.until == ""


def test_a_list_that_cannot_be_written_is_logged(feed: Feed) -> None:
    (feed.spool.path / "suppressed").write_text("")
    feed.learn(refusal(NOBODY))
    assert feed.said == ["the suppression list was not changed"]


def test_mail_to_a_recipient_that_does_not_exist_ends_at_home(relay: Relay) -> None:
    """Its server is not asked again, the list says why and since when, and `rm` has it asked."""
    with Server({"rcpt": per_address({"bob@example.net": NOBODY})}) as server:
        told = {"suppressUnknown": {"enabled": True, "confirmAfter": 0}}
        relay.configure(forward_to(server) | told | {"bounce": "off"})
        queue(relay.spool, ["bob@example.net", "eve@example.org"])
        relay.mailer_send("--once")
        [row] = map(json.loads, relay.mailer("suppress", "ls", "--json").stdout.splitlines())
        assert (row["address"], row["by"]) == ("bob@example.net", f"127.0.0.1:{server.port}")
        assert (row["reason"], row["at"][:2]) == (NOBODY, "20")
        asked = len(server.sessions)
        second = queue(relay.spool, ["bob@example.net"])
        relay.mailer_send("--once")
        assert len(server.sessions) == asked
        assert "mailer suppress rm ADDRESS" in relay.mailer("spool", "why", second).stdout
        assert relay.mailer("suppress", "rm", "bob@example.net").returncode == 0
        queue(relay.spool, ["bob@example.net"])
        relay.mailer_send("--once")
        assert len(server.sessions) > asked


def test_a_refusal_of_data_suppresses_none_of_several_recipients(relay: Relay) -> None:
    with Server({"data": b"550 5.1.1 User unknown\r\n"}) as server:
        told = {"suppressUnknown": {"enabled": True, "confirmAfter": 0}}
        relay.configure(forward_to(server) | told | {"bounce": "off"})
        queue(relay.spool, ["bob@example.net", "eve@example.net"])
        relay.mailer_send("--once")
        assert relay.mailer("suppress", "ls", "--json").stdout == ""
        queue(relay.spool, ["bob@example.net"])
        relay.mailer_send("--once")
        [row] = map(json.loads, relay.mailer("suppress", "ls", "--json").stdout.splitlines())
        assert row["address"] == "bob@example.net"
