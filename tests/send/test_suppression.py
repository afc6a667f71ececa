"""Who is on the suppression list gets no mail: their sender is notified, and the others get theirs."""

import itertools
import json
import os
import random
from pathlib import Path

import pytest
from outbound.bounces import notices_of, notifications, submit
from outbound.event_hook import hook
from outbound.hostile import Server
from outbound.sending import forward_to, found, outcomes, queue
from testbed.relay import Relay

from mailer.config.model import Config
from mailer.mail.envelope import Recipient
from mailer.send.suppressed import Suppressed
from mailer.spool.directory import Spool
from mailer.spool.state import suppression
from mailer.spool.state.suppression import Entry, _file_of, key

NOW, LATER = "2026-11-22T12:00:00.000000Z", "2026-11-23T12:00:00.000000Z"


@pytest.fixture
def spool(spool_path: Path) -> Spool:
    return Spool.open(spool_path, create=True)


def add(spool: Spool, *names: str, until: str = "") -> list[str]:
    entries = [Entry(address=key(name), at=NOW, by="alice", reason="said no", until=until) for name in names]
    return [entry.address for entry in suppression.add(spool, entries)]


@pytest.mark.parametrize(
    ("listed", "address", "is_listed"),
    [
        ("bob@example.net", "bob@example.net", True),
        ("bob@example.net", "Bob@EXAMPLE.net", True),
        ("BOB@Example.NET", "bob@example.net", True),
        ("bob@example.net", "eve@example.net", False),
        ("bob@example.net", "xbob@example.net", False),
        ("bob@example.net", "bob@example.network", False),
        ("example.net", "anyone@Example.net", True),
        ("@example.net", "anyone@example.net", True),
        ("example.net", "bob@mail.example.net", False),
        ("example.net", '"example.net"@example.org', False),
        ("bob@b\u00fccher.example", "bob@xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "bob@B\u00dcCHER.example", True),
        ("j\u00f6rg@example.net", "j\u00f6rg@example.net", True),
        ('"a b"@example.net', '"a b"@example.net', True),
        ('"a b"@example.net', r'"a\ b"@example.net', True),
        (r'"a\"b"@example.net', r'"\a\"b"@example.net', True),
        ("bob@example.net", '"Bob"@example.net', True),
        ("b.ob@example.net", r'"b.\ob"@example.net', True),
        ('"bob"@example.net', "bob@example.net", True),
        ("bob@example.net", '"bob."@example.net', False),
        ("\u212a@example.net", "k@example.net", False),
    ],
)
def test_addresses_and_domains_are_compared_without_case(
    spool: Spool, listed: str, address: str, *, is_listed: bool
) -> None:
    assert add(spool, listed) == [key(listed)]
    assert bool(suppression.find(spool, address, NOW)) == is_listed


@pytest.mark.parametrize(
    "text", ["", "@", "bob", "localhost", "a b@c.example", "bob@", "bob@x..y", "*", "a,b@c"]
)
def test_what_is_neither_an_address_nor_a_domain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        key(text)


def test_an_entry_ends_when_it_says_so(spool: Spool) -> None:
    add(spool, "bob@example.net", until=LATER)
    assert suppression.find(spool, "bob@example.net", NOW)
    assert suppression.find(spool, "bob@example.net", LATER) is None
    add(spool, "example.net")
    found = suppression.find(spool, "bob@example.net", LATER)
    assert found
    assert found.address == "example.net"


@pytest.mark.security_case(136)
def test_an_entry_is_found_whatever_its_neighbours_say(spool: Spool) -> None:
    """Reasons are anybody's words: in the same file, some look like an entry."""
    bob = "bob@example.net"
    forged = '{"address":"bob@example.net","at":"x"}\n{"address":"bob@example.net"'
    beside = (f"user{number}@example.org" for number in itertools.count())
    names = list(itertools.islice((name for name in beside if _file_of(name) == _file_of(bob)), 2))
    reasons = zip(names, (forged, bob), strict=True)
    suppression.add(spool, [Entry(address=name, at=NOW, reason=reason) for name, reason in reasons])
    assert suppression.find(spool, bob, NOW) is None
    assert all(suppression.find(spool, name, NOW) for name in names)
    add(spool, bob)
    assert suppression.find(spool, bob, NOW)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"address": "bob@example.net", "reason": "by hand"}', "by hand"),
        ('{"reason":"by hand","address":"bob@example.net"}\n', "by hand"),
        ('{"address": "bob@example.net", "reason": ', "its entry cannot be read"),
    ],
)
def test_a_line_that_was_added_by_hand_counts(spool: Spool, line: str, reason: str) -> None:
    add(spool, "bob@example.net", until=NOW)
    with (spool.path / "suppressed" / _file_of("bob@example.net")).open("a") as file:
        file.write(line)
    found = suppression.find(spool, "bob@example.net", LATER)
    assert found
    assert found.reason == reason
    # Nor does it go when another entry of the same file changes.
    names = (f"user{number}@example.org" for number in itertools.count())
    add(spool, next(name for name in names if _file_of(name) == _file_of("bob@example.net")))
    assert suppression.find(spool, "bob@example.net", LATER) == found


