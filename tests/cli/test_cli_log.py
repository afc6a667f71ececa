"""`mailer log`: one message among many, by what people know of it; and what is written from now on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from outbound.hostile import Server, per_address
from outbound.sending import at, forward_to, queue
from testbed.capability import tracer
from testbed.faketime import faketime
from testbed.process import ServerProcess
from testbed.relay import Relay
from testbed.waiting import until

from mailer.mail import clock
from mailer.maillog.ledger import Line, encode
from mailer.spool.directory import Spool
from mailer.spool.ids import new_id

NOON = clock.seconds("2026-11-22T12:00:00Z")
DAY = 86_400.0


def story(number: int, at: float, event: str = "sent") -> tuple[str, list[Line]]:
    """A message's two lines, and its id."""
    name = new_id(at)
    to, sender = (f"user{number}@Example.net",), f"app{number % 3}@example.com"
    end = {"message": "delivered"} if event == "sent" else {}
    return name, [
        Line(at=clock.rfc3339(at), event="accepted", id=name, sender=sender, to=to, size=2345, user="app"),
        Line(at=clock.rfc3339(at + 1), event=event, id=name, sender=sender, to=to, reply="250 ok", **end),  # type: ignore[arg-type]
    ]


def put(relay: Relay, lines: list[Line]) -> None:
    if not relay.spool.exists():
        Spool.open(relay.spool, create=True).close()
    log = relay.spool / "log"
    log.mkdir(exist_ok=True)
    for line in lines:
        with (log / f"{line.at[:10].replace('-', '')}.jsonl").open("ab") as file:
            file.write(encode(line))


