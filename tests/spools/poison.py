"""A message that ends every runner that tries it, and what starts the next one."""

import os
import signal
from pathlib import Path

from outbound.hostile import HANG, Action, Session

POISON = "poison@example.com"
LIVES = 6
"""Two with others beside it, three alone, and one that holds it."""


def runner_of(pid: int) -> int:
    """Return the runner's process id: that of `mailer-send`, or of the child of `mailer up` that is one."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"mailer.cli.send" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    return pid


class Killer:
    """Ends the runner, `program` or its child, that names the poison to a server: its `mail` step."""

    def __init__(self) -> None:
        self.program = 0
        self.deaths = 0

    def __call__(self, _: Session, line: bytes) -> Action:
        if POISON.encode() not in line:
            return None
        self.deaths += 1
        os.kill(runner_of(self.program), signal.SIGKILL)
        return HANG
