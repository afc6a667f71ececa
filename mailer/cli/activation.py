"""The sockets that a service manager has opened for us and passed on: LISTEN_FDS, sd_listen_fds(3)."""

import os
import socket
from collections.abc import MutableMapping

from mailer.cli.exits import Exit, Failure
from mailer.receive.listen.inherited import Inherited

FIRST = 3
"""The descriptor of the first: those before are standard input, output and error."""
_MOST = 256
_FAMILIES = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}


def passed_on(environ: MutableMapping[str, str], *pids: int | None) -> int:
    """Return how many sockets are meant for one of these processes; 0: none.

    Raises:
        Failure: what the environment says of them makes no sense.
    """
    if environ.get("LISTEN_PID", "") not in {str(pid) for pid in pids if pid is not None}:
        return 0
    count = environ.get("LISTEN_FDS", "")
    if not (count.isascii() and count.isdigit() and int(count) <= _MOST):
        raise Failure(Exit.CONFIG, f"LISTEN_FDS is {count!r}, which is not a number of sockets up to {_MOST}")
    return int(count)


def inherited(environ: MutableMapping[str, str], parent: int | None) -> tuple[Inherited, ...]:
    """Take the sockets over; programs that we start get neither them nor the variables.

    Args:
        environ: the variables are removed from it.
        parent: `mailer up`, which was given sockets that it passes on; None: it did not start us.

    Raises:
        Failure: one of them is not a listening stream socket.
    """
    count = passed_on(environ, os.getpid(), parent)
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    names += [""] * count
    return tuple(Inherited(_socket(FIRST + at, names[at]), names[at]) for at in range(count))


def _socket(descriptor: int, name: str) -> socket.socket:
    what = f"descriptor {descriptor}{f' ({name})' if name else ''}, which the service manager passed on,"
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise Failure(Exit.CONFIG, f"{what} is not a socket: {error.strerror}") from error
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if found.family not in _FAMILIES or found.type != socket.SOCK_STREAM or not listens:
        found.close()
        raise Failure(
            Exit.CONFIG,
            f"{what} does not listen for streams: the socket unit needs ListenStream= and Accept=no",
        )
    return found
