"""Socket activation: sockets inherited from the service manager (sd_listen_fds(3)), and their listeners.

They outlive this process: clients that connect while no receiver runs wait in the backlog for the next one. A
socket belongs to the listener with its name (FileDescriptorName=), else to the one with its address.
"""

import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from os.path import normpath

from mailer.receive.settings import Address

PRIMARY = "smtp"
"""The name of the listener at `smtpHost` and `smtpPort`."""
SUBMIT = "submit"
"""The name of the listener at `submitSocket`."""
HTTP = "http"
"""The name of the listener at `submitHttp`."""
_BOTH = {"127.0.0.1": "::1", "0.0.0.0": "::"}  # noqa: S104 - compared with, not listened on
"""The IPv6 equivalent of an IPv4 address; a listener at the latter also claims sockets at the former."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """One inherited socket."""

    listening: socket.socket
    name: str = ""
    """Its FileDescriptorName=; by default that is the name of the socket unit, which no listener has."""

    @property
    def unix(self) -> bool:
        return self.listening.family == socket.AF_UNIX

    @property
    def address(self) -> Address:
        found = self.listening.getsockname()
        if self.unix:
            # Write an abstract socket name as systemd does.
            return (found if isinstance(found, str) else f"@{found[1:].decode(errors='replace')}", 0)
        return str(found[0]), int(found[1])

    @property
    def written(self) -> str:
        """Its address and name, for error messages."""
        host, port = self.address
        where = host if not port else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{where} ({self.name})" if self.name else where


class NotConfiguredError(ValueError):
    """An inherited socket matches no configured listener; the text says what to change."""


class Waiting:
    """The inherited sockets that no listener has claimed yet."""

    def __init__(self, inherited: Sequence[Inherited], names: Collection[str]) -> None:
        """Begin with all sockets unclaimed.

        Args:
            inherited: the sockets.
            names: the names of the listeners that have one.
        """
        self._left = list(inherited)
        self._names = frozenset(names)

    def pop(self, name: str, addresses: Sequence[Address], *, unix: bool) -> list[socket.socket]:
        """Claim and return the sockets that have the name or one of the addresses of a listener.

        With `unix` it claims only Unix sockets, else only others: the kernel knows no user of a TCP client.
        """
        wanted = {_plain(each) for each in addresses}
        wanted |= {(_BOTH[host], port) for host, port in wanted if host in _BOTH}
        taken = [each for each in self._left if each.unix is unix and self._is_for(each, name, wanted)]
        self._left = [each for each in self._left if each not in taken]
        return [each.listening for each in taken]

    def _is_for(self, each: Inherited, name: str, wanted: set[Address]) -> bool:
        return each.name == name if each.name in self._names else _plain(each.address) in wanted

    def refuse_rest(self, configured: Sequence[str]) -> None:
        """Refuse to start if a socket is unclaimed, because its clients would wait forever.

        Args:
            configured: the addresses of all listeners, for the message.

        Raises:
            NotConfiguredError: a socket is unclaimed.
        """
        if self._left:
            found = ", ".join(each.written for each in self._left)
            raise NotConfiguredError(
                f"the service manager listens at {found}, and no listener is configured there, but at "
                f"{', '.join(configured)}: set ListenStream= of the socket unit to that, or smtpHost and "
                "smtpPort (or listeners, submitSocket, submitHttp) to what the unit says, or "
                'FileDescriptorName= to a listener\'s name (its key "name"; '
                f"{PRIMARY} for smtpPort, {SUBMIT} for submitSocket, {HTTP} for submitHttp)"
            )


def _plain(address: Address) -> Address:
    host, port = address
    return address if port else (normpath(host), 0)
