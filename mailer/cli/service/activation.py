"""Socket activation: take over the listening sockets that a service manager passes on (sd_listen_fds(3))."""

import os
import socket
from collections.abc import MutableMapping

from mailer.cli.exits import Exit, Failure
from mailer.receive.listen.inherited import Inherited

FIRST = 3
"""The descriptor of the first socket (SD_LISTEN_FDS_START); 0 to 2 are standard input, output and error."""
_MAX = 256
_FAMILIES = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}


def passed_on(environ: MutableMapping[str, str], *pids: int | None) -> int:
    """Return the number of sockets passed on to one of these processes; 0 if LISTEN_PID names another.

    Raises:
        Failure: LISTEN_FDS is not a number, or is too large.
    """
    if environ.get("LISTEN_PID", "") not in {str(pid) for pid in pids if pid is not None}:
        return 0
    count = environ.get("LISTEN_FDS", "")
    if not (count.isascii() and count.isdigit() and int(count) <= _MAX):
        raise Failure(Exit.CONFIG, f"LISTEN_FDS is {count!r}, which is not a number of sockets up to {_MAX}")
    return int(count)


def inherited(environ: MutableMapping[str, str], parent: int | None) -> tuple[Inherited, ...]:
    """Take over the sockets that were passed on; child processes inherit neither them nor the variables.

    Args:
        environ: the LISTEN_* variables are removed from it.
        parent: the process id of the `mailer up` that started this process and passes on the sockets that
            it was given; None if `mailer up` did not start it.

    Raises:
        Failure: a descriptor is not a listening stream socket.
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
