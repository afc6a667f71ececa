"""The cursor in the ledger loses no event: torn and moved files, wrong clocks, gaps, damage and replays."""

import os
import random
from pathlib import Path

import msgspec
import pytest
from outbound.event_delivery import ALL, CONFIG, DAY, NOON, Delivery, by_hook, names
from outbound.event_hook import hook

from mailer.cli.events import commands
from mailer.config.calls import EventField, EventKind, OnEvent
from mailer.events import backlog, store
from mailer.events.event import events_of
from mailer.events.store import Cursor
from mailer.maillog.ledger import LOST
from mailer.maillog.lines import decode
from mailer.spool.layout import LOG


def test_a_line_delivered_in_part_continues_after_its_last_delivered_recipient(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.write("sent", *(f"{number}@x.example" for number in range(250)))
        delivery.write("sent", "z@x.example", id="B")
        made.script = [204, 204, 500]
        assert not delivery.round()
        assert delivery.progress.cursor.told == 200
        delivery.restart()
        delivery.now += 60
        assert delivery.round()
        assert len(made.taken) == 251
        assert len({event["id"] for event in made.taken}) == 251


def test_torn_lines_moved_files_and_leaping_clocks_lose_nothing(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.write("sent", "1@x.example")
        delivery.append(b'{"at":"2026-11-22T12:00:03Z","event":"sent","to":["torn@x')
        assert delivery.round()
        delivery.write("sent", "2@x.example")  # Behind the torn one, on the same line.
        assert delivery.round()
        delivery.now -= 400 * DAY
        delivery.write("sent", "3@x.example")
        assert delivery.round()
        delivery.now += 4000 * DAY
        delivery.write("sent", "4@x.example")
        assert delivery.round()
        for path in delivery.log.iterdir():  # As a copy to another disk does.
            path.write_bytes(path.read_bytes()) if path.unlink() else None
        delivery.restart()
        delivery.now = NOON + 10
        delivery.write("sent", "5@x.example")
        assert delivery.round()
        assert names(made.taken) == [f"sent {number}@x.example" for number in range(1, 6)]


def test_a_time_to_try_again_from_a_wrong_clock_is_not_waited_for(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.now += 900 * DAY
        delivery.write("sent", "a@x.example")
        made.script = [500]
        assert not delivery.round()
        delivery.now = NOON
        assert delivery.round()
        assert len(made.taken) == 1


def test_a_cursor_is_never_ahead_of_what_is_durable_in_the_ledger(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may take a ledger's last second; what is written there afterwards is delivered, too."""
    order: list[str] = []
    sync, replace = os.fdatasync, store.small_files.replace
    monkeypatch.setattr(
        os, "fdatasync", lambda fd: (order.append(Path(f"/proc/self/fd/{fd}").readlink().name), sync(fd))
    )
    monkeypatch.setattr(store.small_files, "replace", lambda *args: (order.append("cursor"), replace(*args)))
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        order.clear()
        delivery.write("sent", "a@x.example")
        assert delivery.round()
        assert order == ["20261122.jsonl", "cursor"]


def test_days_removed_before_delivery_are_reported_as_a_gap(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.write("sent", "1@x.example")
        assert delivery.round()
        delivery.write("bounced", "lost@x.example")
        made.script = [500]
        assert not delivery.round()
        delivery.now += 2 * DAY
        delivery.write("sent", "2@x.example")
        (delivery.log / "20261122.jsonl").unlink()
        made.script = [500]
        assert not delivery.round()
        delivery.now += 60
        delivery.restart()
        assert delivery.round()
        assert names(made.taken) == ["sent 1@x.example", "gap ", "sent 2@x.example"]
        gap = made.taken[1]
        assert gap["since"] == "2026-11-22T12:00:02.000000Z"
        assert gap["until"] == "2026-11-22T23:59:59.999999Z"
        assert [e["id"] for e in made.seen if e["event"] == "gap"] == [gap["id"]] * 2
        delivery.write("sent", "3@x.example")
        assert delivery.round()
        assert names(made.taken)[3:] == ["sent 3@x.example"]


def test_days_removed_after_delivery_are_not_reported(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.write("sent", "1@x.example")
        assert delivery.round()
        (delivery.log / "20261122.jsonl").unlink()
        for _ in range(40):
            delivery.now += DAY
            assert delivery.round()
        delivery.write("sent", "2@x.example")
        assert delivery.round()
        assert names(made.taken) == ["sent 1@x.example", "sent 2@x.example"]


def test_days_that_were_never_read_may_be_a_gap(spool_path: Path) -> None:
    """Delivery nothing for longer than the ledger is kept, as where onEvent was switched off for a while."""
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.now += 40 * DAY
        delivery.write("sent", "2@x.example")
        assert delivery.round()
        assert names(made.taken) == ["gap ", "sent 2@x.example"]


def test_earlier_events_are_not_delivered_unless_they_are_replayed(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        for _ in range(3):
            delivery.write("sent", f"{delivery.now:.0f}@x.example")
            delivery.now += DAY
        third = delivery.now - DAY
        (spool_path / "state" / store.NAME).unlink()
        delivery.restart()
        delivery.deliverer.begin()
        assert delivery.round()
        assert made.taken == []
        cursor = backlog.since(lambda: delivery.spool.directory(LOG), third - 1)
        assert [
            len(b.events) for b in backlog.batches(lambda: delivery.spool.directory(LOG), cursor, ALL)
        ] == [1]
        cursor = backlog.since(lambda: delivery.spool.directory(LOG), NOON)
        assert [
            len(b.events) for b in backlog.batches(lambda: delivery.spool.directory(LOG), cursor, ALL)
        ] == [3]


@pytest.mark.parametrize("damage", [b"{", b"", b"\0" * 40, b"[]", b'{"cursor": {}, "looked": 1}'])
def test_an_undecodable_cursor_has_the_whole_ledger_delivered_again(spool_path: Path, damage: bytes) -> None:
    """The receiver knows the ids; an event that is not delivered is lost."""
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.write("sent", "a@x.example")
        assert delivery.round()
        delivery.write("sent", "b@x.example")
        file = spool_path / "state" / store.NAME
        file.write_bytes(damage)
        shown = commands.status_of(CONFIG, delivery.spool, delivery.now)
        assert shown.failures
        assert f"{file} cannot be decoded: all events of the ledger are" in commands.as_text(shown)
        delivery.restart()
        delivery.deliverer.begin()
        assert delivery.round()
        assert names(made.taken) == ["sent a@x.example", "sent a@x.example", "sent b@x.example"]
        assert made.taken[0] == made.taken[1]
        assert any("cannot be decoded" in said for said in delivery.said)
        delivery.write("sent", "c@x.example")
        assert delivery.round()
        assert names(made.taken)[3:] == ["sent c@x.example"]
        assert commands.as_text(commands.status_of(CONFIG, delivery.spool, delivery.now)).startswith(
            "all events are delivered"
        )


def test_a_cursor_damaged_while_a_runner_delivers_is_treated_the_same(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.write("sent", "a@x.example")
        assert delivery.round()
        delivery.write("sent", "b@x.example")
        (spool_path / "state" / store.NAME).write_bytes(b"{")
        assert delivery.round()
        assert names(made.taken) == ["sent a@x.example", "sent a@x.example", "sent b@x.example"]


def test_a_cursor_that_cannot_be_read_is_an_error_until_it_can_be(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.write("sent", "a@x.example")
        assert delivery.round()
        delivery.write("sent", "b@x.example")
        file = spool_path / "state" / store.NAME
        elsewhere = file.rename(spool_path / "elsewhere")
        file.symlink_to(elsewhere)  # no program opens one
        delivery.restart()
        with pytest.raises(OSError, match="symbolic"):
            delivery.deliverer.begin()
        with pytest.raises(OSError, match="symbolic"):
            delivery.round()
        shown = commands.status_of(CONFIG, delivery.spool, delivery.now)
        assert shown.failures
        assert f"{file} cannot be read: " in commands.as_text(shown)
        assert "all events are delivered" not in commands.as_text(shown)
        assert file.is_symlink()
        assert names(made.taken) == ["sent a@x.example"]
        elsewhere.rename(file)
        assert delivery.round()
        assert names(made.taken) == ["sent a@x.example", "sent b@x.example"]


def test_replayed_events_are_delivered_by_a_deliverer_that_was_idle(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made))
        delivery.write("sent", "a@x.example")
        assert delivery.round()
        assert delivery.round()
        again = store.Progress(
            cursor=backlog.since(delivery.deliverer._directory, NOON - 60), looked=delivery.now
        )
        store.write(delivery.spool, again)
        assert delivery.round()
        assert names(made.taken) == ["sent a@x.example"] * 2


def test_lines_that_could_not_be_written_are_reported_as_a_gap_in_their_place(spool_path: Path) -> None:
    with hook() as made:
        delivery = Delivery(spool_path, by_hook(made, events=(EventKind.SENT,)))
        delivery.write("sent", "1@x.example")
        delivery.write("lost", id="", since="2026-11-22T12:00:01.500000Z")
        delivery.write("sent", "2@x.example")
        shown = commands.status_of(CONFIG, delivery.spool, delivery.now)
        assert (shown.waiting, shown.gap_since, shown.losing_since) == (3, "2026-11-22T12:00:01.500000Z", "")
        made.script = [500]
        assert not delivery.round()
        delivery.now += 60
        assert delivery.round()
        assert names(made.taken) == ["sent 1@x.example", "gap ", "sent 2@x.example"]
        gap = made.taken[1]
        assert (gap["since"], gap["until"]) == ("2026-11-22T12:00:01.500000Z", "2026-11-22T12:00:02.000000Z")
        assert len({event["id"] for event in made.seen}) == 3
        delivery.write("sent", "3@x.example")
        delivery.now += 60
        delivery.restart()
        assert delivery.round()
        (delivery.log / f"{LOST}.2026-11-22T12:05:00.000000Z").touch()
        shown = commands.status_of(CONFIG, delivery.spool, delivery.now)
        said = commands.as_text(shown)
        assert "gap: events between 2026-11-22 12:00:01Z and 2026-11-22 12:00:02Z are lost" in said
        assert "are lost until the ledger can be written again" in said


def test_batches_of_any_size_deliver_the_same_events(spool_path: Path) -> None:
    """From every cursor on the way the rest follows, nothing left out."""
    delivery = Delivery(spool_path, OnEvent())
    rng = random.Random(5)
    for number in range(60):
        delivery.now += rng.choice((1, DAY / 3))
        to = [f"{number}-{each}@x.example" for each in range(rng.choice((1, 1, 3, 12)))]
        delivery.write(rng.choice(("sent", "bounced", "accepted")), *to, id=str(number % 5), attempt=number)
    expected = [
        event
        for path in sorted(delivery.log.iterdir())
        for raw in path.read_bytes().splitlines()
        if (line := decode(raw)) and line.event != "accepted"
        for event in events_of(line, tuple(EventField))
    ]
    for most in (1, 2, 5, 7, 100):
        cursor, found = Cursor(positions={}), []
        for _ in range(1000):
            batch = next(backlog.batches(lambda: delivery.spool.directory(LOG), cursor, ALL, most))
            found += batch.events
            cursor = msgspec.json.decode(msgspec.json.encode(batch.cursor), type=Cursor)
            if not batch.events:
                break
        assert found == expected
