"""Another clock for a program."""

from pathlib import Path

from testbed.tools import MissingToolError


def faketime(when: str) -> tuple[str, ...]:
    """The command that runs another by a clock of its own, as `faketime -f` does.

    Not by that wrapper: it makes a semaphore named after its process id, which stays when it is killed, and
    fails when the id comes again. It passes no signal on, either.

    Args:
        when: as faketime(1) has it: `+3m` ahead, `2026-11-22 12:00:00` and not moving, `@2026-11-22 12:00:00`
            from there on, `+0 x200` that much faster.

    Raises:
        MissingToolError: it is not installed.
    """
    # A clock of its own for each process needs no shared memory, whose names have the same fault.
    for library in Path("/usr/lib").glob("*/faketime/libfaketime.so.1"):
        return ("env", f"LD_PRELOAD={library}", f"FAKETIME={when}", "FAKETIME_DISABLE_SHM=1")
    raise MissingToolError("faketime")


def clock_set(when: str) -> tuple[str, ...]:
    """As `faketime`, but by a wall clock that somebody has set while the host ran.

    Under `faketime` time has passed: the clock that counts from this boot is shifted too. (By 0.9.10 it
    becomes the wall clock's time, and for programs by the real clock that is another boot.)
    """
    return ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", *faketime(when))
