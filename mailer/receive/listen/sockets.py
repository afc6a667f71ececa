"""Binds the listening sockets of a receiver, and refuses settings that would make an open relay."""

import asyncio
import os
import socket
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, ECONNREFUSED
from pathlib import Path
from typing import Self

from mailer.config.receiving import Offer
from mailer.config.trust import Owners, owners_of, trusted_directory
from mailer.ground.listening import bound_socket
from mailer.receive.context import ReceiverContext
from mailer.receive.listen.inherited import PRIMARY, Inherited, Waiting
from mailer.receive.peers import UNIX, is_local
from mailer.receive.settings import Address, Endpoint, Offers, Settings

_ALL_IPV4 = "0.0.0.0"  # noqa: S104 - compared with, not listened on
_OTHER_FAMILY_TAKEN = (
    "another program listens there: applications that are set to localhost may hand it their mail and "
    "passwords. End it (ss -ltnp names it), or set them to 127.0.0.1"
)


class UnsafeSettingsError(ValueError):
    """The settings make an open relay, or a server that no client can use; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A socket that is bound and does not listen yet."""

    listening: socket.socket
    address: Address
    endpoint: Endpoint
    """The listener that it is for."""
    directory: int = -1
    """A descriptor of the directory of a Unix socket; -1: none."""
    outlives_us: bool = False
    """Whether the service manager holds it as well, so that clients can wait in it for the next receiver."""

    @classmethod
    def of(cls, listening: socket.socket, endpoint: Endpoint, *, outlives_us: bool = False) -> Self:
        return cls(listening, Inherited(listening).address, endpoint, outlives_us=outlives_us)

    @property
    def host(self) -> str:
        """The IP address, as the kernel writes it, or `unix`."""
        name, port = self.address
        return name if port else UNIX

    def close(self) -> None:
        """Close the socket, and unlink the name of a Unix socket."""
        self.listening.close()
        if self.directory >= 0:
            with suppress(OSError):
                os.unlink(Path(self.address[0]).name, dir_fd=self.directory)
            os.close(self.directory)


@dataclass(frozen=True, slots=True)
class _Place:
    """One listener's addresses, and its inherited sockets."""

    endpoint: Endpoint
    addresses: list[Address]
    given: list[socket.socket]

    @property
    def beyond(self) -> bool:
        """Whether it can be reached from other hosts."""
        hosts = [Bound.of(each, self.endpoint).host for each in self.given] or [
            UNIX if self.endpoint.path else host for host, _ in self.addresses
        ]
        return any(not is_local(host) for host in hosts)


async def bind(context: ReceiverContext, inherited: Sequence[Inherited] = ()) -> list[Bound]:
    """Bind every socket that the settings require, except those that are inherited.

    Raises:
        UnsafeSettingsError, NotConfiguredError: nothing is bound.
        OSError: an address could not be bound; those bound before it are closed again.
    """
    settings = context.settings
    primary = Endpoint(settings.host, settings.port, offers=settings.offers, name=PRIMARY)
    places = []
    waiting = Waiting(inherited, [each.name for each in (primary, *settings.endpoints) if each.name])
    for endpoint in (primary, *settings.endpoints):
        addresses = [(endpoint.path, 0)] if endpoint.path else await _resolved(endpoint)
        if endpoint is primary and settings.local_only and not all(is_local(host) for host, _ in addresses):
            # The switch overrides the address, as in the Go relay.
            addresses = [("127.0.0.1", settings.port)]
        given = waiting.pop(endpoint.name, addresses, unix=bool(endpoint.path))
        places.append(_Place(endpoint, addresses, given))
    waiting.refuse_rest([_written(address) for each in places for address in each.addresses])
    for each in places:
        if each.beyond and settings.local_only:
            who = "the service manager listens at" if each.given else "listeners names"
            raise UnsafeSettingsError(f"{who} an address beyond this host, and security.allowLocalOnly is on")
    doors = [Door(each.beyond, each.endpoint) for each in places if not each.endpoint.submit]
    _check(context, doors)
    owners = owners_of(context.store.spool.path)
    with _all_or_none() as bound:
        for place in places:
            bound.extend(_bind(place, owners))
        _bind_other_family(bound, context)
    return bound


def _bind(place: _Place, owners: Owners) -> list[Bound]:
    """Bind a listener's sockets, unless the service manager has bound them; raises OSError."""
    endpoint = place.endpoint
    if place.given:
        return [Bound.of(each, endpoint, outlives_us=True) for each in place.given]
    with _naming(_written(place.addresses[0])):
        if endpoint.path:
            return [_bind_unix(endpoint, owners)]
        return [Bound.of(each, endpoint) for each in _bind_some(place.addresses)]


