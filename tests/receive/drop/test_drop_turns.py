"""Users take turns, and what one of them can cost the others is limited."""

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from inbound.dropping import ANN, EVE, TEXT, TO, Receiver, as_root, leave, names, queued
from inbound.receiving import USER
from testbed.relay import USERNAME, Relay

from mailer.cli.sending import drops
from mailer.config.load import load
from mailer.maillog.events import MailLog
from mailer.receive.drop_limits import Pauses
from mailer.receive.pickup import Pickup
from mailer.receive.users.rates import Rate, RateLimiter, RateRules
from mailer.sendmail.drop import hand_over
from mailer.spool import drop, drop_file
from mailer.spool.directory import Spool
from mailer.spool.drop import Kind
from mailer.spool.ids import new_id
from mailer.spool.layout import DROP


@as_root
@pytest.mark.security_case(134)
def test_users_take_turns_and_one_that_is_limited_keeps_no_other_back(spool: Spool) -> None:
    rules = RateRules(
        users={"eve": Rate(per_hour=2)}, of_user=lambda user: Rate(per_hour=2) if user == "eve" else None
    )
    receiver = Receiver(spool, RateLimiter(rules, time.time))
    flood = [leave(spool, TEXT.replace(b"app@", b"eve@"), uid=EVE) for _ in range(5)]
    last = leave(spool, uid=ANN)
    receiver.take_in()
    assert names(spool) == sorted(flood)[2:]
    taken = [line for line in receiver.log if "submitted a drop" in line]
    # Hers was the second, however many were there before it.
    assert [f"uid={uid}" in line for uid, line in zip((EVE, ANN, EVE), taken, strict=True)] == [True] * 3
    assert f"drop={last}" in taken[1]
    assert any("a drop was not submitted" in line and "451 4.7.1" in line for line in receiver.log)


@as_root
@pytest.mark.security_case(134)
def test_drops_that_have_to_wait_are_tried_ever_less_often(spool: Spool) -> None:
    """By one program that stays; each try has a line in the ledger."""
    now = [1e9]
    rules = RateRules(users={"eve": Rate(per_hour=2)}, of_user=lambda user: Rate(per_hour=2))
    receiver = Receiver(spool, RateLimiter(rules, lambda: now[0]))
    for _ in range(9):
        leave(spool, TEXT.replace(b"app@", b"eve@"), uid=EVE)
    pickup = Pickup(spool, receiver._log, lambda: now[0], lambda: receiver._context)
    for _ in range(359):
        asyncio.run(pickup.once())
        now[0] += 10
    assert len(queued(spool)) == 2
    assert 10 < sum("event=limited" in line for line in receiver.log) < 100
    leave(spool, uid=ANN)
    asyncio.run(pickup.once())
    assert len(queued(spool)) == 3
    for _ in range(32):
        now[0] += 10
        asyncio.run(pickup.once())
    assert len(queued(spool)) == 5


def test_a_drop_that_goes_ends_its_users_pauses_and_a_clock_that_is_set_back_too() -> None:
    now, tried = [1e9], list[float]()
    pauses = Pauses(lambda: now[0])
    for _ in range(7):
        pauses.waited(ANN)
        begun = now[0]
        while pauses.lasts(ANN):
            now[0] += 1
        tried.append(now[0] - begun)
    assert tried == [10, 20, 40, 80, 160, 300, 300]
    pauses.went(ANN)
    pauses.waited(ANN)
    now[0] += 9
    assert pauses.lasts(ANN)
    assert not pauses.lasts(EVE)
    now[0] -= 86_400
    assert not pauses.lasts(ANN)


@as_root
@pytest.mark.security_case(134)
def test_the_lines_and_files_that_one_user_makes_by_refusals_are_bounded(spool: Spool) -> None:
    receiver, nobody, now = Receiver(spool), 4799, [1e9]
    for _ in range(25):
        leave(spool, uid=nobody)
    leave(spool, uid=ANN)
    pickup = Pickup(spool, receiver._log, lambda: now[0], lambda: receiver._context)
    counts = []
    for seconds in (0, 3599, 2):
        now[0] += seconds
        asyncio.run(pickup.once())
        refused = [line for line in receiver.log if "event=drop-refused" in line]
        counts.append((len(refused), drop.summary(spool).waiting))
    assert counts == [(20, 5), (20, 5), (25, 0)]
    assert len(queued(spool)) == 1


@as_root
@pytest.mark.security_case(134)
def test_all_runs_together_refuse_no_more_of_one_user(spool: Spool) -> None:
    for _ in range(45):
        leave(spool, uid=4799)
    # Of other programs: each has counters of its own.
    assert [Receiver(spool).take_in() for _ in range(3)] == [20, 0, 0]
    leave(spool, uid=ANN)
    assert Receiver(spool).take_in() == 1
    assert Receiver(spool).take_in(lambda: time.time() + 3601) == 20
    # The operator, who has mended the cause, has the refused tried again.
    for name in names(spool):
        (spool.path / DROP / name).rename(spool.path / DROP / name.removesuffix(".refused"))
    assert Receiver(spool).take_in() == 20


