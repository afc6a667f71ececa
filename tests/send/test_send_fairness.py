"""Destinations that do not answer cost the others nothing; a backlog does not delay what has just come.

The long form, with ten thousand messages and the clock, is `scripts/bench_fairness`.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from bench.fairness import deaf
from outbound.hostile import HANG, Server
from outbound.internet import Internet
from outbound.sending import TO, forward_to, queue
from testbed.faketime import faketime
from testbed.relay import Relay
from testbed.waiting import until

from mailer.mail.outcome import Scope
from mailer.send import destination_status as rules
from mailer.send.destination_status import DestinationStatus
from mailer.send.phase import Phase
from mailer.send.trouble import HopTrouble

HERE, SILENT, LOST = "127.0.0.11", "127.0.66.1", "127.0.66.2"


@pytest.fixture
def internet() -> Iterator[Internet]:
    zone = {
        (f"{name}.test", "A"): [address]
        for name, address in (("good", HERE), ("mute", SILENT), ("gone", LOST))
    }
    with Internet.of(zone) as made:
        yield made


def test_mail_to_black_holes_does_not_keep_the_rest_waiting(relay: Relay, internet: Internet) -> None:
    """Thirty for each hole came first, and there are three places; the rest is there before one ends."""
    server = internet.server(HERE)
    mute = internet.server(SILENT, {"banner": HANG})
    with deaf(LOST, internet.port):
        relay.configure(internet.settings() | {"sending": {"concurrency": 3, "shutdownGrace": 0}})
        for number in range(30):
            queue(relay.spool, [f"user{number}@mute.test"])
            queue(relay.spool, [f"user{number}@gone.test"])
        with relay.watch():
            until(lambda: mute.sessions, "the runner to have met the hole")
            for number in range(30):
                queue(relay.spool, [f"user{number}@good.test"])
            until(lambda: len(server.messages) == 30, "the others' mail")
            assert len(mute.sessions) == 1
    left = list((relay.spool / "new").iterdir())
    assert len(left) == 60, "none of it was tried in vain, and none is lost"


def test_a_message_to_many_of_which_one_is_a_hole_reaches_the_others(
    relay: Relay, internet: Internet
) -> None:
    server = internet.server(HERE)
    internet.server(SILENT, {"banner": HANG})
    relay.configure(internet.settings() | {"sending": {"concurrency": 2, "shutdownGrace": 0}})
    for number in range(20):
        queue(relay.spool, [f"user{number}@mute.test", f"user{number}@good.test"])
    with relay.watch():
        until(lambda: len(server.messages) == 20, "what the others get of it")


def test_mail_that_has_just_come_overtakes_a_backlog_of_retries(relay: Relay) -> None:
    """One session, and fifty that are due again: the fresh one does not wait for them."""
    begun, came = threading.Event(), threading.Event()

    def first(session, line):
        begun.set()
        came.wait(60)

    with Server({"rcpt": "451 4.2.0 later"}) as server:
        settings = {"maxSessionsPerHop": 1, "concurrency": 2}
        relay.configure(forward_to(server, sending=settings))
        for _ in range(50):
            queue(relay.spool)
        relay.mailer_send("--once")
        server.script.clear()
        server.script["mail"] = first
        with relay.watch(under=faketime("+3m")):
            assert begun.wait(60)
            queue(relay.spool, ["reset@example.net"])
            came.set()
            until(lambda: len(server.delivered()) == 51, "all of it")
        order = [to for to, _ in server.delivered()]
    # Not the very next: the runner may find it locked by who has just queued it, and comes back in 10 ms.
    assert order.index("reset@example.net") < 25
    assert order.count(TO) == 50


def test_a_provider_that_takes_connections_and_never_speaks_does_not_stop_the_mail(relay: Relay) -> None:
    """Who asked it first is given the five minutes of RFC 5321; who comes after takes the other one."""
    with Server({"banner": HANG}) as mute, Server() as good:
        relay.configure(forward_to(mute, good, sending={"concurrency": 2, "shutdownGrace": 0}))
        for _ in range(10):
            queue(relay.spool)
        with relay.watch():
            until(lambda: len(good.messages) >= 8, "mail through the other provider")
            assert len(mute.sessions) == 2
    assert len(good.delivered()) == 8
    assert len(list((relay.spool / "new").iterdir())) == 2, "nothing was tried there, and nothing is lost"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def attempt(destinations: DestinationStatus, clock: Clock, seconds: float, *, fails: bool) -> None:
    with destinations.towards("one.test"):
        clock.now += seconds
        if fails:
            raise HopTrouble("mx[192.0.2.1]:25", Phase.CONNECT, "Connection timed out", scope=Scope.HOST)


def test_who_took_long_to_be_found_dead_is_not_asked_again_for_a_while() -> None:
    clock = Clock()
    destinations = DestinationStatus(clock)
    with pytest.raises(HopTrouble):
        attempt(destinations, clock, rules.SLOW, fails=True)
    began = clock.now
    with pytest.raises(HopTrouble, match="Connection timed out"):
        attempt(destinations, clock, 100, fails=False)
    assert clock.now == began
    clock.now += rules.DEAD
    attempt(destinations, clock, 0, fails=False)
    assert destinations.answered("one.test")


def test_who_refuses_at_once_may_as_well_be_asked_again() -> None:
    clock = Clock()
    destinations = DestinationStatus(clock)
    for _ in range(3):
        with pytest.raises(HopTrouble):
            attempt(destinations, clock, 0.1, fails=True)
    attempt(destinations, clock, 0.1, fails=False)


def test_a_stuck_destination_has_only_so_many_waiting() -> None:
    clock = Clock()
    destinations = DestinationStatus(clock)
    with ExitStack() as under_way:
        for _ in range(rules.WAITING):
            under_way.enter_context(destinations.towards("one.test"))
        assert not destinations.stuck("one.test")
        clock.now += rules.STALL + 0.1
        assert destinations.stuck("one.test")
        with pytest.raises(HopTrouble, match="does not answer"):
            under_way.enter_context(destinations.towards("one.test"))
        under_way.enter_context(destinations.towards("two.test"))
    assert not destinations.stuck("one.test")