def told(relay: Relay, *arguments: str) -> list[dict[str, object]]:
    done = relay.mailer("log", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def week(relay: Relay) -> dict[int, str]:
    """Twenty messages a day for seven days; every fifth bounced. Returns their ids by number."""
    ids = {}
    for number in range(140):
        at = NOON + (number // 20) * DAY + number % 20 * 60
        ids[number], lines = story(number, at, "bounced" if number % 5 == 0 else "sent")
        put(relay, lines)
    return ids


def test_a_recipient_that_was_searched_for_is_named_though_others_are_counted_only(relay: Relay) -> None:
    """One mailing: whether this one of 500 got it cannot be told from "and 497 more"."""
    at, to = NOON, tuple(f"user{number}@Example.net" for number in range(500))
    put(relay, [Line(at=clock.rfc3339(at), event="sent", id=new_id(at), sender="a@example.com", to=to)])
    shown = relay.mailer("log", "--to", "USER499@example.net").stdout
    assert "to user499@Example.net, user0@Example.net, user1@Example.net and 497 more" in shown
    assert "to user0@Example.net" in relay.mailer("log").stdout


def test_mail_that_was_redirected_is_found_by_whom_it_was_for(relay: Relay) -> None:
    relay.configure({"forwardSMTP": False, "redirectAllTo": "dev@example.com"})
    with relay.up(), relay.connect() as session:
        session.sendmail("app@example.com", ["bob@example.net", "eve@example.org"], "Subject: x\r\n\r\nx\r\n")
    (line,) = told(relay, "--to", "EVE@example.org")
    assert line["to"] == ["dev@example.com"]
    assert line["redirected"] == ["bob@example.net", "eve@example.org"]
    said = relay.mailer("log", "--to", "bob@").stdout
    assert "to dev@example.com instead of bob@example.net, eve@example.org" in said


def test_an_international_domain_is_found_by_the_name_that_people_know(relay: Relay) -> None:
    """Most libraries submit its form in DNS; both forms, and the parts of both, find the mail."""
    relay.configure(forward_to(1))
    to = [*(f"user{number}@example.net" for number in range(9)), "bob@xn--mller-kva.example"]
    with relay.serve(), relay.connect() as session:
        session.sendmail("app@xn--exmple-cua.org", to, "Subject: x\r\n")
        session.sendmail("app@example.com", ["bob@mueller.example"], "Subject: x\r\n")
    for option in ("--to", "--from"):
        name = "müller.example" if option == "--to" else "Exämple.org"
        for text in (name, f"@{name}", name.encode("idna").decode()):
            (line,) = told(relay, option, text)
            assert "bob@xn--mller-kva.example" in line["to"], text
    (line,) = told(relay, "--to", "BOB@MÜLLER.example")
    assert "to bob@xn--mller-kva.example, user0@" in relay.mailer("log", "--to", "bob@müller.example").stdout
    assert told(relay, "--to", "bob@moeller.example") == told(relay, "--to", "почта") == []
    listed = relay.mailer("spool", "ls", "--json", "--recipient", "@müller.example").stdout.splitlines()
    assert [json.loads(each)["id"] for each in listed] == [line["id"]]


def test_an_id_or_its_beginning_finds_the_message_on_whatever_day_it_came(
    relay: Relay, week: dict[int, str]
) -> None:
    for number, text in ((0, week[0]), (61, week[61].lower()[:14]), (139, week[139])):
        assert [line["id"] for line in told(relay, "--id", text)] == [week[number]] * 2
    unknown = relay.mailer("log", "--id", new_id(NOON))
    assert (unknown.returncode, unknown.stdout) == (66, "")
    assert relay.mailer("log", "--id", "no id").returncode == 2


def test_a_filter_that_finds_nothing_says_so_to_people_alone(relay: Relay, week: dict[int, str]) -> None:
    assert week
    done = relay.mailer("log", "--to", "nobody@nowhere.example")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("nothing found\nnext: no such mail was submitted")
    assert told(relay, "--to", "nobody@nowhere.example") == []
    assert relay.mailer("log", "-n", "1").stderr == ""


def test_show_of_a_message_that_was_delivered_names_the_command_that_knows(
    relay: Relay, week: dict[int, str]
) -> None:
    done = relay.mailer("spool", "show", week[1])
    assert done.returncode == 66
    assert f"mailer spool why {week[1]}" in done.stderr
    assert "Sent to every recipient" in relay.mailer("spool", "why", week[1]).stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("log", "--id", "zz"), 66),
        (("spool", "why", "7" + "Z" * 25), 66),
        (("log", "--since", "9999-12-31T23:59-05:00"), 0),
        (("log", "--until", "0001-01-01T00:00+05:00"), 0),
    ],
)
def test_what_no_calendar_has_finds_nothing_and_breaks_nothing(
    relay: Relay, week: dict[int, str], arguments: tuple[str, ...], code: int
) -> None:
    assert week
    done = relay.mailer(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr


def test_addresses_are_found_whatever_their_case_and_the_null_sender_by_its_brackets(
    relay: Relay, week: dict[int, str]
) -> None:
    bounce = Line(
        at=clock.rfc3339(NOON), event="accepted", id=new_id(NOON), sender="", to=("app@example.com",)
    )
    put(relay, [bounce, Line(at=clock.rfc3339(NOON), event="held", id=new_id(NOON), by="ann")])
    assert {line["id"] for line in told(relay, "--to", "USER77@example.NET")} == {week[77]}
    assert len(told(relay, "--to", "user7")) == 2 * 11
    assert len(told(relay, "--from", "app1@", "--status", "accepted")) == len(range(1, 140, 3))
    assert [line["id"] for line in told(relay, "--from", "<>")] == [bounce.id]
    assert told(relay, "--to", "nobody@example.net") == []


def test_time_and_kind_narrow_what_is_printed(relay: Relay, week: dict[int, str]) -> None:
    assert len(told(relay)) == 280
    bounced = told(relay, "--status", "bounced")
    assert [line["id"] for line in bounced] == [week[number] for number in range(0, 140, 5)]
    both = told(relay, "--status", "bounced", "--status", "sent", "--since", "2026-11-28")
    assert len(both) == 20
    assert len(told(relay, "--since", "2026-11-23", "--until", "2026-11-24T12:00:00Z")) == 40
    assert len(told(relay, "--since", "2026-11-24 13:02:00+01:00", "--until", "2026-11-24 12:03")) == 2
    refused = relay.mailer("log", "--since", "2 months")
    assert refused.returncode == 2
    assert "ms, s, m, h, d or w" in refused.stderr


@pytest.mark.parametrize(
    ("since", "number"),
    [("today", 2), ("yesterday", 3), ("90s", 1), ("26h", 3), ("26h ago", 3), ("1500w", 4)],
)
def test_times_can_be_given_relative_to_now(relay: Relay, since: str, number: int) -> None:
    for ago in (4 * DAY, 25 * 3600, 3600, 60):
        put(relay, story(1, clock.seconds("2026-11-22T13:00:00Z") - ago)[1][:1])
    done = relay.mailer("log", "--since", since, under=faketime("@2026-11-22 13:00:00"))
    assert len(done.stdout.splitlines()) == number


def test_the_last_lines_are_the_last_in_their_order(relay: Relay, week: dict[int, str]) -> None:
    everything = told(relay)
    for number in (0, 7, 1000):
        assert told(relay, "-n", str(number)) == everything[-number:] * bool(number)
    assert [line["id"] for line in told(relay, "-n", "2", "--status", "bounced")] == [week[130], week[135]]


def test_a_line_reads_well_at_night(relay: Relay) -> None:
    name, (accepted, sent) = story(1, NOON)
    deferred = Line(
        at=clock.rfc3339(NOON + 61),
        event="deferred",
        id=name,
        sender="a@b.c",
        to=tuple(f"{each}@x.org" for each in "abcd"),
        relay="mx.x.org[192.0.2.1]:25",
        delay=61.2,
        attempt=2,
        reply="451 4.7.1 \x1b[31mlater",
        next=clock.rfc3339(NOON + 241),  # tried at the next full minute
    )
    login = Line(at=clock.rfc3339(NOON), event="login-failed", user="root", peer="127.0.0.1")
    provider = Line(at=clock.rfc3339(NOON), event="provider", name="one", state="open", reason="5 failures")
    put(relay, [accepted, deferred, sent, login, provider])
    nobody = "-".ljust(26)
    assert relay.mailer("log").stdout == (
        f"2026-11-22 12:00:00Z  {name}  accepted     "
        "from app1@example.com to user1@Example.net (2.3K) by app\n"
        f"2026-11-22 12:01:01Z  {name}  deferred     to a@x.org, b@x.org, c@x.org and 1 more "
        "at mx.x.org[192.0.2.1]:25 attempt 2 after 1m1s: 451 4.7.1 \\x1b[31mlater; "
        "next attempt 2026-11-22 12:05:00Z\n"
        f"2026-11-22 12:00:01Z  {name}  sent         to user1@Example.net: 250 ok\n"
        f"2026-11-22 12:00:00Z  {nobody}  login-failed by root at 127.0.0.1\n"
        f"2026-11-22 12:00:00Z  {nobody}  provider     one is paused: 5 failures\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("log", "bob@example.net"), "mailer log --to bob@example.net\n"),
        (("log", "01JD0M3Q"), "mailer log --id 01JD0M3Q\n"),
        (("spool", "why", "bob@example.net"), "mailer log --to bob@example.net\n"),
    ],
)
def test_an_address_where_none_is_taken_is_answered_with_the_command_for_it(
    relay: Relay, arguments: tuple[str, ...], said: str
) -> None:
    done = relay.mailer(*arguments)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_json_is_the_ledgers_own_line_and_torn_ones_are_no_lines(relay: Relay) -> None:
    _, (accepted, sent) = story(1, NOON)
    put(relay, [accepted])
    with (relay.spool / "log/20261122.jsonl").open("ab") as file:
        file.write(encode(sent)[:50] + encode(sent) + b"garbage\n" + encode(sent)[:70])
    done = relay.mailer("log", "--json")
    assert done.stdout.encode() == encode(accepted) + encode(sent)