async def _resolved(endpoint: Endpoint) -> list[Address]:
    found = await asyncio.get_running_loop().getaddrinfo(
        endpoint.host or None, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return list(dict.fromkeys((str(address[0]), endpoint.port) for *_, address in found))


def check(context: ReceiverContext, bound: Collection[Bound]) -> None:
    """Check new settings against the sockets that are bound already.

    Raises:
        UnsafeSettingsError: the settings are unsafe on these sockets.
    """
    # Under allowLocalOnly remote clients are refused, wherever the sockets listen.
    turned_away = context.settings.local_only
    _check(
        context,
        [
            Door(not turned_away and not is_local(each.host), each.endpoint)
            for each in bound
            if not each.endpoint.submit
        ],
    )


@dataclass(frozen=True, slots=True)
class Door:
    """The properties of one listener that decide whether it is safe."""

    beyond: bool
    """Whether it can be reached from other hosts."""
    endpoint: Endpoint

    @property
    def offers(self) -> Offers:
        return self.endpoint.offers

    def demands_login(self, settings: Settings) -> bool:
        asked = self.offers.auth
        return settings.require_auth if asked is None else asked is Offer.REQUIRED


def _check(context: ReceiverContext, doors: Collection[Door]) -> None:
    settings = context.settings
    needs = any(each.endpoint.tls or each.offers.starttls is Offer.REQUIRED for each in doors)
    if needs and context.certificate is None:
        raise UnsafeSettingsError(
            "a listener has tls on, and there is no certificate: set tls.certificatePath"
        )
    if any(each.beyond and each.endpoint.http and not each.endpoint.tls for each in doors):
        raise UnsafeSettingsError(
            "submitHttp listens beyond this host without TLS, and tokens would travel in clear: set "
            "submitHttp.tls to true"
        )
    nobody = context.authenticator is None or not context.authenticator.anybody()
    if nobody and any(each.demands_login(settings) for each in doors):
        raise UnsafeSettingsError(
            "a login is required and none is configured, so no client could send: set defaultUsername "
            "and defaultPassword, add a user with `mailer user add`, or set security.requireAuth to false"
        )
    if any(each.beyond and not each.demands_login(settings) for each in doors):
        raise UnsafeSettingsError(
            "this would be an open relay: it accepts mail from other hosts without a login. Set "
            "defaultUsername and defaultPassword, or security.allowLocalOnly to true"
        )


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Add the address to an OSError: bind(2) does not, and a Unix socket is bound by a path in /proc."""
    try:
        yield
    except OSError as error:
        error.filename = where
        raise


def _written(address: Address) -> str:
    host, port = address
    if not port and "/" in host:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def _all_or_none() -> Iterator[list[Bound]]:
    bound: list[Bound] = []
    try:
        yield bound
    except BaseException:
        for each in bound:
            each.close()
        raise


def _bind_some(addresses: list[Address]) -> list[socket.socket]:
    """Bind the available addresses of one name; `localhost` may include ::1 on a host without IPv6."""
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for address in addresses:
        try:
            sockets.append(bound_socket(address))
        except OSError as error:
            failure = error
            if error.errno not in {EADDRNOTAVAIL, EAFNOSUPPORT}:
                break
    else:
        if sockets:
            return sockets
    for each in sockets:
        each.close()
    assert failure is not None
    raise failure


def _bind_other_family(bound: list[Bound], context: ReceiverContext) -> None:
    """Bind ::1 wherever 127.0.0.1 is bound, and warn if another program listens there already.

    `localhost` stands for both, and many programs try ::1 first: a program that listens there would get
    passwords that were meant for this server.
    """
    taken = {each.address for each in bound}
    for each in [each for each in bound if each.host in {"127.0.0.1", _ALL_IPV4}]:
        port = each.address[1]
        if taken & {("::1", port), ("::", port)}:
            continue
        try:
            bound.append(Bound.of(bound_socket(("::1", port)), each.endpoint))
        except OSError as error:
            # Other errors mean that the host has no IPv6, so that no other program can listen at ::1.
            if error.errno == EADDRINUSE:
                log = context.store.log
                log.warning(_OTHER_FAMILY_TAKEN, address=f"[::1]:{port}")


def _bind_unix(endpoint: Endpoint, owners: Owners) -> Bound:
    """Bind a Unix socket relative to a descriptor of its directory.

    The directory is opened once, because root may be doing this in a directory of another user.

    Raises:
        Untrusted: other users may write to the directory, and could put their own socket there.
        OSError: as from bind(2).
    """
    path = endpoint.path
    with trusted_directory(Path(path).parent, owners=owners) as found:
        directory = os.dup(found)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        name = Path(path).name
        through = f"/proc/self/fd/{directory}/{name}"
        _remove_stale(name, directory, through, owners, path)
        # Like the loopback port, the socket is open to all users of this host; AUTH or the kernel identifies
        # them. The umask sets its mode (unix(7)), because chmod would have to use the name. It applies to
        # the whole process, but no other thread creates files yet.
        before = os.umask(0o111)
        try:
            listening.bind(through)
        finally:
            os.umask(before)
    except OSError:
        listening.close()
        os.close(directory)
        raise
    return Bound(listening, (path, 0), endpoint, directory)


def _remove_stale(name: str, directory: int, through: str, owners: Owners, path: str) -> None:
    """Remove the socket of a run that was killed, but not one that is in use, nor any other kind of file."""
    try:
        state = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(state.st_mode):
        raise FileExistsError(EADDRINUSE, "there is a file, and it is not a socket", path)
    if state.st_uid not in owners:
        # In a sticky directory only that user and root can remove or replace it.
        raise FileExistsError(EADDRINUSE, "there is a socket of another user", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(through)
        except OSError as error:
            if error.errno != ECONNREFUSED:
                raise
            os.unlink(name, dir_fd=directory)