def test_the_list_is_the_same_as_a_dictionary_of_what_was_done(spool: Spool) -> None:
    rng, expected = random.Random(3), set[str]()
    names = [f"u{number}@example.net" for number in range(40)]
    for _ in range(60):
        some = rng.sample(names, rng.choice((1, 3, 20)))
        if rng.random() < 0.5:
            assert set(add(spool, *some)) == set(some) - expected
            expected |= set(some)
        else:
            assert set(suppression.remove(spool, some)) == set(some) & expected
            expected -= set(some)
    assert {entry.address for entry in suppression.entries(spool)} == expected
    assert {name for name in names if suppression.find(spool, name, NOW)} == expected


def test_a_file_of_the_list_is_durable_before_it_takes_the_others_place(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(spool, "eve@example.net")
    order: list[str] = []
    sync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (order.append(Path(f"/proc/self/fd/{fd}").readlink().name), sync(fd))
    )
    monkeypatch.setattr(os, "rename", lambda a, b, **at: (order.append(f"{a} {b}"), rename(a, b, **at)))
    add(spool, "bob@example.net")
    name = order[0].removeprefix(".")
    assert order == [f".{name}", f".{name} {name}", "suppressed"]


@pytest.mark.security_case(136)
def test_what_cannot_be_looked_up_is_not_sent(relay: Relay) -> None:
    """A link or a directory in a file's place: who is on the list is not known."""
    with Server() as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        with Spool.open(relay.spool) as spool:
            add(spool, "bob@example.net")
        [file] = [path for path in (relay.spool / "suppressed").iterdir() if path.stat().st_size]
        file.unlink()
        file.symlink_to("/etc/hostname")
        relay.mailer_send("--once")
        assert server.messages == []
        assert found(relay.spool, message)


def test_our_own_postmaster_gets_mail_whatever_the_list_says(spool: Spool) -> None:
    config = Config(hostname="mail.example.com", origin_domain="example.com", bounce="ops@example.com")
    add(spool, "example.com", "mail.example.com", "example.net")
    listed = Suppressed(config, spool, lambda: 0.0)
    addresses = [
        "Postmaster@Example.com", "postmaster@mail.example.com", "ops@example.com",
        "postmaster@example.net", "bob@example.com",
    ]  # fmt: skip
    assert [outcome.address for outcome in listed.outcomes(addresses)] == addresses[3:]


def test_an_entry_counts_from_the_next_attempt_on_also_the_first_of_all(spool: Spool) -> None:
    listed = Suppressed(Config(), spool, lambda: 0.0)
    assert listed.outcomes(["bob@example.net"]) == []
    add(spool, "bob@example.net")
    assert [outcome.address for outcome in listed.outcomes(["bob@example.net"])] == ["bob@example.net"]


