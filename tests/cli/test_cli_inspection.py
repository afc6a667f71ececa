"""`mailer spool ls`, `show`, `why`, `stats` and `fsck` tell the truth in each state, and change nothing."""

import json
import os
import subprocess
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from outbound.bounces import submit
from outbound.hostile import Server, per_address
from outbound.sending import forward_to
from spools.states import BODY, HOP, Queue
from testbed.relay import Relay
from testbed.terminal import Terminal
from testbed.waiting import until

from mailer.cli.spool.ls import line
from mailer.mail import clock
from mailer.mail.envelope import Recipient
from mailer.spool.layout import full_minute
from mailer.spool.run.operate import Operator
from mailer.spool.scan import find
from mailer.spool.view.inspect import listing


@pytest.fixture
def queue(relay: Relay) -> Queue:
    return Queue(relay.spool)


def ls(relay: Relay, *arguments: str) -> list[dict]:
    done = relay.mailer("spool", "ls", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def why(relay: Relay, message: str) -> str:
    done = relay.mailer("spool", "why", message)
    assert done.returncode == 0, done.stderr
    return done.stdout


def line_of(relay: Relay, message: str) -> str:
    done = relay.mailer("spool", "ls")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(message)]
    return line


def test_ls_has_exactly_the_documented_fields(relay: Relay, queue: Queue) -> None:
    message = queue.new("bob@example.net", "eve@example.org")
    (record,) = ls(relay)
    assert list(record) == [
        "id", "state", "sender", "recipients", "size", "received", "attempts", "next",
    ]  # fmt: skip
    assert record["id"] == message
    assert record["sender"] == "app@example.com"
    assert record["size"] == len(BODY)
    assert record["recipients"] == [
        {"address": "bob@example.net", "status": "pending", "reply": ""},
        {"address": "eve@example.org", "status": "pending", "reply": ""},
    ]
    assert record["attempts"] == 0
    assert record["next"] is None


