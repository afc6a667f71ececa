"""Sockets that the service manager listens at for us (sd_listen_fds(3)), and which listener each is for.

They outlive this process: what connects while no receiver runs waits in their queue for the next one. A
socket belongs to the listener that has its name (FileDescriptorName=), else to the one that has its address.
"""

import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from os.path import normpath

from mailer.receive.settings import Address

PRIMARY = "smtp"
"""The name for `smtpHost` and `smtpPort`."""
SUBMIT = "submit"
"""That for `submitSocket`."""
HTTP = "http"
"""That for `submitHttp`."""
_BOTH = {"127.0.0.1": "::1", "0.0.0.0": "::"}  # noqa: S104 - compared with, not listened on
"""The same place in IPv6: it is listened at as well, wherever the other is."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """One of them."""

    listening: socket.socket
    name: str = ""
    """As the manager calls it; often that is the name of its unit, which no listener has."""

    @property
    def unix(self) -> bool:
        return self.listening.family == socket.AF_UNIX

    @property
    def address(self) -> Address:
        found = self.listening.getsockname()
        if self.unix:
            # An abstract name is written as systemd writes it.
            return (found if isinstance(found, str) else f"@{found[1:].decode(errors='replace')}", 0)
        return str(found[0]), int(found[1])

    @property
    def written(self) -> str:
        """Its address and name, for a message."""
        host, port = self.address
        where = host if not port else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{where} ({self.name})" if self.name else where


class NotConfiguredError(ValueError):
    """The manager listens at a place that the configuration does not have; the text says what to change."""


class Waiting:
    """Those that no listener has taken yet."""

    def __init__(self, inherited: Sequence[Inherited], names: Collection[str]) -> None:
        """Args: names: of the listeners that have one."""
        self._left = list(inherited)
        self._names = frozenset(names)

    def take(self, name: str, addresses: Sequence[Address], *, unix: bool) -> list[socket.socket]:
        """Return those that are for the listener with this name, or one of these addresses.

        Only Unix sockets with `unix`, and no others: of who connects by TCP the kernel knows no user.
        """
        wanted = {_plain(each) for each in addresses}
        wanted |= {(_BOTH[host], port) for host, port in wanted if host in _BOTH}
        taken = [each for each in self._left if each.unix is unix and self._is_for(each, name, wanted)]
        self._left = [each for each in self._left if each not in taken]
        return [each.listening for each in taken]

    def _is_for(self, each: Inherited, name: str, wanted: set[Address]) -> bool:
        return each.name == name if each.name in self._names else _plain(each.address) in wanted

    def refuse_rest(self, configured: Sequence[str]) -> None:
        """Refuse to start with a socket that nobody took: its clients would wait for ever.

        Args:
            configured: where listeners are, for the message.

        Raises:
            NotConfiguredError: there is one.
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
