"""What became of mail is told once or more, in the ledger's order, from a cursor that nothing loses."""

import asyncio
import json
import os
import pwd
import random
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from outbound.event_hook import DROP, HANG, SECRET, Hook, hook
from outbound.hostile import Server
from outbound.sending import forward_to, queue
from testbed.ci import only_root
from testbed.faketime import faketime
from testbed.http_client import ask
from testbed.relay import Relay
from testbed.waiting import until

from mailer.cli.events import commands
from mailer.cli.sending import event_delivery
from mailer.config.calls import EventField, EventKind, OnEvent
from mailer.config.load import load
from mailer.config.model import Config
from mailer.config.secrets import Secret
from mailer.events import backlog, receiver, store
from mailer.events.backlog import Choice
from mailer.events.deliverer import Deliverer, pause
from mailer.events.event import events_of
from mailer.events.receiver import Answer, Verdict
from mailer.events.store import Cursor
from mailer.mail import clock
from mailer.maillog.events import MailLog
from mailer.maillog.ledger import LOST, Line, encode
from mailer.maillog.lines import decode
from mailer.spool.directory import Spool
from mailer.spool.layout import LOG

DAY = 86_400.0
NOON = clock.seconds("2026-11-22T12:00:00Z")
ALL = Choice(frozenset(EventKind), tuple(EventField))
CONFIG = Config(on_event=OnEvent(command=("true",)))


class Told:
    """A spool with a ledger, and a deliverer at a time that the test sets."""

    def __init__(self, path: Path, on_event: OnEvent) -> None:
        self.spool = Spool.open(path, create=True)
        self.log = path / LOG
        self.now = NOON
        self.said: list[str] = []
        self.on_event = on_event
        self.restart()
        self.deliverer.begin()

    def restart(self) -> None:
        log = MailLog(lambda: self.now, lambda _level, *said: self.said.append(repr(said)))
        self.deliverer = Deliverer(self.on_event, self.spool, log, lambda: self.now, lambda: 0.0)

    def write(self, event: str, *to: str, id: str = "A", day: str = "", **fields: Any) -> None:
        """Append a line to the ledger, a second after the one before."""
        self.now += 1
        line = Line(at=clock.rfc3339(self.now), event=event, id=id, sender="app@example.com", to=to, **fields)
        self.append(encode(line), day)

    def append(self, data: bytes, day: str = "") -> None:
        name = day or time.strftime("%Y%m%d", time.gmtime(self.now))
        with (self.log / f"{name}.jsonl").open("ab") as file:
            file.write(data)

    def round(self) -> bool:
        return asyncio.run(self.deliverer.round())

    @property
    def progress(self) -> store.Progress:
        progress = store.read(self.spool)
        assert progress is not None
        return progress


def by_hook(made: Hook, **more: Any) -> OnEvent:
    return OnEvent(webhook=Secret(made.url), secret=Secret(SECRET), **more)


def names(events: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{event['event']} {event.get('to', '')}" for event in events]


def test_each_recipient_is_an_event_signed_and_in_order(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made, events=tuple(EventKind)))
        told.write("accepted", "a@x.example", "b@x.example")
        told.write("sent", "a@x.example", "b@x.example", relay="mx.x.example:25", dsn="2.0.0", attempt=1)
        told.write("deferred", "c@x.example", reply="451 later", attempt=1, next="2026-11-22T12:05:00Z")
        told.write("uncertain", "d@x.example", attempt=1)
        told.write("bounced", "c@x.example", reply="550 5.1.1 <c@x.example> unknown", attempt=2)
        told.write("expired", "d@x.example", attempt=9)
        told.write("held", "e@x.example", reason="by hand")
        told.write("provider", id="")
        assert told.round()
        assert told.round()
        assert names(made.taken) == [
            "sent a@x.example", "sent b@x.example", "delayed c@x.example", "delayed d@x.example",
            "bounced c@x.example", "expired d@x.example", "held e@x.example",
        ]  # fmt: skip
        assert len(made.requests) == 1
        made.check_signatures()
        first = dict(made.taken[0])
        assert len(first.pop("id")) == 32
        assert first == {
            "event": "sent", "at": "2026-11-22T12:00:02.000000Z", "queueId": "A", "from": "app@example.com",
            "to": "a@x.example", "relay": "mx.x.example:25", "dsn": "2.0.0", "attempt": 1,
        }  # fmt: skip
        assert made.requests[0][0]["content-type"] == "application/json"
        assert told.progress.taken == told.now


