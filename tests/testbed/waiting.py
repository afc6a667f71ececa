"""Waiting for another process, by looking rather than by guessing how long it takes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Seconds. Long enough for a loaded machine; a test that works never comes near it.
PATIENCE = 60.0
_LOOK_EVERY = 0.005


def until(look: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """Call `look` until its result is truthy, and return that result.

    Args:
        look: looks once, without blocking.
        what: completes the sentence "waited N s for ...".
        patience: seconds before giving up.

    Raises:
        AssertionError: it did not happen in time.
    """
    deadline = time.monotonic() + patience
    while not (result := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:g} s for {what}")
        time.sleep(_LOOK_EVERY)
    return result
