"""How a message's file is moved on the filesystem that the tests' spools are on: what strace sees."""

import os
import tempfile

from mailer.spool.journalling import renames_are_whole


def _move() -> str:
    fd = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        return "renameat2" if renames_are_whole(fd) else "linkat"
    finally:
        os.close(fd)


MOVE = _move()
"""The call that moves acknowledged mail. What nobody was told of is renamed everywhere."""
WHOLE = MOVE == "renameat2"
