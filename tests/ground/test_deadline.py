"""One timer of the event loop serves all deadlines of a connection; the clock here is moved by hand."""

import asyncio
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from mailer.ground.deadline import DeadlineTimer


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only in `advance`, and that remembers the timers that were set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[asyncio.TimerHandle] = []
        super().__init__()

    def time(self) -> float:
        return self.now

    def call_at(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        self.timers.append(super().call_at(*args, **kwargs))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.run_until_complete(asyncio.sleep(0))


class Owner:
    """Has a timer, and notes when it expired."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.expired: list[float] = []
        self.timer = DeadlineTimer(loop, self.expire)

    def expire(self) -> None:
        self.expired.append(self.loop.now)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def owner(loop: Loop) -> Owner:
    return Owner(loop)


def test_it_expires_once_and_not_before_its_time(loop: Loop, owner: Owner) -> None:
    owner.timer.arm(5)
    loop.advance(4)
    assert owner.expired == []
    loop.advance(1)
    loop.advance(100)
    assert owner.expired == [1005]


def test_a_later_deadline_takes_the_place_of_an_earlier_one_without_another_timer(
    loop: Loop, owner: Owner
) -> None:
    for _ in range(4):
        owner.timer.arm(5)
        loop.advance(1)
    assert len(loop.timers) == 1
    loop.advance(1)  # The timer fires for the first deadline, and is set for the last.
    assert (len(loop.timers), owner.expired) == (2, [])
    loop.advance(2.5)
    assert owner.expired == []
    loop.advance(0.5)
    assert owner.expired == [1008]


def test_an_earlier_deadline_is_kept(loop: Loop, owner: Owner) -> None:
    owner.timer.arm(300)
    owner.timer.arm(2)
    assert [timer.cancelled() for timer in loop.timers] == [True, False]
    loop.advance(2)
    loop.advance(300)
    assert owner.expired == [1002]


def test_a_suspended_timer_does_not_expire_until_it_is_armed_again(loop: Loop, owner: Owner) -> None:
    owner.timer.arm(5)
    owner.timer.suspend()
    loop.advance(10)
    assert owner.expired == []
    owner.timer.arm(5)
    loop.advance(5)
    assert owner.expired == [1015]


def test_an_expired_timer_can_be_armed_again_also_while_it_expires(loop: Loop) -> None:
    expired: list[float] = []

    def expire() -> None:
        expired.append(loop.now)
        timer.arm(7)

    timer = DeadlineTimer(loop, expire)
    timer.arm(5)
    loop.advance(5)
    loop.advance(7)
    assert expired == [1005, 1012]


def test_a_closed_timer_never_expires_and_sets_no_timer(loop: Loop, owner: Owner) -> None:
    owner.timer.arm(5)
    owner.timer.close()
    owner.timer.arm(1)
    owner.timer.close()
    loop.advance(10)
    assert owner.expired == []
    assert [timer.cancelled() for timer in loop.timers] == [True]


def test_a_closed_timer_does_not_keep_its_owner(loop: Loop) -> None:
    """A connection that has ended is freed at once, not at the next collection of cycles."""
    owner = Owner(loop)
    owner.timer.arm(5)
    owner.timer.close()
    gone = weakref.ref(owner)
    del owner
    assert gone() is None


def test_it_says_when_it_was_armed(loop: Loop, owner: Owner) -> None:
    loop.advance(3)
    assert owner.timer.armed_at == 1000
    owner.timer.arm(5)
    loop.advance(1)
    owner.timer.suspend()
    assert owner.timer.armed_at == 1003
