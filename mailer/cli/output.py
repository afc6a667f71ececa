"""Standard output: JSON lines, and a reader that may close the pipe before the end."""

import os
from typing import TextIO


def json_line(value: object) -> str:
    """Encode a value as one line of JSON; characters that could control a terminal are escaped."""
    import msgspec  # noqa: PLC0415 - neither `mailer guide` nor the help of a group needs it

    from mailer.mail.reply import printable_json  # noqa: PLC0415 - as above

    return printable_json(msgspec.json.encode(value).decode()) + "\n"


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
