"""The event loop of a program, which begins only where there are descriptors for it."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar

_NEEDED = 16
"""Descriptors that are free when a loop begins. *uvloop's takes nine, asyncio's three.* One that meets the
limit in its first step cannot be closed in order any more, and ends the program with a traceback."""

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], make_loop: Callable[[], Any] | None = None) -> T:
    """Run a program in an event loop of its own, as asyncio.run.

    Args:
        main: the program.
        make_loop: makes the loop; None: asyncio does.

    Raises:
        OSError: there are too few descriptors; nothing was begun.
    """
    try:
        _look_for_descriptors()
    except OSError:
        main.close()
        raise
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(main)


def _look_for_descriptors() -> None:
    with ExitStack() as found:
        for _ in range(_NEEDED):
            found.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
