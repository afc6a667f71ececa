"""Mail to a destination that has not answered, or is full, waits in new/ and takes no place in the run."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from outbound.sending import queue
from spools.walk import walk

from mailer.send.destination_queues import DestinationQueues
from mailer.send.destination_status import SLOW, STALL, DestinationStatus
from mailer.send.phase import Phase
from mailer.send.trouble import HopTrouble
from mailer.spool.directory import Spool
from mailer.spool.run.claim import Claim, Claims

NET = "example.net"


class Clock:
    """Stands still until it is moved; in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def claims(root: Path, count: int, domain: str = NET) -> Iterator[list[Claim]]:
    """Claim so many messages to one domain, or with two recipients if it names two."""
    names = [queue(root, [f"r{each}@{one}" for one in domain.split()]) for each in range(count)]
    with Spool.open(root) as spool, ExitStack() as locks:
        claiming = Claims(spool, lambda: 0.0, "boot", lambda *_: None, lambda *_: None)
        found = [claim for name in names if (claim := claiming.claim(name))]
        assert len(found) == count
        yield [locks.enter_context(claim.locked) and claim for claim in found]


def direct(status: DestinationStatus | None, most: int = 2) -> DestinationQueues:
    return DestinationQueues(status, most, lambda _claim, _address: True)


def test_a_destination_that_has_not_answered_gets_one_message_at_a_time(tmp_path: Path) -> None:
    status = DestinationStatus(Clock())
    queues = direct(status)
    with claims(tmp_path, 4) as (first, *others):
        assert queues.destination_of(first) == NET
        assert not queues.puts_back(first, NET)
        queues.begin(NET)
        assert all(queues.puts_back(claim, NET) for claim in others)
        waiting = [claim.id for claim in others]
        assert queues.names == set(waiting)
        places = {name: found.place for name, found in walk(tmp_path).items()}
        assert places == {first.id: "cur"} | dict.fromkeys(waiting, "new")
        with status.towards(NET):
            pass
        assert queues.end(NET) == waiting
    assert queues.names == set()


def test_a_destination_that_works_gets_two_for_each_that_ends_up_to_its_most(tmp_path: Path) -> None:
    status = DestinationStatus(Clock())
    queues = direct(status, most=2)
    with status.towards(NET):
        pass
    with claims(tmp_path, 6) as all_claims:
        waiting = []
        for claim in all_claims:
            if queues.puts_back(claim, NET):
                waiting.append(claim.id)
            else:
                queues.begin(NET)
        assert len(waiting) == 4
        assert queues.end(NET) == waiting[:2]


def test_mail_for_a_dead_destination_gets_no_precedence(tmp_path: Path) -> None:
    clock = Clock()
    status = DestinationStatus(clock)
    queues = direct(status)
    with claims(tmp_path, 2) as (first, second):
        assert not queues.puts_back(first, NET)
        queues.begin(NET)
        assert queues.puts_back(second, NET)
        with suppress(HopTrouble), status.towards(NET):
            clock.now += SLOW
            raise HopTrouble(NET, Phase.CONNECT, "timed out")
        assert queues.end(NET) == []
        assert (queues.names, queues.missed) == (set(), True)
    with claims(tmp_path, 1) as (third,):
        queues.begin(NET)
        # An attempt there fails at once, and need not wait for anything.
        assert not queues.puts_back(third, NET)


@pytest.mark.parametrize("domain", ["example.net example.org", NET], ids=["two domains", "another route"])
def test_mail_without_a_destination_of_its_own_is_never_put_back(tmp_path: Path, domain: str) -> None:
    status = DestinationStatus(Clock())
    queues = DestinationQueues(status, 2, lambda _claim, _address: domain != NET)
    with claims(tmp_path, 2, domain) as (first, second):
        assert queues.destination_of(first) == ""
        queues.begin("")
        assert not queues.puts_back(second, "")


def test_mail_for_a_stuck_destination_takes_no_place_in_the_run() -> None:
    clock = Clock()
    status = DestinationStatus(clock)
    queues = direct(status)
    with status.towards(NET):
        clock.now += STALL
        assert not queues.waits(NET, STALL)
        clock.now += 0.1
        assert queues.waits(NET, STALL)
    assert not queues.waits(NET, 100.0)
