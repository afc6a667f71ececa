"""Run a program in an event loop, after checking that enough descriptors are free."""

import asyncio
import os
import selectors
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar

_MIN_FREE = 16
"""Descriptors that must be free before a loop is created. *uvloop takes nine, asyncio three.* A loop that
reaches the limit in its first step can no longer be closed, and the program ends with a traceback."""

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], make_loop: Callable[[], Any] | None = None) -> T:
    """Run a coroutine in a new event loop, like asyncio.run.

    Args:
        main: the program.
        make_loop: makes the loop; None for asyncio's default.

    Raises:
        OSError: too few descriptors are free; `main` was closed without being started.
    """
    try:
        _check_descriptors()
        loop = (make_loop or _new_loop)()
    except OSError:
        main.close()
        raise
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


def _new_loop() -> asyncio.AbstractEventLoop:
    # The selector is made first: a loop that fails to make its own prints a traceback when it is deleted.
    return asyncio.SelectorEventLoop(selectors.DefaultSelector())


def _check_descriptors() -> None:
    with ExitStack() as found:
        for _ in range(_MIN_FREE):
            found.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
