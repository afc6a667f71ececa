"""Modules of the tests that are run as programs of their own."""

import os
import shutil
import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module, for instance `spools.programs`, in any directory."""
    env = shutil.which("env")
    assert env
    path = os.pathsep.join(filter(None, (str(_TESTS), os.environ.get("PYTHONPATH"))))
    return [env, f"PYTHONPATH={path}", sys.executable, "-m", module, *arguments]
