"""Lazy tasks: continued by what wakes them, and tasks once they need one."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mailer.ground.lazy_task import LazyTask, Wait, current, in_task, run_woken

MANY = 200


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def turns() -> None:
    """Let the event loop do all that is ready."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_waits_goes_on_within_the_call_that_ends_the_wait() -> None:
    heard: list[str] = []

    async def main() -> None:
        wait: Wait[str] = Wait()

        async def listen() -> None:
            heard.append(await wait)

        LazyTask(listen()).start()
        await turns()
        wait.give("now", soon=False)
        assert (heard, wait.given, wait.done) == ([], True, True)
        run_woken()
        assert heard == ["now"]

    run(main)


def test_what_is_given_before_or_after_the_wait_is_the_same() -> None:
    heard: list[int] = []

    async def main() -> None:
        early: Wait[int] = Wait()
        late: Wait[int] = Wait()
        early.give(1)

        async def listen() -> None:
            heard.extend([await early, await late])

        LazyTask(listen()).start()
        await turns()
        late.give(2)
        assert heard == [], "the caller may be in the middle of something"
        await turns()
        assert heard == [1, 2]

    run(main)


def test_what_one_wakes_runs_when_it_waits_itself_and_after_what_it_starts() -> None:
    order: list[str] = []

    async def main() -> None:
        first: Wait[None] = Wait()
        second: Wait[None] = Wait()

        async def woken() -> None:
            await second
            order.append("woken")

        async def started() -> None:
            order.append("started")

        async def one() -> None:
            await first
            second.give(None)
            LazyTask(started()).start()
            order.append("one")

        LazyTask(woken()).start()
        LazyTask(one()).start()
        await turns()
        first.give(None, soon=False)
        run_woken()
        assert order == ["one", "started", "woken"]

    run(main)


def test_it_becomes_a_task_for_any_other_wait() -> None:
    seen: list[object] = []

    async def main() -> None:
        other = asyncio.get_running_loop().create_future()

        async def work() -> None:
            seen.append(await other)
            async with asyncio.timeout(60):  # There is a task.
                wait: Wait[str] = Wait()
                asyncio.get_running_loop().call_soon(wait.give, "in a task")
                seen.append(await wait)

        LazyTask(work()).start()
        await turns()
        other.set_result("a future")
        await turns()
        assert seen == ["a future", "in a task"]

    run(main)


def test_it_becomes_a_task_when_it_asks_for_one() -> None:
    tasks: list[object] = []

    async def main() -> None:
        async def work() -> None:
            assert current()
            await in_task()
            tasks.append(asyncio.current_task())
            await in_task()
            tasks.append(asyncio.current_task())

        LazyTask(work()).start()
        await turns()
        assert tasks[0] is tasks[1] is not None

    run(main)


@pytest.mark.parametrize("waits_for", ["a wait", "a future", "a wait in a task"])
def test_a_cancelled_one_ends_where_it_waits(waits_for: str) -> None:
    ended: list[str] = []

    async def main() -> None:
        wait: Wait[None] = Wait()
        future = asyncio.get_running_loop().create_future()

        async def work() -> None:
            if waits_for == "a wait in a task":
                await in_task()
            try:
                await (future if waits_for == "a future" else wait)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        task = LazyTask(work())
        task.start()
        await turns()
        task.cancel()
        await turns()
        assert ended == ["cancelled"]
        assert not wait.given
        assert wait.done is (waits_for != "a future")

    run(main)


def test_a_result_that_a_cancelled_one_did_not_take_is_not_lost() -> None:
    """Else the session that it was given would be lost to all others."""
    left: list[str] = []

    async def main() -> None:
        wait: Wait[str] = Wait()
        later: Wait[str] = Wait()

        async def work() -> None:
            try:
                await wait
            except asyncio.CancelledError:
                if wait.given:
                    left.append(await wait)
            left.append(await later)

        task = LazyTask(work())
        task.start()
        await turns()
        wait.give("a session")
        task.cancel()
        await turns()
        assert left == ["a session"]
        later.give("it waited on")
        await turns()
        assert left == ["a session", "it waited on"]

    run(main)


def test_many_that_never_wait_leave_turns_to_the_event_loop() -> None:
    seen: set[int] = set()
    done: list[int] = []

    async def main() -> None:
        async def work(number: int) -> None:
            done.append(number)
            if number < MANY:
                LazyTask(work(number + 1)).start()

        LazyTask(work(1)).start()
        for _ in range(MANY):
            seen.add(len(done))
            await asyncio.sleep(0)
        assert done == list(range(1, MANY + 1))
        assert len(seen) > 2

    run(main)


def test_an_error_is_reported_and_not_raised_at_what_woke_it() -> None:
    reports: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        wait: Wait[None] = Wait()

        async def work() -> None:
            await wait
            raise KeyError("a defect")

        LazyTask(work()).start()
        await turns()
        wait.give(None, soon=False)
        run_woken()
        assert isinstance(reports[0]["exception"], KeyError)

    run(main)


def test_what_a_loop_leaves_unbegun_is_not_begun_by_the_next_loop_of_its_thread() -> None:
    heard: list[str] = []

    async def listen(name: str) -> None:
        heard.append(name)

    def start(loop: asyncio.AbstractEventLoop, name: str) -> None:
        LazyTask(listen(name)).start()
        loop.call_soon(loop.stop)

    for name in ("stopped", "goes on"):
        loop = asyncio.new_event_loop()
        loop.call_soon(start, loop, name)
        if name == "stopped":
            loop.stop()
        loop.run_forever()
        loop.close()
    assert heard == ["goes on"]
