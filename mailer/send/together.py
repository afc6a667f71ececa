"""Several pieces of one work at the same time, which begin and end as one."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Do all of it at the same time, and return the results in order.

    If one fails, the others end as they would have, for what they have begun at a server must be recorded.
    If this is cancelled, they are cancelled too. Either way all have ended when the exception passes: nothing
    goes on behind the caller's back.
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