@contextmanager
def following(relay: Relay, tmp_path: Path, *arguments: str) -> Iterator[ServerProcess]:
    command = [str(Path(sys.executable).with_name("mailer")), "log", "-f", "--config", str(relay.config)]
    process = ServerProcess([*command, *arguments], tmp_path / "followed", cwd=tmp_path)
    try:
        yield process
    finally:
        process.kill()


def test_following_begins_with_the_last_lines_and_goes_on_over_midnight_and_a_new_directory(
    relay: Relay, tmp_path: Path
) -> None:
    ids = []
    for number in range(20):
        name, lines = story(number, NOON)
        ids.append(name)
        put(relay, lines)
    followed = tmp_path / "followed"

    def seen() -> list[str]:
        whole, _, _ = followed.read_text().rpartition("\n")
        return [line.split()[2] for line in whole.splitlines()]

    with following(relay, tmp_path) as process:
        until(lambda: len(seen()) == 10, "the last ten lines")
        assert seen() == [name for name in ids[15:] for _ in range(2)]
        midnight, lines = story(20, NOON + DAY / 2 - 0.5)
        put(relay, lines)
        until(lambda: len(seen()) == 12, "lines before and after midnight")
        shutil.rmtree(relay.spool / "log")
        time.sleep(0.6)  # two of its looks: they find no directory
        moved, lines = story(21, NOON)
        put(relay, lines)
        until(lambda: len(seen()) == 14, "lines in a new directory")
        assert seen()[10:] == [midnight, midnight, moved, moved]
        process.signal(signal.SIGINT)
        assert process.wait() == 130


