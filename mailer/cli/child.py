"""Command lines for starting mailer programs as child processes."""

import os
import sys
from pathlib import Path

import mailer
from mailer.cli.options import log_format


def child_argv(module: str, *arguments: str, config: Path, logs: bool = True) -> tuple[str, ...]:
    """Return the command line that runs a module with this interpreter and configuration.

    If it `logs`, it gets our log format, too.

    The child gets this process's id as `--parent`, and ends when this process does.
    """
    # Without -P, `-m` imports from the current directory first. That is right only for a checkout run there.
    from_here = Path(mailer.__file__).parents[1] == Path.cwd()
    interpreter = (sys.executable,) if from_here else (sys.executable, "-P")
    common = ["--config", str(config), "--parent", str(os.getpid())]
    if logs and (form := log_format()):
        common += ["--log-format", form]
    return (*interpreter, "-m", module, *arguments, *common)