def test_kinds_and_fields_that_are_not_configured_are_not_delivered(spool_path: Path) -> None:
    with hook() as made:
        chosen = by_hook(made, events=(EventKind.BOUNCED,), fields=(EventField.DSN,))
        told = Told(spool_path, chosen)
        told.write("sent", "a@x.example")
        told.write("bounced", "b@x.example", dsn="5.1.1", reply="550 5.1.1 <b@x.example> unknown")
        assert told.round()
        [event] = made.taken
        assert event.keys() == {"id", "event", "at", "queueId", "dsn"}
        assert b"x.example" not in made.requests[0][1]


def test_an_outcome_repeated_by_recovery_has_the_same_event_id_and_others_have_their_own() -> None:
    def ids(**fields: Any) -> list[str]:
        usual: dict[str, Any] = {"at": "2026", "event": "sent", "id": "A", "to": ("a@x", "b@x"), "attempt": 1}
        return [event.id for event in events_of(Line(**usual | fields), ())]

    assert ids() == ids(at="2027", again=True)
    assert ids(to=("b@x",)) == ids()[1:]
    different = [
        ids(), ids(event="bounced"), ids(id="B"), ids(attempt=2),
        ids(event="deferred"), ids(event="deferred", at="2027"),
    ]  # fmt: skip
    assert len({each for some in different for each in some}) == 12


def test_a_receiver_that_is_dead_for_an_hour_gets_everything_in_order(spool_path: Path) -> None:
    """By its troubles in turn: 500, dropped after it was read, a 429 with Retry-After, a refusal."""
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        end = told.now + 3600
        troubles = [500, DROP, 429, 503, 404]
        number = 0
        while told.now < end:
            number += 1
            told.write("sent", f"{number}@x.example", id=str(number % 7), attempt=number)
            made.script = [troubles[number % len(troubles)]]
            made.headers_of_answers = {"Retry-After": "90"}
            assert not told.round()
            told.now = max(told.progress.next_try, told.now) + 0.5
            told.restart()
        assert made.taken == []
        assert 5 < len(made.requests) < 70
        assert told.progress.failures == len(made.requests)
        made.script = []
        assert told.round()
        assert names(made.taken) == [f"sent {each}@x.example" for each in range(1, number + 1)]
        assert told.progress.failures == 0
        assert not told.progress.error
        assert any("accepts them again" in each for each in told.said)
        assert not any("T0KEN" in each or SECRET in each for each in told.said)


@pytest.mark.parametrize(
    ("answer", "failures", "seconds"),
    [
        (Answer(Verdict.LATER), 1, 2),
        (Answer(Verdict.LATER), 4, 16),
        (Answer(Verdict.LATER), 999, 300),
        (Answer(Verdict.LATER, wait=120), 1, 120),
        (Answer(Verdict.LATER, wait=9e9), 1, 3600),
        (Answer(Verdict.REFUSED), 1, 60),
        (Answer(Verdict.REFUSED), 999, 3600),
        (Answer(Verdict.GONE), 1, 3600),
    ],
)
def test_pauses_get_longer_and_are_longer_where_people_must_act(
    answer: Answer, failures: int, seconds: float
) -> None:
    assert pause(answer, failures, lambda: 0.0) == seconds
    assert pause(answer, failures, lambda: 1.0) == seconds * 0.75


@pytest.mark.security_case(123)
@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.TAKEN), (202, Verdict.TAKEN), (302, Verdict.REFUSED), (308, Verdict.REFUSED),
        (400, Verdict.REFUSED), (401, Verdict.REFUSED), (404, Verdict.REFUSED), (408, Verdict.LATER),
        (410, Verdict.GONE), (413, Verdict.TOO_LARGE), (425, Verdict.LATER), (429, Verdict.LATER),
        (500, Verdict.LATER), (503, Verdict.LATER),
    ],
)  # fmt: skip
def test_each_status_has_its_meaning(spool_path: Path, status: int, verdict: Verdict) -> None:
    with hook() as made:
        made.script = [status, 204]
        made.headers_of_answers = {"Location": f"{made.url}/elsewhere"}
        event = next(events_of(Line(at="2026", event="sent", to=("a@x",)), ()))
        answer = asyncio.run(receiver.Receiver(by_hook(made), lambda: NOON).give([event]))
        assert answer.verdict is verdict
        assert len(made.requests) == 1
        assert "T0KEN" not in answer.why


