"""A session's coroutine goes on when what it waits for is there, whatever that is."""

import asyncio

import pytest

from mailer.receive.steps import Steps, suspended


def run(body) -> list[str]:
    """What a coroutine did, and what happened between its steps."""

    async def drive() -> list[str]:
        done: list[str] = []
        steps = Steps(lambda: body(done), asyncio.get_running_loop())
        steps.go_on()
        done.append("given back")
        if not steps.ended.done() and done[-2:] == ["waits", "given back"]:
            steps.go_on()
        await asyncio.wait_for(steps.ended, 10)
        return done

    return asyncio.run(drive())


def test_it_runs_at_once_to_where_it_waits_and_on_when_told() -> None:
    async def body(done: list[str]) -> None:
        done.append("waits")
        await suspended()
        done.append("goes on")

    assert run(body) == ["waits", "given back", "goes on"]


@pytest.mark.parametrize(
    "wait", [lambda: asyncio.sleep(0), lambda: asyncio.sleep(0.001), lambda: asyncio.to_thread(int)]
)
def test_it_waits_for_whatever_a_task_could_wait_for(wait) -> None:
    """A bare yield too, which is what `asyncio.sleep(0)` is."""

    async def body(done: list[str]) -> None:
        done.append("begins")
        await wait()
        done.append("goes on")

    assert run(body) == ["begins", "given back", "goes on"]


def test_what_a_future_raises_is_raised_in_it() -> None:
    async def body(done: list[str]) -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, OSError("disk"))
        try:
            await future
        except OSError as error:
            done.append(str(error))

    assert run(body) == ["given back", "disk"]
