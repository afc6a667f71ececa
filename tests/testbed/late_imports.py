"""Run a command of ours, and write down what it imports once it is no longer root.

Usage: late_imports.py FILE COMMAND, where COMMAND is `.../mailer-send ...` or `python -m mailer ...`.
"""

import os
import sys
from collections.abc import Callable


def watch(report: int) -> Callable[[str, tuple[object, ...]], None]:
    """Return an audit hook (PEP 578) that writes to an open file the name of each module looked for."""

    def hook(event: str, details: tuple[object, ...]) -> None:
        if event == "import" and os.geteuid() != 0:
            os.write(report, f"{details[0]}\n".encode())

    return hook


def main() -> None:
    report, *command = sys.argv[1:]
    sys.addaudithook(watch(os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)))
    if "-m" in command:
        from mailer.cli import main as run  # noqa: PLC0415 - the hook comes first

        sys.argv = command[command.index("-m") + 1 :]
    else:
        from mailer.cli.send import main as run  # noqa: PLC0415

        sys.argv = command
    sys.exit(run())


if __name__ == "__main__":
    main()
