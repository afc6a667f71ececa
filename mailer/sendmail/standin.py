"""Starts `mailer session` in place of a receiver that is down, for root and the spool's owner."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mailer.sendmail.failure import Failure, Unreachable

_PLACES = ("/etc/mailer/config.json", "/etc/mailer/config.toml")
"""Paths of the configuration. The current directory is not searched; that of a job may belong to any user."""


def configuration() -> str | None:
    """Return the path of the configuration; None: there is none that this user may read."""
    return next((path for path in _places() if os.access(path, os.R_OK)), None)


def is_closed() -> bool:
    """Return whether there is a configuration that this user may not read."""
    if configuration() is not None:
        return False
    for path in _places():
        try:
            os.stat(path)  # noqa: PTH116 - pathlib takes long to import
        except PermissionError:
            return True
        except OSError:
            continue
        return True
    return False


def _places() -> tuple[str, ...]:
    named = os.environ.get("MAILER_CONFIG")
    return (named,) if named else _PLACES


def interpreter() -> tuple[str, str]:
    """Return the command line of this interpreter, up to what it is to run.

    It imports nothing from the current directory, which may belong to any user (-P), and if this program was
    installed so, nothing from the caller's PYTHONPATH either (-I).
    """
    return sys.executable, "-I" if sys.flags.isolated else "-P"


@contextmanager
def standing_in(config: str) -> Iterator[socket.socket]:
    """Yield a connection to a receiver started for it, which ends with the connection.

    Raises:
        Failure: with EX_TEMPFAIL, if the receiver could not start; it has written why to standard error.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            command = [*interpreter(), "-m", "mailer", "session", "--config", config]
            process = subprocess.Popen(  # noqa: S603 - this program; the path cannot become an option
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL
            )
        try:
            yield ours
        except Unreachable as error:
            raise Failure(
                os.EX_TEMPFAIL,
                f"no receiver runs, and the message cannot be written to the spool here: {error}",
            ) from error
        finally:
            ours.close()
            process.wait()
