"""Whoever reads what a command prints, and may stop before its end."""

import os
import signal
from typing import TextIO


def end_with_the_pipe() -> None:
    """Let `| head` end a command that prints, quietly, as it ends every Unix filter.

    Not for commands that change something, which use `tell`, nor for programs with sockets: there the signal
    would kill them for a client that hung up.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def tell(stream: TextIO, text: str) -> None:
    """Print for a command that must finish its work even when nobody reads on."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # What is buffered still, and all that follows, goes nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
