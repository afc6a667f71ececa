"""Command lines that start programs of ours as children of this one."""

import os
import sys
from pathlib import Path

import mailer
from mailer.cli.options import log_format


def child_argv(module: str, *arguments: str, config: Path) -> tuple[str, ...]:
    """Say how to run a program with this interpreter, configuration and form of log.

    It ends when this process does.
    """
    # Without -P, `-m` would import whatever lies in the current directory. A checkout is run from there.
    from_here = Path(mailer.__file__).parents[1] == Path.cwd()
    interpreter = (sys.executable,) if from_here else (sys.executable, "-P")
    common = ["--config", str(config), "--parent", str(os.getpid())]
    if form := log_format():
        common += ["--log-format", form]
    return (*interpreter, "-m", module, *arguments, *common)