def test_a_new_message_waits_for_its_first_attempt(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    assert ls(relay)[0]["state"] == "new"
    assert "app@example.com -> bob@example.net" in line_of(relay, message)
    assert "Waiting for its first attempt" in why(relay, message)


def test_a_claimed_message_is_in_a_runners_hands_while_that_lives(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    with queue.claimed(message):
        assert ls(relay)[0]["state"] == "cur"
        assert "claimed by a runner" in line_of(relay, message)
        assert "Claimed by a runner" in why(relay, message)


def test_a_dead_runners_message_is_said_to_be_taken_over(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    queue.abandon(message)
    assert ls(relay)[0]["state"] == "cur"
    assert "its runner ended early; next at the next run" in line_of(relay, message)
    assert "Its runner ended before it was finished" in why(relay, message)


def test_a_message_that_its_runner_gave_back_during_a_pause_waits_for_its_end(
    relay: Relay, queue: Queue
) -> None:
    """The runner lives on, or ended in order, and no run takes it over before the operator says so."""
    message = queue.new()
    queue.abandon(message)
    assert relay.mailer("pause").returncode == 0
    assert "its runner ended early; next after `mailer resume`: sending is paused" in line_of(relay, message)


def test_a_deferred_message_says_when_and_quotes_the_reply(relay: Relay, queue: Queue) -> None:
    message = queue.new("bob@example.net", "eve@example.org")
    queue.defer(message, "451 4.7.1 try later, please", "bob@example.net")
    (record,) = ls(relay)
    assert record["state"] == "retry"
    assert record["attempts"] == 1
    assert record["recipients"][0] == {
        "address": "bob@example.net", "status": "deferred", "reply": "451 4.7.1 try later, please",
    }  # fmt: skip
    line = line_of(relay, message)
    assert "[1 pending, 1 deferred]" in line
    assert line.endswith("451 4.7.1 try later, please")
    story = why(relay, message)
    assert f"deferred for bob@example.net at {HOP} (attempt 1): 451 4.7.1 try later, please" in story
    assert "bob@example.net: deferred" in story


def test_a_message_that_waits_gives_the_reason_of_a_recipient_that_waits(relay: Relay, queue: Queue) -> None:
    message = queue.new("never@example.net", "later@example.net")
    queue.defer(message, "450 4.2.2 full", "later@example.net", refused="never@example.net")
    for found in (line_of(relay, message), *map(partial(line, now=0), listing(queue.spool, time.time()))):
        assert "[1 deferred, 1 bounced]" in found
        assert found.rstrip().endswith("450 4.2.2 full")
        assert "550" not in found


def test_the_next_attempt_of_a_deferred_message_is_the_journals(relay: Relay, queue: Queue) -> None:
    """In words and in JSON: at the minute of its bucket, which is after the journal's time."""
    message = queue.new()
    due = clock.rfc3339(full_minute(queue.defer(message, "Connection refused", seconds=3600)))
    (record,) = ls(relay)
    (shown,) = json.loads(relay.mailer("spool", "show", "--json", message).stdout)["recipients"]
    assert record["next"] == shown["next"] == due
    assert f"next attempt {due[:10]} {due[11:19]}Z" in why(relay, message).replace("\n", " ")
    assert "next in " in line_of(relay, message)
    assert "Connection refused" in why(relay, message)


def test_a_held_message_gives_the_reason(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    queue.hold(message, "asked the customer")
    assert ls(relay)[0]["state"] == "hold"
    assert "asked the customer" in line_of(relay, message)
    story = why(relay, message)
    assert "Held: asked the customer" in story
    assert "held, by alice" in story


def test_a_failed_message_quotes_who_refused_it(relay: Relay, queue: Queue) -> None:
    message = queue.new("bob@example.net")
    queue.fail(message, "550 5.1.1 no such user")
    (record,) = ls(relay)
    assert (record["state"], record["recipients"][0]["status"]) == ("failed", "bounced")
    assert "[bounced]" in line_of(relay, message)
    story = why(relay, message)
    assert story.splitlines()[1].startswith("Failed: given up after 1 attempt.")
    assert "550 5.1.1 no such user" in story


def test_an_uncertain_recipient_is_called_uncertain(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    queue.lose_the_reply(message)
    assert ls(relay)[0]["recipients"][0]["status"] == "uncertain"
    assert "[uncertain]" in line_of(relay, message)
    story = why(relay, message)
    assert "bob@example.net: uncertain" in story
    assert "it may or may not have been delivered" in story


def test_a_corrupt_message_says_what_is_wrong_and_nothing_else(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    queue.damage(message)
    (record,) = ls(relay)
    assert record == {
        "id": message, "state": "corrupt", "sender": None, "recipients": [], "size": None, "received": None,
        "attempts": None, "next": None, "reason": "the message's digest differs from the accepted one",
    }  # fmt: skip
    assert "the message's digest differs" in line_of(relay, message)
    assert "Unreadable: the message's digest differs" in why(relay, message)
    assert relay.mailer("spool", "show", message).returncode == 65


@pytest.mark.parametrize("kind", ["fifo", "directory", "symlink", "empty"])
def test_what_is_no_message_is_listed_as_unreadable_and_never_followed(
    relay: Relay, queue: Queue, kind: str
) -> None:
    message = queue.new()
    path = queue.spool.path / "new" / message
    secret = relay.directory / "secret"
    secret.write_bytes(path.read_bytes())
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "symlink":
            path.symlink_to(secret)
        case "empty":
            path.touch()
    (record,) = ls(relay)
    assert record["sender"] is None
    assert record["reason"]
    assert "unreadable" in line_of(relay, message)
    assert "Unreadable" in why(relay, message)
    assert relay.mailer("spool", "show", "--raw", message).returncode == 65


def test_the_null_sender_is_brackets_for_people_and_nothing_for_programs(relay: Relay, queue: Queue) -> None:
    message = queue.new(sender="")
    assert ls(relay)[0]["sender"] == ""
    assert "<> -> bob@example.net" in line_of(relay, message)
    assert [record["id"] for record in ls(relay, "--sender", "<>")] == [message]


def test_ls_passes_over_what_was_sent_and_what_is_no_message(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    (queue.spool.path / "new" / "README").write_text("not a message")
    (queue.spool.path / "local" / message).write_text("delivered")
    queue.finish(message)
    assert ls(relay) == []


def test_filters_choose_by_state_sender_recipient_and_age(relay: Relay, queue: Queue) -> None:
    old = queue.new("carol@example.org", received=1_700_000_000.0)
    young = queue.new("bob@example.net", sender="Shop@example.com")
    queue.hold(young, "x")
    assert [r["id"] for r in ls(relay, "--older", "1h")] == [old]
    assert [r["id"] for r in ls(relay, "--sender", "shop@")] == [young]
    assert [r["id"] for r in ls(relay, "--recipient", "CAROL")] == [old]
    assert [r["id"] for r in ls(relay, "--state", "hold")] == [young]
    assert len(ls(relay, "--state", "hold", "--state", "new")) == 2
    assert ls(relay, "--state", "hold", "--recipient", "carol") == []
    assert len(ls(relay, "--limit", "1")) == 1


def test_show_raw_gives_exactly_the_bytes_of_the_message(relay: Relay, queue: Queue) -> None:
    body = bytes(range(256)) * 5000 + b"\r\n.\r\nSpool-Length: 1\r\n"
    message = queue.new(body=body)
    command = [
        sys.executable,
        "-m",
        "mailer",
        "spool",
        "show",
        "--raw",
        message,
        "--config",
        str(relay.config),
    ]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    assert sha256(raw).digest() == sha256(body).digest()


def test_show_raw_gives_a_terminal_nothing_to_obey(relay: Relay, queue: Queue) -> None:
    message = queue.new(body="Subject: \x1b]0;root\x07\r\n\r\n\u00fcber \u202eout\r\n\x9b2J\r\n".encode())
    command = [sys.executable, "-m", "mailer", "spool", "show", "--raw", message]
    with Terminal(command, env={"MAILER_CONFIG": str(relay.config)}, cwd=relay.directory) as terminal:
        assert terminal.await_end() == 0
        shown = terminal.screen()
    assert shown == "Subject: \\x1b]0;root\\x07\r\n\r\n\u00fcber \\u202eout\r\n\\x9b2J\r\n"


def test_show_prints_the_header_without_what_a_terminal_obeys(relay: Relay, queue: Queue) -> None:
    message = queue.new(body=b"Subject: \x1b[2Jhello\r\n\r\nsecret body\r\n")
    shown = relay.mailer("spool", "show", message).stdout
    assert "Subject: \\x1b[2Jhello" in shown
    assert "secret body" not in shown


def test_show_in_json_has_each_recipients_hop_and_reply(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    queue.defer(message, "451 no")
    record = json.loads(relay.mailer("spool", "show", "--json", message).stdout)
    assert record["recipients"][0]["hop"] == HOP
    assert record["header"] == "Subject: hello"


def test_a_message_whose_file_is_gone_is_described_from_the_ledger(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    assert relay.mailer("spool", "rm", message).returncode == 0
    story = why(relay, message[:16])
    assert f"{message} is no longer in the spool" in story
    assert "Removed by" in story


def test_a_delivered_message_is_described_from_the_ledger(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    assert relay.mailer_send("--once").returncode == 0
    story = why(relay, message)
    assert story.splitlines()[1].startswith(
        "Kept in the local Maildir; it has not left this host; it has left the queue"
    )
    assert "sent for bob@example.net" in story


def test_a_broken_next_hop_and_its_recovery_are_reported_as_they_happen(
    relay: Relay, queue: Queue, free_port: int
) -> None:
    relay.configure({"forwardSMTP": True, "forwardProviders": [{"host": "127.0.0.1", "port": free_port}]})
    message = queue.new()
    relay.mailer_send("--once")
    story = why(relay, message)
    assert "bob@example.net: deferred" in story
    assert "Connection refused" in story
    assert "Connection refused" in line_of(relay, message)
    relay.configure({"forwardSMTP": False})
    assert relay.mailer("spool", "retry", message).returncode == 0
    assert "requeued" in why(relay, message)
    relay.mailer_send("--once")
    assert "Kept in the local Maildir" in why(relay, message)
    assert len(relay.delivered()) == 1


def test_mail_sent_to_some_and_kept_locally_for_others_is_described_as_both(relay: Relay) -> None:
    with Server({"rcpt": per_address({"eve@example.org": "451 4.7.1 later"})}) as server:
        relay.configure({**forward_to(server), "security": {"logAllEmails": True}})
        message = submit(relay.spool, Recipient("bob@example.net"), Recipient("eve@example.org"))
        relay.mailer_send("--once")
    relay.configure({"forwardSMTP": False})
    relay.mailer("spool", "retry", message)
    relay.mailer_send("--once")
    story = why(relay, message)
    assert "Sent to every recipient, of whom some have it in the local Maildir only" in story
    relay.configure({"forwardSMTP": False, "security": {"logAllEmails": True}})
    kept = submit(relay.spool, Recipient("bob@example.net"))
    relay.mailer_send("--once")
    story = why(relay, kept)
    assert "Kept in the local Maildir; it has not left this host; after 1 attempt" in story
    assert "(kept in the local Maildir)" in story


def test_stats_count_each_state(relay: Relay, queue: Queue) -> None:
    queue.new()
    queue.hold(queue.new(), "x")
    stats = json.loads(relay.mailer("spool", "stats", "--json").stdout)
    assert {state: of["count"] for state, of in stats.items()} == {
        "new": 1, "cur": 0, "retry": 0, "hold": 1, "failed": 0, "corrupt": 0,
    }  # fmt: skip
    assert stats["new"]["bytes"] > len(BODY)
    assert stats["cur"]["oldest"] is None


def test_fsck_finds_nothing_in_a_spool_with_every_state(relay: Relay, queue: Queue) -> None:
    queue.new()
    queue.abandon(queue.new())
    queue.defer(queue.new(), "451 no")
    queue.fail(queue.new(), "550 no")
    queue.hold(queue.new(), "x")
    queue.damage(queue.new())
    done = relay.mailer("spool", "fsck")
    assert (done.returncode, done.stdout) == (0, "")


def _stray(path: Path) -> None:
    path.with_name("note.txt").write_text("?")


def _flip(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"A line.", b"B line."))


def _misfile(path: Path) -> None:
    path.rename(path.parents[1] / "failed" / path.name)


DAMAGES = {
    "does not have a message id as its name": _stray,
    "has mode 0644": lambda path: path.chmod(0o644),
    "digest differs": _flip,
    "misfiled": _misfile,
    "2 links": lambda path: path.parents[2].joinpath("other").hardlink_to(path),
    "unreadable": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("problem", DAMAGES)
def test_fsck_finds_damage_names_it_and_exits_with_1(relay: Relay, queue: Queue, problem: str) -> None:
    DAMAGES[problem](queue.spool.path / "new" / queue.new())
    done = relay.mailer("spool", "fsck", "--json")
    assert done.returncode == 1
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert [problem in finding["problem"] for finding in findings] == [True]


def test_a_message_that_moves_during_a_listing_is_listed_once(queue: Queue) -> None:
    """One that moves behind the scan is not missed; one that was listed and moves ahead is not repeated."""
    messages = [queue.new(), queue.new(), queue.new()]
    queue.defer(messages[0], "451 no")
    changed = max(path.stat().st_ctime for path in queue.spool.path.rglob("01*"))
    until(lambda: time.time() > changed + 0.05, "the file system's clock to go on")
    operator = Operator(queue.spool, "alice")
    seen = listing(queue.spool, changed + 1.01)
    listed = [next(seen).spot, next(seen).spot]
    operator.hold(listed[0], time.time())
    (deferred,) = find(queue.spool, messages[0])
    operator.retry(deferred, time.time())
    names = [spot.name for spot in listed] + [found.id for found in seen]
    assert sorted(names) == sorted(messages)


def test_looking_changes_nothing(relay: Relay, queue: Queue) -> None:
    ids = [queue.new(), queue.new(), queue.new()]
    queue.defer(ids[0], "451 no")
    queue.abandon(ids[1])
    before = queue.files()
    for command in ("ls", "stats", "fsck"):
        relay.mailer("spool", command)
    for message in ids:
        relay.mailer("spool", "show", message)
        relay.mailer("spool", "why", message)
    assert queue.files() == before
