"""In place of a receiver that is down: `mailer session`, which root and the spool's owner can start."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mailer.sendmail.failure import Failure, Unreachable

_PLACES = ("/etc/mailer/config.json", "/etc/mailer/config.toml")
"""Not the current directory: a job's is anybody's."""


def configuration() -> str | None:
    """Return where the configuration is that this user can read; None: it is not for us, or nowhere."""
    return next((path for path in _places() if os.access(path, os.R_OK)), None)


def is_closed() -> bool:
    """Tell whether there is a configuration, and this user may not read it."""
    if configuration() is not None:
        return False
    for path in _places():
        try:
            os.stat(path)  # noqa: PTH116 - no pathlib here
        except PermissionError:
            return True
        except OSError:
            continue
        return True
    return False


def _places() -> tuple[str, ...]:
    named = os.environ.get("MAILER_CONFIG")
    return (named,) if named else _PLACES


@contextmanager
def standing_in(config: str) -> Iterator[socket.socket]:
    """Give a connection to a receiver of our own, which ends with it.

    Raises:
        Failure: EX_TEMPFAIL: it could not begin; it has said why on standard error.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            # -P: not what lies in the current directory, which may be anybody's.
            command = [sys.executable, "-P", "-m", "mailer", "session", "--config", config]
            process = subprocess.Popen(  # noqa: S603 - ourselves, with a path that is not an option
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