def test_following_one_message_prints_all_its_lines_and_no_others(relay: Relay, tmp_path: Path) -> None:
    followed = tmp_path / "followed"
    name, (accepted, sent) = story(1, NOON)
    put(relay, [accepted, *story(2, NOON)[1]])
    with following(relay, tmp_path, "--id", name, "--json"):
        until(lambda: followed.read_text().count("\n") == 1, "what there was")
        put(relay, [*story(3, NOON)[1], sent])
        until(lambda: followed.read_text().count("\n") == 2, "what came")
    assert followed.read_bytes() == encode(accepted) + encode(sent)


def test_head_ends_it_quietly(relay: Relay, week: dict[int, str]) -> None:
    command = f"{Path(sys.executable).with_name('mailer')} log --config {relay.config} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stderr, len(done.stdout.splitlines())) == ("", 1)


LARGE = int(os.environ.get("MAILER_LOG_LINES", "60000"))
"""Lines in which one is looked for; 10,000,000 is the size that is promised, and takes two minutes."""


def test_one_message_among_many_is_found_without_reading_them_all(relay: Relay) -> None:
    """Measured in bytes read, which no load of the machine changes: a few pieces, and a glance at each."""
    Spool.open(relay.spool, create=True).close()
    log = relay.spool / "log"
    reply = "250 2.0.0 Ok: queued as 4Xy1ABCDEF" * 3
    wanted = ""
    with (log / "20261122.jsonl").open("wb") as file:
        for number in range(LARGE // 2):
            name, lines = story(number, NOON - DAY / 2 + number * 86_000 / LARGE * 2)
            wanted = name if number == LARGE // 3 else wanted
            file.writelines(encode(line).replace(b"250 ok", reply.encode()) for line in lines)
        size = file.tell()
    assert read(relay, "--id", wanted) < size / 8
    assert len(told(relay, "--id", wanted)) == 2
    assert read(relay, "-n", "20") < size / 8
    assert [line["event"] for line in told(relay, "-n", "3")] == ["sent", "accepted", "sent"]
    assert {line["id"] for line in told(relay, "-n", "2")} == {name}
    assert len(told(relay, "--since", "2026-11-22 12:00", "--until", "2026-11-22 12:00:10")) > 0
    assert read(relay, "--since", "2026-11-22 12:00", "--until", "2026-11-22 12:00:10") < size / 8
    assert len(told(relay, "--to", f"user{LARGE // 3}@example.net")) == 2


def read(relay: Relay, *arguments: str) -> int:
    """How many bytes of the ledger a search reads."""
    done = relay.mailer("log", *arguments, under=(tracer(), "-f", "-e", "trace=pread64", "-o", "/dev/stderr"))
    return sum(map(int, re.findall(r"pread64\(.*= (\d+)$", done.stderr, re.MULTILINE)))


def test_what_an_operator_does_concerns_only_those_who_do_not_have_the_mail(relay: Relay) -> None:
    """Of three recipients one has it. To a search for that one it is sent, whatever became of the file."""
    bob, eve, gone = "bob@example.net", "eve@example.net", "gone@example.net"
    with Server({"rcpt": per_address({eve: "450 4.2.1 later", gone: "550 5.1.1 unknown"})}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, [bob, eve, gone])
        assert relay.mailer_send("--once").returncode == 0
    for verb in (("retry", "--all"), ("hold", message), ("retry", message), ("rm", message)):
        assert relay.mailer("spool", *verb).returncode == 0
    done = [line for line in told(relay, "--id", message) if line["event"] in {"requeued", "held", "removed"}]
    assert [(line["event"], line["to"]) for line in done] == [
        ("requeued", [eve]), ("held", [eve, gone]), ("requeued", [eve, gone]), ("removed", [eve, gone])
    ]  # fmt: skip
    has_it, lacks_it = (relay.mailer("log", "--to", whom) for whom in (bob, eve))
    assert f"next: {message}: {bob}: sent at {at(server)}: 250" in has_it.stderr
    assert "removed" not in (has_it.stdout + has_it.stderr).lower()
    assert f"next: {message}: Removed by " in lacks_it.stderr