@as_root
@pytest.mark.security_case(134)
def test_runs_of_cron_together_refuse_no_more_of_one_user(relay: Relay) -> None:
    with Spool.open(relay.spool, create=True) as spool:
        drop.prepare(spool, wanted=True)
        for _ in range(25):
            leave(spool, uid=4799)
        for _ in range(2):
            assert relay.mailer_send("--once").returncode == 0
        lines = relay.mailer("log", "--status", "drop-refused", "--json").stdout.splitlines()
        assert (len(lines), drop.summary(spool).waiting) == (20, 5)


@as_root
@pytest.mark.security_case(134)
def test_a_sender_that_stays_refuses_no_more_of_a_user_who_removes_the_refused(relay: Relay) -> None:
    relay.configure({"localUsers": [{"login": str(os.getuid()), "user": USERNAME}]})
    stop, refused = asyncio.Event(), list[Path]()

    def on_line(_: object, text: str, fields: Mapping[str, str]) -> None:
        if "submitted a drop" in text:
            stop.set()
        if fields.get("event") == "drop-refused":
            refused.append(directory / f"{fields['id']}.refused")
            refused[-1].unlink()
            if len(refused) == 20:  # the next look takes this one in, after the user's turn
                hand_over(str(directory), [f"MAIL FROM:<{USERNAME}>", TO], TEXT)

    with Spool.open(relay.spool, create=True) as spool:
        directory = spool.path / DROP
        drop.prepare(spool, wanted=True)
        for _ in range(25):
            leave(spool, uid=4799)
        loaded, log = load(relay.config, {}), MailLog(time.time, on_line)
        asyncio.run(drops.keep_taking_in(lambda: loaded, spool, lambda: log, stop))
        assert (len(refused), drop.summary(spool).waiting) == (20, 5)


@pytest.mark.security_case(134)
def test_a_scan_takes_in_the_drops_it_found_and_not_those_that_arrive_meanwhile(spool: Spool) -> None:
    receiver = Receiver(spool)
    receiver.on_line = lambda line: leave(spool) if "submitted a drop" in line else None
    leave(spool)
    receiver.take_in()
    assert (len(queued(spool)), len(names(spool))) == (1, 1)


@pytest.mark.parametrize("begun", [0, 1])
def test_a_run_that_is_to_end_takes_no_other_drop_in(relay: Relay, begun: int) -> None:
    relay.configure({"localUsers": [{"login": str(os.getuid()), "user": USERNAME}]})
    stop, lines = asyncio.Event(), list[str]()

    def on_line(_: object, text: str, __: object) -> None:
        lines.append(text)
        stop.set()

    with Spool.open(relay.spool, create=True) as spool:
        drop.prepare(spool, wanted=True)
        for _ in range(20):
            hand_over(str(spool.path / DROP), [f"MAIL FROM:<{USERNAME}>", TO], TEXT)
        log = MailLog(time.time, on_line)
        if not begun:
            stop.set()
        asyncio.run(drops.take_in(load(relay.config, {}), spool, log, stop))
        assert begun <= len(queued(spool)) <= 3 * begun, lines


@pytest.mark.security_case(134)
@pytest.mark.parametrize("what", ["many recipients", "large", "name"])
def test_a_drop_that_always_fails_does_not_hold_back_later_ones(spool: Spool, what: str) -> None:
    receiver, to, text = Receiver(spool, limits={"max_recipients": 3, "max_message_size": 5000}), [TO], TEXT
    match what:
        case "many recipients":
            to = [f"RCPT TO:<u{n}@example.net>" for n in range(4)]
        case "large":
            text += b"x\r\n" * 100_000
        case "name":
            to = ["RCPT TO:<@>"]
    name = hand_over(str(spool.path / DROP), [f"MAIL FROM:<{USER}>", *to], text)
    if what == "name":
        (spool.path / DROP / f"{name}.refused").mkdir()
    leave(spool)
    receiver.take_in()
    assert len(queued(spool)) == 1
    kept = [each for each in drop.entries(spool) if each.kind is Kind.REFUSED]
    assert len(kept) == 1
    assert all(each.name in "".join(receiver.log) for each in kept if what == "name")
    assert name not in names(spool)


@pytest.mark.security_case(134)
@pytest.mark.parametrize(("waiting", "taken"), [(4, 1), (5, 0)])
def test_some_drops_that_have_to_wait_are_passed_over(spool: Spool, waiting: int, taken: int) -> None:
    held = [drop_file.Drop.lock(spool, leave(spool)) for _ in range(waiting)]
    last = new_id(time.time() + 60)
    leave(spool, name=last)
    Receiver(spool).take_in()
    assert len(queued(spool)) == taken
    for each in held:
        assert each is not None
        each.release()
