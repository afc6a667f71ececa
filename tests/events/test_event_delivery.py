"""Events to a webhook or a command: what is sent, what counts as taken, and when it is tried again."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from outbound.event_delivery import NOON, Delivery, by_hook, names
from outbound.event_hook import DROP, HANG, SECRET, hook

from mailer.cli.sending import event_delivery
from mailer.config.calls import EventField, EventKind, OnEvent
from mailer.config.load import load
from mailer.config.secrets import Secret
from mailer.events import receiver
from mailer.events.deliverer import pause
from mailer.events.event import events_of
from mailer.events.receiver import Answer, Verdict
from mailer.maillog.events import MailLog
from mailer.maillog.ledger import Line


def test_each_recipient_is_an_event_signed_and_in_order(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made, events=tuple(EventKind)))
        delivery.write("accepted", "a@x.example", "b@x.example")
        delivery.write("sent", "a@x.example", "b@x.example", relay="mx.x.example:25", dsn="2.0.0", attempt=1)
        delivery.write("deferred", "c@x.example", reply="451 later", attempt=1, next="2026-11-22T12:05:00Z")
        delivery.write("uncertain", "d@x.example", attempt=1)
        delivery.write("bounced", "c@x.example", reply="550 5.1.1 <c@x.example> unknown", attempt=2)
        delivery.write("expired", "d@x.example", attempt=9)
        delivery.write("held", "e@x.example", reason="by hand")
        delivery.write("provider", id="")
        assert delivery.round()
        assert delivery.round()
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
        assert delivery.progress.taken == delivery.now


def test_kinds_and_fields_that_are_not_configured_are_not_delivered(spool_path: Path) -> None:
    with hook() as made:
        chosen = by_hook(made, events=(EventKind.BOUNCED,), fields=(EventField.DSN,))
        delivery = Delivery(spool_path, chosen)
        delivery.write("sent", "a@x.example")
        delivery.write("bounced", "b@x.example", dsn="5.1.1", reply="550 5.1.1 <b@x.example> unknown")
        assert delivery.round()
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
        delivery = Delivery(spool_path, by_hook(made))
        end = delivery.now + 3600
        troubles = [500, DROP, 429, 503, 404]
        number = 0
        while delivery.now < end:
            number += 1
            delivery.write("sent", f"{number}@x.example", id=str(number % 7), attempt=number)
            made.script = [troubles[number % len(troubles)]]
            made.headers_of_answers = {"Retry-After": "90"}
            assert not delivery.round()
            delivery.now = max(delivery.progress.next_try, delivery.now) + 0.5
            delivery.restart()
        assert made.taken == []
        assert 5 < len(made.requests) < 70
        assert delivery.progress.failures == len(made.requests)
        made.script = []
        assert delivery.round()
        assert names(made.taken) == [f"sent {each}@x.example" for each in range(1, number + 1)]
        assert delivery.progress.failures == 0
        assert not delivery.progress.error
        assert any("accepts them again" in each for each in delivery.said)
        assert not any("T0KEN" in each or SECRET in each for each in delivery.said)


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
        delivery = Delivery(spool_path, by_hook(made))
        delivery.write("sent", "a@x.example")
        made.script = [HANG]
        assert not delivery.round()
        assert "not answered within" in delivery.progress.error
        delivery.now += 3
        assert delivery.round()
        assert names(made.seen) == ["sent a@x.example"] * 2
        assert made.seen[0]["id"] == made.seen[1]["id"]


def test_a_batch_that_is_too_large_is_halved_until_it_is_taken(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.write("sent", *(f"{number}@x.example" for number in range(250)))
        made.script = [413, 413, 204, 413]
        assert delivery.round()
        assert names(made.taken) == [f"sent {number}@x.example" for number in range(250)]
        sizes = [len(json.loads(body)) for _, body in made.requests]
        assert sizes[:5] == [100, 50, 25, 25, 12]


@pytest.mark.security_case(124)
def test_a_command_gets_lines_and_its_exit_code_counts(spool_path: Path, tmp_path: Path) -> None:
    program = tmp_path / "delivery.py"
    program.write_text(
        "import os, sys\n"
        "with open(sys.argv[1], 'a') as file: file.write(sys.stdin.read())\n"
        "sys.exit(os.path.exists(sys.argv[1] + '.fail'))\n"
    )
    output = tmp_path / "delivery; $(touch shell)"
    fail = Path(f"{output}.fail")
    delivery = Delivery(spool_path, OnEvent(command=(sys.executable, str(program), str(output))))
    fail.touch()
    forged = '250 ok\r\n{"id":"forged"}\x00\u2028'
    delivery.write("sent", "a@x.example", "b@x.example", reply=forged)
    assert not delivery.round()
    assert "ended with 1" in delivery.progress.error
    fail.unlink()
    delivery.now += 3
    assert delivery.round()
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
    delivery = Delivery(spool_path, on_event)
    delivery.write("sent", "a@x.example")
    assert not delivery.round()
    assert words in delivery.progress.error
    assert "T0KEN" not in delivery.progress.error + repr(delivery.said)
    assert delivery.progress.waiting_since == "2026-11-22T12:00:01.000000Z"


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


def after_a_run(delivery: Delivery, seconds: float) -> None:
    log = MailLog(lambda: delivery.now, lambda *_: None)
    asyncio.run(event_delivery.deliver_backlog(delivery.deliverer, log, asyncio.Event(), seconds))


def test_a_receiver_slower_than_a_run_counts_as_failed_and_is_paused_longer_each_time(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert receiver.COMMAND_TIMEOUT < event_delivery.AFTER_A_RUN
    monkeypatch.setattr(event_delivery, "_LEAST", 0.1)
    monkeypatch.setattr(event_delivery, "_LAST_WORDS", 60.0)
    delivery = Delivery(spool_path, OnEvent(command=("sleep", "600")))
    delivery.write("sent", "a@x.example")
    for failures, seconds in ((1, 2.0), (2, 4.0)):
        after_a_run(delivery, 0.1)
        assert "too slow" in delivery.progress.error
        assert delivery.progress.failures == failures
        assert delivery.progress.next_try == delivery.now + seconds
        delivery.now += seconds


def test_a_run_whose_time_went_into_mail_still_delivers_some_events(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_delivery, "_LEAST", 60.0)
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.write("sent", "a@x.example")
        after_a_run(delivery, -5.0)
        assert names(made.taken) == ["sent a@x.example"]
