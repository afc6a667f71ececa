"""Output to a reader that may close the pipe before the end."""

import os
from typing import TextIO


def end_with_the_pipe() -> None:
    """Restore the default action of SIGPIPE, so that `| head` ends a command quietly, as it ends any filter.

    Commands that change something must not use this but `tell`. Programs with sockets must not either: the
    signal would kill them when a client closes its connection.
    """
    import signal  # noqa: PLC0415 - commands that change something, and programs, do without

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def tell(stream: TextIO, text: str) -> None:
    """Print text; if the reader has closed the pipe, discard it and all later output, but do not fail."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # Send buffered and later output to /dev/null.
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