def test_the_listed_bounce_once_and_the_others_get_the_mail(relay: Relay) -> None:
    """The sender is on the list, too, and is notified all the same; `why`, the log and an event tell it."""
    with Server() as server, hook() as made:
        relay.configure(forward_to(server) | made.settings() | {"bounce": "sender"})
        relay.mailer_send("--once")
        message = submit(
            relay.spool, *map(Recipient, ("bob@example.net", "eve@example.org", "al@example.com"))
        )
        added = relay.mailer(
            "suppress", "add", "BOB@example.net", "example.org", "app@example.com",
            "--reason", "unsubscribed", "--json",
        )  # fmt: skip
        assert [json.loads(line)["action"] for line in added.stdout.splitlines()] == ["added"] * 3
        relay.mailer_send("--once")
        relay.mailer_send("--once")
        mails = [each.recipients for each in server.messages if each.sender]
        assert mails == [["al@example.com"]]
        [notification] = notifications(server)
        assert notification.to == ["app@example.com"]
        assert notification.recipients.keys() == {"bob@example.net", "eve@example.org"}
        fields = notification.recipients["bob@example.net"]
        assert fields["Status"] == "5.7.1"
        assert "suppression list: unsubscribed" in fields["Diagnostic-Code"]
        assert "Remote-MTA" not in fields
        assert len(notices_of(relay.spool, message)) == 1
        failed = found(relay.spool, message)
        assert failed
        assert [event for event, to in outcomes(failed) if "bob@example.net" in to] == ["bounced", "notified"]
        why = relay.mailer("spool", "why", message).stdout
        assert "suppression list" in why
        assert "mailer suppress rm ADDRESS" in why
        lines = relay.mailer("log", "--to", "bob@example.net", "--status", "bounced", "--json").stdout
        assert json.loads(lines.splitlines()[0])["relay"] == "suppression list"
        kinds = {(event["event"], event.get("to")) for event in made.taken}
        assert {("suppressed", "bob@example.net"), ("sent", "al@example.com")} <= kinds
        assert relay.mailer("suppress", "rm", "bob@example.net").stdout == "removed bob@example.net\n"
        relay.mailer("spool", "retry", message)
        relay.mailer_send("--once")
        assert [each.recipients for each in server.messages if each.sender] == [
            ["al@example.com"], ["bob@example.net"],
        ]  # fmt: skip
        assert len(notifications(server)) == 1


def test_the_list_is_shown_completed_and_carried_to_another_host(relay: Relay, tmp_path: Path) -> None:
    Spool.open(relay.spool, create=True).close()
    source = tmp_path / "list.txt"
    source.write_text("# who said no\nbob@example.net\n\nEVE@example.org\r\nnot an address\nexample.info\n")
    done = relay.mailer("suppress", "import", str(source), "--reason", "said no", "--for", "30d", "--json")
    assert done.returncode == 65
    assert json.loads(done.stdout) == {"added": 3, "replaced": 0, "refused": 1}
    assert done.stderr.startswith("line 5: ")
    listed = relay.mailer("suppress", "ls", "--json").stdout
    rows = [json.loads(line) for line in listed.splitlines()]
    assert [row["address"] for row in rows] == ["bob@example.net", "eve@example.org", "example.info"]
    assert {row["reason"] for row in rows} == {"said no"}
    assert rows[0].keys() == {"address", "at", "by", "reason", "until"}
    text = relay.mailer("suppress", "ls", "EVE").stdout
    assert text.startswith("eve@example.org  since 20")
    assert text.endswith(": said no\n")
    removed = relay.mailer("suppress", "rm", "EVE@example.org", "x@example.org")
    assert removed.returncode == 66
    assert "not on the list: x@example.org" in removed.stderr
    again = relay.mailer("suppress", "import", "-", given=listed)
    assert again.stdout == "1 added, 2 replaced, 0 lines refused\n"
    assert relay.mailer("suppress", "ls", "--json").stdout == listed
    assert relay.mailer("suppress", "add", "nobody").returncode == 2
    assert relay.mailer("spool", "fsck").returncode == 0
