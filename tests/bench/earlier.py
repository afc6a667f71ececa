"""Another commit of ours as a contestant: what a change saved or cost, in one run."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.servers import Mailer

_PROJECT = Path(__file__).parents[2]


@contextmanager
def earlier(commit: str) -> Iterator[type[Mailer]]:
    """Install another commit in a directory and an environment of its own while a block runs.

    Raises:
        RuntimeError: there is no such commit, or it could not be installed.
    """
    with tempfile.TemporaryDirectory(prefix="bench-commit-") as name:
        directory = Path(name)
        files = directory / "files.tar"
        _run("git", "-C", str(_PROJECT), "archive", "--output", str(files), f"{commit}^{{commit}}")
        _run("tar", "-xf", str(files), "-C", name)
        _run(str(directory / "scripts" / "venv"))
        python = str(directory / ".venv" / "bin" / "python")
        # Not every commit compiles its modules when it is installed, and each start would.
        _run(python, "-m", "compileall", "-q", str(directory / "mailer"))
        yield type("Earlier", (Mailer,), {"name": f"mailer at {commit}", "python": python})


def _run(*argv: str) -> None:
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {ran.stderr.strip()}")
