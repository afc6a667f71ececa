"""`mailer spool replay`: a message is sent again to other addresses, as a new message, and unchanged."""

import json
import subprocess
from typing import Any

import pytest
from spools.states import BODY, HOP, Queue
from testbed.relay import Relay

from mailer.spool.layout import Place

WHOLE = "received: old\r\nSubject: an order\r\nFrom: app@example.com\r\n\r\n.\r\nA line.\r\n\xff\r\n".encode(
    "latin-1"
)


@pytest.fixture
def states(relay: Relay) -> Queue:
    return Queue(relay.spool)


def replay(relay: Relay, *arguments: str) -> subprocess.CompletedProcess[str]:
    return relay.mailer("spool", "replay", *arguments)


def shown(relay: Relay, message_id: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(relay.mailer("spool", "show", message_id, "--json").stdout)
    return record


def new_id(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]


def message(relay: Relay, message_id: str) -> bytes:
    return subprocess.run(
        ["mailer", "spool", "show", message_id, "--raw", "--config", str(relay.config)],
        capture_output=True,
        check=True,
    ).stdout


def ledger(relay: Relay) -> list[str]:
    return [line for day in (relay.spool / "log").glob("*.jsonl") for line in day.read_text().splitlines()]


def file_of(relay: Relay, message_id: str) -> bytes:
    [found] = relay.spool.glob(f"*/{message_id}")
    return found.read_bytes()


def test_the_copy_has_a_resent_block_on_top_and_every_other_byte_as_it_was(
    relay: Relay, states: Queue
) -> None:
    """RFC 5322 3.6.6; also under `rewriteFrom`, which counted when the message came."""
    relay.configure({"rewriteFrom": "replaceAndReplyTo", "rewriteFromAddress": "other@example.com"})
    old = states.new("bob@example.net", body=WHOLE)
    before = file_of(relay, old)
    new = new_id(replay(relay, old[:20], "--to", "eve@example.org", "--to", "joe@example.org"))
    assert new != old
    copy = message(relay, new)
    assert copy.endswith(WHOLE)
    top = copy.removesuffix(WHOLE).decode()
    names = [line.partition(":")[0] for line in top.splitlines() if line[0] not in "\t "]
    assert names == [
        "Received",
        "Message-ID",
        "Date",
        "Resent-Date",
        "Resent-From",
        "Resent-To",
        "Resent-Message-ID",
    ]
    assert "(replay)" in top
    assert "Resent-From: <MAILER-DAEMON@" in top
    assert "Resent-To: <eve@example.org>,\r\n\t<joe@example.org>\r\n" in top
    assert file_of(relay, old) == before, "the original's file is as it was"
    envelope = shown(relay, new)
    assert envelope["sender"] == ""
    assert [each["address"] for each in envelope["recipients"]] == ["eve@example.org", "joe@example.org"]


def test_journal_and_ledger_say_of_which_message_and_by_whom(relay: Relay, states: Queue) -> None:
    old = states.new("bob@example.net")
    new = new_id(replay(relay, old, "--to", "eve@example.org", "--by", "status page"))
    [accepted] = [json.loads(line) for line in file_of(relay, new).splitlines() if line.startswith(b"{")]
    assert (accepted["replays"], accepted["by"]) == (old, "status page")
    lines = [json.loads(line) for line in ledger(relay)]
    first, second = (line for line in lines if line.get("by") == "status page")
    assert (first["event"], first["id"], first["replays"]) == ("accepted", new, old)
    assert (second["event"], second["id"], second["to"]) == ("replayed", old, ["eve@example.org"])
    assert second["reason"] == f"as {new}"
    why = relay.mailer("spool", "why", new).stdout
    assert f"as a copy of message {old}, by status page" in why
    assert f"copy for other recipients of message {old}" in why
    relay.mailer("spool", "rm", new)
    assert f"copy for other recipients of message {old}" in relay.mailer("spool", "why", new).stdout


def test_a_message_in_any_place_can_be_sent_again(relay: Relay, states: Queue) -> None:
    relay.configure({"security": {"logAllEmails": True}})
    sent = states.new("bob@example.net", received=None)
    assert relay.mailer_send().returncode == 0
    waiting, held, failed, claimed = (states.new("bob@example.net") for _ in range(4))
    deferred = states.new("bob@example.net")
    states.hold(held, "later")
    states.fail(failed, "550 5.1.1 no", "bob@example.net")
    states.defer(deferred, "451 later", "bob@example.net")
    places = {sent: "sent", waiting: "new", held: "hold", failed: "failed", deferred: "retry"}
    assert {each: shown(relay, each)["state"] for each in places} == places
    with states.claimed(claimed):
        for each in (*places, claimed):
            assert message(relay, new_id(replay(relay, each, "--to", "eve@example.org"))).endswith(BODY)


def test_original_recipients_are_refused_unless_really_meant(relay: Relay, states: Queue) -> None:
    """However the address is spelled; what they have not got, `retry` sends."""
    old = states.new("bob@example.net", "ann@m\u00fcnchen.example")
    for address in ("bob@example.net", "BOB@Example.NET", '"bob"@example.net', "ann@xn--mnchen-3ya.example"):
        refused = replay(relay, old, "--to", "eve@example.org", "--to", address)
        assert refused.returncode == 65, address
        assert "may get it twice" in refused.stderr
        assert f"mailer spool retry {old}" in refused.stderr
        assert "--really" in refused.stderr
    assert [path.name for path in (relay.spool / "new").iterdir()] == [old]
    assert json.loads(replay(relay, old, "--to", "bob@example.net", "--json").stdout)["result"] == "refused"
    new = new_id(replay(relay, old, "--to", "bob@example.net", "--really"))
    assert shown(relay, new)["recipients"][0]["address"] == "bob@example.net"


def test_recipients_of_the_message_that_a_copy_is_of_are_refused_too(relay: Relay, states: Queue) -> None:
    """However often it was copied, and although the original is gone from the spool."""
    with relay.serve(), relay.connect() as client:
        client.sendmail("app@example.com", ["bob@example.net"], BODY)
    [old] = [path.name for path in (relay.spool / "new").iterdir()]
    first = new_id(replay(relay, old, "--to", "eve@example.org"))
    second = new_id(replay(relay, first, "--to", "joe@example.org"))
    for gone in ("", old, first):
        if gone:
            assert relay.mailer("spool", "rm", gone).returncode == 0
        for address in ("bob@example.net", "eve@example.org", "joe@example.org"):
            refused = replay(relay, second, "--to", address)
            assert (refused.returncode, "may get it twice" in refused.stderr) == (65, True), (gone, address)
        new_id(replay(relay, second, "--to", "ann@example.org"))
    new_id(replay(relay, second, "--to", "bob@example.net", "--really"))


def test_spellings_of_one_mailbox_are_one_recipient(relay: Relay, states: Queue) -> None:
    old = states.new("j\u00f6rg@example.net", "bob@[IPv6:::1]")
    for address in ("jo\u0308rg@example.net", "bob@[IPv6:0:0:0:0:0:0:0:1]"):
        assert "may get it twice" in replay(relay, old, "--to", address).stderr, address
    spelled = ("ann@example.org", "ANN@example.org", '"ann"@example.org', "eve@example.org")
    new = new_id(replay(relay, old, *(word for each in spelled for word in ("--to", each))))
    assert [each["address"] for each in shown(relay, new)["recipients"]] == [spelled[0], spelled[3]]


def test_a_repeated_request_queues_one_copy_and_a_repeated_command_two(relay: Relay, states: Queue) -> None:
    """Also where the first one was killed when the copy was durable, before anything was logged."""
    old = states.new("bob@example.net")
    order = ("--to", "eve@example.org", "--once", "form 1")
    first = new_id(replay(relay, old, *order))
    [key] = (relay.spool / "once").iterdir()
    begun, _ = key.read_text().splitlines()
    key.write_text(f"{begun}\n")
    for day in (relay.spool / "log").glob("*.jsonl"):
        day.unlink()
    assert new_id(replay(relay, old, *order)) == first
    [line] = [json.loads(line) for line in ledger(relay) if '"replayed"' in line]
    assert (line["id"], line["reason"]) == (old, f"as {first}, by the same request before")
    assert json.loads(replay(relay, old, *order, "--json").stdout)["id"] == first
    assert {path.name for path in (relay.spool / "new").iterdir()} == {old, first}
    assert len({new_id(replay(relay, old, *order[:2])) for _ in range(2)} | {first}) == 3
    assert new_id(replay(relay, old, *order[:2], "--once", "form 2")) != first


@pytest.mark.parametrize("policy", ["reject", "quotedPrintable"])
def test_long_lines_of_the_message_stay_as_they_were_accepted(
    relay: Relay, states: Queue, policy: str
) -> None:
    """`longLines` may have changed since; encoding would break a signature."""
    body = b"DKIM-Signature: v=1; d=example.com\r\n" + BODY + b"x" * 2000 + b"\r\n"
    old = states.new("bob@example.net", body=body)
    relay.configure({"longLines": policy})
    assert message(relay, new_id(replay(relay, old, "--to", "eve@example.org"))).endswith(body)


def test_more_recipients_than_a_message_may_have_are_an_error_of_the_command(
    relay: Relay, states: Queue
) -> None:
    """A later attempt would not help; Resent-To lists them only up to a hundred."""
    old = states.new("bob@example.net")
    many = [word for i in range(150) for word in ("--to", f"a{i}@example.org")]
    new = new_id(replay(relay, old, *many))
    assert len(shown(relay, new)["recipients"]) == 150
    assert b"Resent-To" not in message(relay, new)
    relay.configure({"maxRecipients": 100})
    refused = replay(relay, old, *many)
    assert (refused.returncode, "maxRecipients" in refused.stderr) == (2, True)


def test_every_failure_is_json_for_programs(relay: Relay, states: Queue) -> None:
    absent = replay(relay, "01JD0M3Q", "--to", "eve@example.org", "--json")
    assert (absent.returncode, json.loads(absent.stdout)["result"]) == (66, "refused")
    relay.configure({"maxRecipients": 1})
    many = replay(relay, states.new(), "--to", "eve@example.org", "--to", "ann@example.org", "--json")
    assert many.returncode == 2
    assert "maxRecipients" in json.loads(many.stdout)["reply"]


def test_policy_and_limits_are_those_of_a_submission(relay: Relay, states: Queue) -> None:
    old = states.new("bob@example.net")
    relay.configure({"allowedRecipients": ["example.org"]})
    refused = replay(relay, old, "--to", "eve@example.com")
    assert (refused.returncode, "allowedRecipients" in refused.stderr) == (65, True), refused.stderr
    relay.configure({"allowedRecipients": [], "redirectAllTo": "staging@example.org"})
    new = new_id(replay(relay, old, "--to", "eve@example.com"))
    assert [each["address"] for each in shown(relay, new)["recipients"]] == ["staging@example.org"]
    relay.configure({"redirectAllTo": "", "maxMessageSize": 1000})
    new_id(replay(relay, states.new(body=BODY + b"x" * 960 + b"\r\n"), "--to", "eve@example.com"))
    relay.configure({"rateLimits": {"enabled": True, "maxPerHour": 1}})
    limited = replay(relay, old, "--to", "eve@example.com", "--json")
    record = json.loads(limited.stdout)
    assert (limited.returncode, record["id"], record["result"]) == (75, None, "refused")
    assert "rateLimits.maxPerHour" in record["reply"]


def test_a_suppressed_address_gets_no_copy(relay: Relay, states: Queue) -> None:
    relay.configure({"security": {"logAllEmails": True}})
    assert relay.mailer("suppress", "add", "eve@example.org").returncode == 0
    new = new_id(replay(relay, states.new("bob@example.net"), "--to", "eve@example.org"))
    relay.mailer_send()
    assert shown(relay, new)["recipients"][0]["status"] == "bounced"


def test_the_author_is_not_notified_of_a_copy_unless_named(relay: Relay, states: Queue) -> None:
    """The author did not order it: failures go to `bounce`, to --sender, or are not reported."""
    relay.configure({"bounce": "sender"})
    old = states.new("bob@example.net")
    copy = new_id(replay(relay, old, "--to", "eve@example.org"))
    assert shown(relay, copy)["sender"] == ""
    relay.configure({"bounce": "postmaster@example.com"})
    for given, sender, resent in (
        ((), "postmaster@example.com", b"Resent-From: <postmaster@example.com>"),
        (("--sender", "app@example.com"), "app@example.com", b"Resent-From: <app@example.com>"),
        (("--sender", "help@example.com"), "help@example.com", b"Resent-From: <help@example.com>"),
        (("--sender", "<>"), "", b"Resent-From: <MAILER-DAEMON@"),
    ):
        new = new_id(replay(relay, old, "--to", "eve@example.org", *given))
        assert shown(relay, new)["sender"] == sender
        assert resent in message(relay, new)
    empty = replay(relay, old, "--to", "eve@example.org", "--sender", "")
    assert (empty.returncode, "is not an address" in empty.stderr) == (2, True)


def test_the_notification_of_a_failed_copy_names_the_original_and_who_ordered_it(
    relay: Relay, states: Queue
) -> None:
    relay.configure({"bounce": "sender"})
    assert relay.mailer("suppress", "add", "eve@example.org").returncode == 0
    old = states.new("bob@example.net")
    states.hold(old, "later")
    new_id(replay(relay, old, "--to", "eve@example.org", "--sender", "ops@example.com", "--by", "alice"))
    relay.mailer_send()
    relay.mailer_send()
    [notification] = [mail for mail in relay.delivered() if b"To: <ops@example.com>" in mail]
    text = b" ".join(notification.split())
    assert b"a copy of message %s, which alice sent to other addresses on" % old.encode() in text
    assert b"mail that you sent" not in text


def test_what_cannot_be_sent_again_is_named(relay: Relay, states: Queue) -> None:
    assert replay(relay, "01JD0M3Q", "--to", "eve@example.org").returncode == 66
    old = states.new()
    for wrong in ("eve", "eve@example.org, ann@example.org", "<eve@example.org>", "<>", "a@b\r\nX: y"):
        bad = replay(relay, old, "--to", wrong)
        assert (bad.returncode, "is not an address" in bad.stderr) == (2, True), wrong
    damaged = relay.spool / "new" / old
    damaged.write_bytes(damaged.read_bytes().replace(b"A line.", b"B line."))
    assert (replay(relay, old, "--to", "eve@example.org").returncode) == 65
    damaged.write_bytes(damaged.read_bytes().replace(b"B line.", b"A line."))
    damaged.rename(relay.spool / "corrupt" / old)
    in_corrupt = replay(relay, old, "--to", "eve@example.org")
    assert (in_corrupt.returncode, "never sent" in in_corrupt.stderr) == (65, True)
    assert list((relay.spool / "new").iterdir()) == []
    assert list((relay.spool / "tmp").iterdir()) == []


def test_a_large_message_and_international_addresses_are_copied(relay: Relay, states: Queue) -> None:
    body = BODY + b"0123456789\r\n" * 500_000
    new = new_id(replay(relay, states.new(body=body), "--to", "j\u00f6rg@example.org"))
    assert message(relay, new).endswith(body)
    assert "Resent-To: <j\u00f6rg@example.org>".encode() in message(relay, new)


def test_the_receivers_login_is_not_needed(relay: Relay, states: Queue) -> None:
    """The monitor, which runs this, does not get the receiver's credentials from systemd."""
    relay.configure({"defaultPassword": {"credential": "password"}, "rateLimits": {"enabled": True}})
    assert "defaultPassword" in relay.mailer("serve").stderr
    new_id(replay(relay, states.new("bob@example.net"), "--to", "eve@example.org"))


def test_its_next_hop_is_that_of_the_new_recipient(relay: Relay, states: Queue) -> None:
    """It goes out once, and the held original stays."""
    old = states.new("bob@example.net")
    states.hold(old, "later")
    new_id(replay(relay, old, "--to", "eve@example.org"))
    assert relay.mailer_send().returncode == 0
    [delivered] = relay.delivered()
    assert delivered.count(b"Resent-To: <eve@example.org>") == 1
    assert shown(relay, old)["state"] == Place.HOLD.value
    assert HOP not in relay.mailer("spool", "why", old).stdout
