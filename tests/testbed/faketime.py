"""Another clock for a program."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.tools import MissingToolError


@dataclass(frozen=True)
class _Words(Sequence[str]):
    """Looks for faketime when it is used: test modules name clocks as they are imported."""

    when: str

    def __len__(self) -> int:
        return len(self._words())

    def __getitem__(self, index):
        return self._words()[index]

    def _words(self) -> tuple[str, ...]:
        for library in Path("/usr/lib").glob("*/faketime/libfaketime.so.1"):
            return ("env", f"LD_PRELOAD={library}", f"FAKETIME={self.when}")
        raise MissingToolError("faketime")


def faketime(when: str) -> Sequence[str]:
    """The command that runs another by a clock of its own, as `faketime -f` does.

    Not by that wrapper: it makes a semaphore named after its process id, which stays when it is killed, and
    fails when the id comes again. It passes no signal on, either. (The library makes one of the same name: in
    process namespaces, where ids come again, each needs a `/dev/shm` of its own.)

    Args:
        when: as faketime(1) has it: `+3m` ahead, `2026-11-22 12:00:00` and not moving, `@2026-11-22 12:00:00`
            from there on, `+0 x200` that much faster.

    Raises (when it is used):
        MissingToolError: it is not installed.
    """
    return _Words(when)


def clock_set(when: str) -> tuple[str, ...]:
    """As `faketime`, but by a wall clock that somebody has set while the host ran.

    Under `faketime` time has passed: the clock that counts from this boot is shifted too. (By 0.9.10 it
    becomes the wall clock's time, and for programs by the real clock that is another boot.)
    """
    return ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", *faketime(when))


@contextmanager
def fast_clock(speed: int) -> Iterator[tuple[str, ...]]:
    """A clock that runs so much faster, and the same for all programs that are started under it.

    Under `faketime` each has a clock that begins when the program does. What they share is the memory of the
    wrapper, which lives as long as the block: it is ended in order, and so removes that.
    """
    wrapper = shutil.which("faketime")
    if wrapper is None:
        raise MissingToolError("faketime")
    rate = f"+0 x{speed}"
    _, preload, *_ = faketime(rate)
    with subprocess.Popen(
        [wrapper, "-f", rate, "sh", "-c", "echo $FAKETIME_SHARED; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        yield ("env", preload, f"FAKETIME={rate}", f"FAKETIME_SHARED={process.stdout.readline().strip()}")
