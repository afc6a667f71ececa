"""Child processes that run mailer programs: their command lines, and their end with their parent.

`mailer up` leaves no orphans, even when it is killed.
"""

import os
import signal
import sys
from pathlib import Path

import mailer
from mailer.cli.options import log_format
from mailer.ground.libc import last_error, libc

_PR_SET_PDEATHSIG = 1


def child_argv(module: str, *arguments: str, config: Path, logs: bool = True) -> tuple[str, ...]:
    """Return the command line that runs a module with this interpreter and configuration.

    The child gets this process's id as `--parent`, and ends when this process does. If it `logs`, it also
    gets our log format.
    """
    # Without -P, `-m` imports from the current directory first. That is right only for a checkout run there.
    from_here = Path(mailer.__file__).parents[1] == Path.cwd()
    plain = (sys.executable,) if from_here else (sys.executable, "-P")
    # An installed program must not import from an application's PYTHONPATH, nor must its children.
    interpreter = (sys.executable, "-I") if sys.flags.isolated else plain
    common = ["--config", str(config), "--parent", str(os.getpid())]
    if logs and (form := log_format()):
        common += ["--log-format", form]
    return (*interpreter, "-m", module, *arguments, *common)


def end_with(parent: int | None) -> None:
    """Have the kernel send this process SIGTERM when the parent process ends (PR_SET_PDEATHSIG).

    The kernel clears this setting when the process changes its user: call this afterwards.

    Args:
        parent: the process id from `--parent`; None if the option was not given.

    Raises:
        OSError: the kernel refused.
    """
    if parent is None:
        return
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        code = last_error()
        raise OSError(code, os.strerror(code))
    if os.getppid() != parent:
        # The parent died before prctl was called.
        os.kill(os.getpid(), signal.SIGTERM)