def test_a_receiver_that_hangs_is_given_up_after_its_time_limit(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "WEBHOOK_TIMEOUT", 0.3)
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.write("sent", "a@x.example")
        made.script = [HANG]
        assert not told.round()
        assert "not answered within" in told.progress.error
        told.now += 3
        assert told.round()
        assert names(made.seen) == ["sent a@x.example"] * 2
        assert made.seen[0]["id"] == made.seen[1]["id"]


def test_a_batch_that_is_too_large_is_halved_until_it_is_taken(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.write("sent", *(f"{number}@x.example" for number in range(250)))
        made.script = [413, 413, 204, 413]
        assert told.round()
        assert names(made.taken) == [f"sent {number}@x.example" for number in range(250)]
        sizes = [len(json.loads(body)) for _, body in made.requests]
        assert sizes[:5] == [100, 50, 25, 25, 12]


def test_a_line_delivered_in_part_continues_after_its_last_delivered_recipient(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.write("sent", *(f"{number}@x.example" for number in range(250)))
        told.write("sent", "z@x.example", id="B")
        made.script = [204, 204, 500]
        assert not told.round()
        assert told.progress.cursor.told == 200
        told.restart()
        told.now += 60
        assert told.round()
        assert len(made.taken) == 251
        assert len({event["id"] for event in made.taken}) == 251


def test_torn_lines_moved_files_and_leaping_clocks_lose_nothing(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.write("sent", "1@x.example")
        told.append(b'{"at":"2026-11-22T12:00:03Z","event":"sent","to":["torn@x')
        assert told.round()
        told.write("sent", "2@x.example")  # Behind the torn one, on the same line.
        assert told.round()
        told.now -= 400 * DAY
        told.write("sent", "3@x.example")
        assert told.round()
        told.now += 4000 * DAY
        told.write("sent", "4@x.example")
        assert told.round()
        for path in told.log.iterdir():  # As a copy to another disk does.
            path.write_bytes(path.read_bytes()) if path.unlink() else None
        told.restart()
        told.now = NOON + 10
        told.write("sent", "5@x.example")
        assert told.round()
        assert names(made.taken) == [f"sent {number}@x.example" for number in range(1, 6)]


def test_a_time_to_try_again_from_a_wrong_clock_is_not_waited_for(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.now += 900 * DAY
        told.write("sent", "a@x.example")
        made.script = [500]
        assert not told.round()
        told.now = NOON
        assert told.round()
        assert len(made.taken) == 1


def test_a_cursor_is_never_ahead_of_what_is_durable_in_the_ledger(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may take a ledger's last second; what is written there afterwards is told all the same."""
    order: list[str] = []
    sync, replace = os.fdatasync, store.small_files.replace
    monkeypatch.setattr(
        os, "fdatasync", lambda fd: (order.append(Path(f"/proc/self/fd/{fd}").readlink().name), sync(fd))
    )
    monkeypatch.setattr(store.small_files, "replace", lambda *args: (order.append("cursor"), replace(*args)))
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        order.clear()
        told.write("sent", "a@x.example")
        assert told.round()
        assert order == ["20261122.jsonl", "cursor"]


def test_days_removed_before_delivery_are_reported_as_a_gap(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.write("sent", "1@x.example")
        assert told.round()
        told.write("bounced", "lost@x.example")
        made.script = [500]
        assert not told.round()
        told.now += 2 * DAY
        told.write("sent", "2@x.example")
        (told.log / "20261122.jsonl").unlink()
        made.script = [500]
        assert not told.round()
        told.now += 60
        told.restart()
        assert told.round()
        assert names(made.taken) == ["sent 1@x.example", "gap ", "sent 2@x.example"]
        gap = made.taken[1]
        assert gap["since"] == "2026-11-22T12:00:02.000000Z"
        assert gap["until"] == "2026-11-22T23:59:59.999999Z"
        assert [e["id"] for e in made.seen if e["event"] == "gap"] == [gap["id"]] * 2
        told.write("sent", "3@x.example")
        assert told.round()
        assert names(made.taken)[3:] == ["sent 3@x.example"]


def test_days_removed_after_delivery_are_not_reported(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.write("sent", "1@x.example")
        assert told.round()
        (told.log / "20261122.jsonl").unlink()
        for _ in range(40):
            told.now += DAY
            assert told.round()
        told.write("sent", "2@x.example")
        assert told.round()
        assert names(made.taken) == ["sent 1@x.example", "sent 2@x.example"]


def test_days_that_were_never_read_may_be_a_gap(spool_path: Path) -> None:
    """Told nothing for longer than the ledger is kept, as where onEvent was switched off for a while."""
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.now += 40 * DAY
        told.write("sent", "2@x.example")
        assert told.round()
        assert names(made.taken) == ["gap ", "sent 2@x.example"]


def test_earlier_events_are_not_delivered_unless_they_are_replayed(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        for _ in range(3):
            told.write("sent", f"{told.now:.0f}@x.example")
            told.now += DAY
        third = told.now - DAY
        (spool_path / "state" / store.NAME).unlink()
        told.restart()
        told.deliverer.begin()
        assert told.round()
        assert made.taken == []
        cursor = backlog.since(lambda: told.spool.directory(LOG), third - 1)
        assert [len(b.events) for b in backlog.batches(lambda: told.spool.directory(LOG), cursor, ALL)] == [1]
        cursor = backlog.since(lambda: told.spool.directory(LOG), NOON)
        assert [len(b.events) for b in backlog.batches(lambda: told.spool.directory(LOG), cursor, ALL)] == [3]


@pytest.mark.parametrize("damage", [b"{", b"", b"\0" * 40, b"[]", b'{"cursor": {}, "looked": 1}'])
def test_an_undecodable_cursor_has_the_whole_ledger_delivered_again(spool_path: Path, damage: bytes) -> None:
    """The receiver knows the ids; an event that nobody is told of is lost."""
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.write("sent", "a@x.example")
        assert told.round()
        told.write("sent", "b@x.example")
        file = spool_path / "state" / store.NAME
        file.write_bytes(damage)
        shown = commands.status_of(CONFIG, told.spool, told.now)
        assert shown.failures
        assert f"{file} cannot be decoded: all events of the ledger are" in commands.as_text(shown)
        told.restart()
        told.deliverer.begin()
        assert told.round()
        assert names(made.taken) == ["sent a@x.example", "sent a@x.example", "sent b@x.example"]
        assert made.taken[0] == made.taken[1]
        assert any("cannot be decoded" in said for said in told.said)
        told.write("sent", "c@x.example")
        assert told.round()
        assert names(made.taken)[3:] == ["sent c@x.example"]
        assert commands.as_text(commands.status_of(CONFIG, told.spool, told.now)).startswith(
            "all events are delivered"
        )


def test_a_cursor_damaged_while_a_runner_delivers_is_treated_the_same(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.write("sent", "a@x.example")
        assert told.round()
        told.write("sent", "b@x.example")
        (spool_path / "state" / store.NAME).write_bytes(b"{")
        assert told.round()
        assert names(made.taken) == ["sent a@x.example", "sent a@x.example", "sent b@x.example"]


def test_a_cursor_that_cannot_be_read_is_an_error_until_it_can_be(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.write("sent", "a@x.example")
        assert told.round()
        told.write("sent", "b@x.example")
        file = spool_path / "state" / store.NAME
        elsewhere = file.rename(spool_path / "elsewhere")
        file.symlink_to(elsewhere)  # no program opens one
        told.restart()
        with pytest.raises(OSError, match="symbolic"):
            told.deliverer.begin()
        with pytest.raises(OSError, match="symbolic"):
            told.round()
        shown = commands.status_of(CONFIG, told.spool, told.now)
        assert shown.failures
        assert f"{file} cannot be read: " in commands.as_text(shown)
        assert "all events are delivered" not in commands.as_text(shown)
        assert file.is_symlink()
        assert names(made.taken) == ["sent a@x.example"]
        elsewhere.rename(file)
        assert told.round()
        assert names(made.taken) == ["sent a@x.example", "sent b@x.example"]


def test_replayed_events_are_delivered_by_a_deliverer_that_was_idle(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.write("sent", "a@x.example")
        assert told.round()
        assert told.round()
        again = store.Progress(cursor=backlog.since(told.deliverer._directory, NOON - 60), looked=told.now)
        store.write(told.spool, again)
        assert told.round()
        assert names(made.taken) == ["sent a@x.example"] * 2


def test_lines_that_could_not_be_written_are_reported_as_a_gap_in_their_place(spool_path: Path) -> None:
    with hook() as made:
        told = Told(spool_path, by_hook(made, events=(EventKind.SENT,)))
        told.write("sent", "1@x.example")
        told.write("lost", id="", since="2026-11-22T12:00:01.500000Z")
        told.write("sent", "2@x.example")
        shown = commands.status_of(CONFIG, told.spool, told.now)
        assert (shown.waiting, shown.gap_since, shown.losing_since) == (3, "2026-11-22T12:00:01.500000Z", "")
        made.script = [500]
        assert not told.round()
        told.now += 60
        assert told.round()
        assert names(made.taken) == ["sent 1@x.example", "gap ", "sent 2@x.example"]
        gap = made.taken[1]
        assert (gap["since"], gap["until"]) == ("2026-11-22T12:00:01.500000Z", "2026-11-22T12:00:02.000000Z")
        assert len({event["id"] for event in made.seen}) == 3
        told.write("sent", "3@x.example")
        told.now += 60
        told.restart()
        assert told.round()
        (told.log / f"{LOST}.2026-11-22T12:05:00.000000Z").touch()
        shown = commands.status_of(CONFIG, told.spool, told.now)
        said = commands.as_text(shown)
        assert "gap: events between 2026-11-22 12:00:01Z and 2026-11-22 12:00:02Z are lost" in said
        assert "are lost until the ledger can be written again" in said


def test_batches_of_any_size_deliver_the_same_events(spool_path: Path) -> None:
    """From every cursor on the way the rest follows, nothing left out."""
    told = Told(spool_path, OnEvent())
    rng = random.Random(5)
    for number in range(60):
        told.now += rng.choice((1, DAY / 3))
        to = [f"{number}-{each}@x.example" for each in range(rng.choice((1, 1, 3, 12)))]
        told.write(rng.choice(("sent", "bounced", "accepted")), *to, id=str(number % 5), attempt=number)
    expected = [
        event
        for path in sorted(told.log.iterdir())
        for raw in path.read_bytes().splitlines()
        if (line := decode(raw)) and line.event != "accepted"
        for event in events_of(line, tuple(EventField))
    ]
    for most in (1, 2, 5, 7, 100):
        cursor, found = Cursor(positions={}), []
        for _ in range(1000):
            batch = next(backlog.batches(lambda: told.spool.directory(LOG), cursor, ALL, most))
            found += batch.events
            cursor = msgspec.json.decode(msgspec.json.encode(batch.cursor), type=Cursor)
            if not batch.events:
                break
        assert found == expected


@pytest.mark.security_case(124)
def test_a_command_gets_lines_and_its_exit_code_counts(spool_path: Path, tmp_path: Path) -> None:
    program = tmp_path / "told.py"
    program.write_text(
        "import os, sys\n"
        "with open(sys.argv[1], 'a') as file: file.write(sys.stdin.read())\n"
        "sys.exit(os.path.exists(sys.argv[1] + '.fail'))\n"
    )
    output = tmp_path / "told; $(touch shell)"
    fail = Path(f"{output}.fail")
    told = Told(spool_path, OnEvent(command=(sys.executable, str(program), str(output))))
    fail.touch()
    forged = '250 ok\r\n{"id":"forged"}\x00\u2028'
    told.write("sent", "a@x.example", "b@x.example", reply=forged)
    assert not told.round()
    assert "ended with 1" in told.progress.error
    fail.unlink()
    told.now += 3
    assert told.round()
    events = [json.loads(line) for line in output.read_bytes().split(b"\n")[:-1]]
    assert {event["reply"] for event in events} == {forged}
    assert names(events) == ["sent a@x.example", "sent b@x.example"] * 2
    assert not list(tmp_path.glob("**/shell"))


@pytest.mark.security_case(125)
@pytest.mark.parametrize(
    ("on_event", "words"),
    [
        (OnEvent(webhook=Secret("http://192.0.2.1/T0KEN"), secret=Secret("s")), "must begin with https://"),
        (OnEvent(webhook=Secret("https://h.invalid/ T0KEN"), secret=Secret("s")), "is not a URL"),
        (OnEvent(webhook=Secret("http://127.0.0.1:1/T0KEN"), secret=Secret("")), "is empty"),
        (OnEvent(webhook=Secret("http://127.0.0.1:1/T0KEN"), secret=Secret("s")), "Connection refused"),
        (OnEvent(command=("/nonexistent",)), "cannot be started: No such file"),
    ],
)
def test_events_that_cannot_be_delivered_wait_and_the_reason_is_shown(
    spool_path: Path, on_event: OnEvent, words: str
) -> None:
    told = Told(spool_path, on_event)
    told.write("sent", "a@x.example")
    assert not told.round()
    assert words in told.progress.error
    assert "T0KEN" not in told.progress.error + repr(told.said)
    assert told.progress.waiting_since == "2026-11-22T12:00:01.000000Z"


@pytest.mark.security_case(123)
def test_a_webhook_in_clear_or_without_a_secret_is_refused(tmp_path: Path) -> None:
    from mailer.config.checks import refuse_to_send  # noqa: PLC0415

    def refused(**on_event: Any) -> list[str]:
        path = tmp_path / "config.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"onEvent": on_event}))
        return [problem.path for problem in refuse_to_send(load(str(path), {}))]

    assert refused(webhook="https://hooks.example/x", secret="s") == []
    assert refused(webhook="http://localhost:9/x", secret="s") == []
    assert refused(webhook="http://hooks.example/x", secret="s") == ["$.onEvent.webhook"]
    assert refused(webhook="https://hooks.example/x") == ["$.onEvent.secret"]
    assert refused(webhook="http://localhost:9/x", secret="s", command=["x"]) == ["$.onEvent.command"]


@pytest.mark.security_case(125)
def test_runs_by_cron_alone_deliver_everything_and_each_command_shows_the_state(relay: Relay) -> None:
    """The receiver is down, then answers 500, then is well; nothing but `mailer-send --once` is started."""
    with hook() as made, Server({"rcpt": "550 5.1.1 no such user"}) as provider:
        relay.configure(forward_to(provider) | made.settings())
        assert relay.mailer_send("--once").returncode == 0
        made.script = [500]
        first = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        waiting = relay.mailer("events", "status", "--json")
        assert waiting.returncode == 1
        told = json.loads(waiting.stdout)
        assert (told["waiting"], told["failures"]) == (1, 1)
        assert told["error"] == "the webhook answered 500"
        text = relay.mailer("events", "status").stdout + relay.mailer("config", "show").stdout
        assert "1 wait, the first since" in text
        assert "T0KEN" not in text
        assert SECRET not in text
        doctor = relay.mailer("doctor", "--offline").stdout
        assert "the webhook answered 500" in doctor
        with relay.monitor():
            answer = ask(relay.http_port, "/health").json
            assert "the webhook answered 500" in answer["checks"]["events"]["message"]
            metrics = ask(relay.http_port, "/metrics", headers={"Accept": "text/plain"}).body
            assert b"\nmailer_events_failures 1.0" in metrics
            assert float(re.findall(rb"\nmailer_events_lag_seconds (\S+)", metrics)[0]) > 0
        assert made.taken == []
        assert relay.mailer_send("--once", under=faketime("+3m")).returncode == 0
        assert [(event["queueId"], event["event"], event["dsn"]) for event in made.taken] == [
            (first, "bounced", "5.1.1")
        ]
        assert relay.mailer("events", "status").stdout.startswith("all events are delivered\n")
        assert relay.mailer("events", "replay", "--since", "1h").returncode == 0
        assert json.loads(relay.mailer("events", "status", "--json").stdout)["waiting"] == 1
        relay.mailer_send("--once")
        assert [event["id"] for event in made.taken] == [made.taken[0]["id"]] * 2
        assert json.loads(relay.mailer("events", "test", "--json").stdout)["taken"]
        assert made.taken[-1]["event"] == "test"
        made.script = [410]
        refused = relay.mailer("events", "test")
        assert refused.returncode == 69
        assert "not taken: the webhook answered 410" in refused.stdout
        made.check_signatures()


def test_a_deliverer_killed_at_random_delivers_everything_in_order(relay: Relay) -> None:
    """While mail goes out, `--watch` is killed again and again, and the receiver fails now and then."""
    rng = random.Random(11)
    with hook() as made, Server() as provider:
        relay.configure(forward_to(provider) | made.settings())
        relay.mailer_send("--once")
        expected: set[tuple[str, str]] = set()
        for _ in range(5):
            for _ in range(6):
                to = [f"{each}@x.example" for each in range(3)]
                expected |= {(queue(relay.spool, to), address) for address in to}
            made.script = [rng.choice((204, 204, 500, DROP))]
            with relay.watch() as runner:
                seen = len(made.requests) + 1
                until(lambda seen=seen: len(made.requests) >= seen or not runner.running, "a request")
                runner.kill()
        made.script = []
        until(
            lambda: relay.mailer_send("--once").returncode == 0 and not list((relay.spool / "cur").iterdir()),
            "the mail",
        )
        until(
            lambda: (
                relay.mailer_send("--once", under=faketime("+10m")).returncode == 0
                and {(event["queueId"], event["to"]) for event in made.taken} >= expected
            ),
            "the events",
        )
        ids = {event["id"]: (event["queueId"], event["to"], event["event"]) for event in made.taken}
        assert len(ids) == len(set(ids.values()))
        check_order(relay.spool, made)


def check_order(spool: Path, made: Hook) -> None:
    """What was taken first of each event comes in the ledger's order."""
    first = list(dict.fromkeys(event["id"] for event in made.taken))
    ledger = dict.fromkeys(
        event.id
        for path in sorted((spool / LOG).iterdir())
        for raw in path.read_bytes().splitlines()
        if (line := decode(raw)) and line.event in {"sent", "deferred", "uncertain"}
        for event in events_of(line, ())
    )
    places = {name: number for number, name in enumerate(ledger)}
    assert [places[name] for name in first] == sorted(places[name] for name in first)


def test_a_run_that_is_stopped_or_out_of_time_abandons_a_receiver_that_hangs(relay: Relay) -> None:
    with hook() as made:
        relay.configure(made.settings())
        relay.mailer_send("--once")
        queue(relay.spool)
        made.script = [HANG] * 9
        assert relay.mailer_send("--once", "--max-seconds", "1").returncode == 0
        assert len(relay.delivered()) == 1
        with Spool.open(relay.spool) as spool:
            progress = store.read(spool)
        assert progress is not None
        assert "too slow" in progress.error


def rest(told: Told, seconds: float) -> None:
    log = MailLog(lambda: told.now, lambda *_: None)
    asyncio.run(event_delivery.deliver_backlog(told.deliverer, log, asyncio.Event(), seconds))


def test_a_receiver_slower_than_a_run_counts_as_failed_and_is_paused_longer_each_time(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert receiver.COMMAND_TIMEOUT < event_delivery.AFTER_A_RUN
    monkeypatch.setattr(event_delivery, "_LEAST", 0.1)
    monkeypatch.setattr(event_delivery, "_LAST_WORDS", 60.0)
    told = Told(spool_path, OnEvent(command=("sleep", "600")))
    told.write("sent", "a@x.example")
    for failures, seconds in ((1, 2.0), (2, 4.0)):
        rest(told, 0.1)
        assert "too slow" in told.progress.error
        assert told.progress.failures == failures
        assert told.progress.next_try == told.now + seconds
        told.now += seconds


def test_a_run_whose_time_went_into_mail_still_delivers_some_events(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_delivery, "_LEAST", 60.0)
    with hook() as made:
        told = Told(spool_path, by_hook(made))
        told.write("sent", "a@x.example")
        rest(told, -5.0)
        assert names(made.taken) == ["sent a@x.example"]


@only_root("only root can become another user")
def test_a_command_runs_as_the_spools_owner_without_our_environment(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    with TemporaryDirectory(prefix="mailer-test-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        relay = Relay(directory)
        output = directory / "told"
        output.touch()
        os.chown(output, nobody.pw_uid, nobody.pw_gid)
        script = f"id -u >> {output}; env >> {output}; cat >> {output}"
        relay.configure({"onEvent": {"command": ["/bin/sh", "-c", script]}})
        queue(relay.spool)
        for path in (relay.spool, *relay.spool.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        relay.mailer_send("--once")
        relay.mailer("events", "replay", "--since", "1h")
        assert relay.mailer_send("--once").returncode == 0
        said = output.read_text()
        assert said.startswith(f"{nobody.pw_uid}\n")
        assert '"event":"sent"' in said
        assert "MAILER_CONFIG" not in said
        assert {path.stat().st_uid for path in relay.spool.rglob("*")} == {nobody.pw_uid}
