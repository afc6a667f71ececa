"""Run several coroutines concurrently, and wait until all have ended."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines concurrently, and return their results in order.

    If one fails, the others run to their end, since what they began at a server must be recorded. If this is
    cancelled, they are cancelled too. Either way all have ended when the exception reaches the caller.
    """
    if len(works) == 1:
        return [await works[0]]
    tasks = [asyncio.create_task(work) for work in works]
    try:
        results = await asyncio.gather(*tasks, return_exceptions=True)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [task.result() for task in tasks]
