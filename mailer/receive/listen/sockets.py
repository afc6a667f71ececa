"""The listening sockets of a receiver: found, bound, and refused when they would make an open relay."""

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
from mailer.receive.listen.inherited import PRIMARY, Inherited, Waiting
from mailer.receive.peers import UNIX, is_local
from mailer.receive.service import Service
from mailer.receive.settings import Address, Endpoint, Settings, Terms

_ALL_IPV4 = "0.0.0.0"  # noqa: S104 - compared with, not listened on
_OTHER_FAMILY_TAKEN = (
    "another program listens there: applications that are set to localhost may hand it their mail and "
    "passwords. End it (ss -ltnp names it), or set them to 127.0.0.1"
)


class UnsafeSettingsError(ValueError):
    """What was asked for is an open relay, or a server that nobody can use; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A socket that is bound and does not listen yet."""

    listening: socket.socket
    address: Address
    endpoint: Endpoint
    """What it is for."""
    directory: int = -1
    """Of a Unix socket's name, open."""
    outlives_us: bool = False
    """The service manager listens there as well: what connects after us waits for the next receiver."""

    @classmethod
    def of(cls, listening: socket.socket, endpoint: Endpoint, *, outlives_us: bool = False) -> Self:
        return cls(listening, Inherited(listening).address, endpoint, outlives_us=outlives_us)

    @property
    def host(self) -> str:
        """As the kernel writes it, or `unix`."""
        name, port = self.address
        return name if port else UNIX

    def close(self) -> None:
        """Close it; a Unix socket's name goes with it."""
        self.listening.close()
        if self.directory >= 0:
            with suppress(OSError):
                os.unlink(Path(self.address[0]).name, dir_fd=self.directory)
            os.close(self.directory)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one listener is to be, and what the service manager has for it."""

    endpoint: Endpoint
    addresses: list[Address]
    given: list[socket.socket]

    @property
    def beyond(self) -> bool:
        """Others than this host's programs reach it."""
        hosts = [Bound.of(each, self.endpoint).host for each in self.given] or [
            UNIX if self.endpoint.path else host for host, _ in self.addresses
        ]
        return any(not is_local(host) for host in hosts)


async def bind(service: Service, inherited: Sequence[Inherited] = ()) -> list[Bound]:
    """Bind every socket that the settings ask for, but for those that are inherited.

    Raises:
        UnsafeSettingsError, NotConfiguredError: nothing is bound.
        OSError: an address cannot be had; nothing is bound any more.
    """
    settings = service.settings
    primary = Endpoint(settings.host, settings.port, terms=settings.terms, name=PRIMARY)
    places = []
    waiting = Waiting(inherited, [each.name for each in (primary, *settings.endpoints) if each.name])
    for endpoint in (primary, *settings.endpoints):
        addresses = [(endpoint.path, 0)] if endpoint.path else await _resolved(endpoint)
        if endpoint is primary and settings.local_only and not all(is_local(host) for host, _ in addresses):
            # As the Go relay did: the switch overrules the address.
            addresses = [("127.0.0.1", settings.port)]
        given = waiting.take(endpoint.name, addresses, unix=bool(endpoint.path))
        places.append(_Place(endpoint, addresses, given))
    waiting.refuse_rest([_written(address) for each in places for address in each.addresses])
    for each in places:
        if each.beyond and settings.local_only:
            who = "the service manager listens at" if each.given else "listeners names"
            raise UnsafeSettingsError(f"{who} an address beyond this host, and security.allowLocalOnly is on")
    doors = [Door(each.beyond, each.endpoint) for each in places if not each.endpoint.submit]
    _check(service, doors)
    owners = owners_of(service.store.spool.path)
    with _all_or_none() as bound:
        for place in places:
            bound.extend(_bind(place, owners))
        _bind_other_family(bound, service)
    return bound


def _bind(place: _Place, owners: Owners) -> list[Bound]:
    """Bind a listener where the service manager has not done so; raises OSError."""
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


def check(service: Service, bound: Collection[Bound]) -> None:
    """Judge settings that come after those for which the sockets were bound.

    Raises:
        UnsafeSettingsError: they must not be served there.
    """
    # Under allowLocalOnly whoever comes from beyond is turned away.
    turned_away = service.settings.local_only
    _check(
        service,
        [
            Door(not turned_away and not is_local(each.host), each.endpoint)
            for each in bound
            if not each.endpoint.submit
        ],
    )


@dataclass(frozen=True, slots=True)
class Door:
    """One place to listen at, as far as it can be unsafe."""

    beyond: bool
    """Others than this host's programs reach it."""
    endpoint: Endpoint

    @property
    def terms(self) -> Terms:
        return self.endpoint.terms

    def demands_login(self, settings: Settings) -> bool:
        asked = self.terms.auth
        return settings.require_auth if asked is None else asked is Offer.REQUIRED


def _check(service: Service, doors: Collection[Door]) -> None:
    settings = service.settings
    needs = any(each.endpoint.tls or each.terms.starttls is Offer.REQUIRED for each in doors)
    if needs and service.certificate is None:
        raise UnsafeSettingsError(
            "a listener has tls on, and there is no certificate: set tls.certificatePath"
        )
    if any(each.beyond and each.endpoint.http and not each.endpoint.tls for each in doors):
        raise UnsafeSettingsError(
            "submitHttp listens beyond this host without TLS, and tokens would travel in clear: set "
            "submitHttp.tls to true"
        )
    nobody = service.authenticator is None or not service.authenticator.anybody()
    if nobody and any(each.demands_login(settings) for each in doors):
        raise UnsafeSettingsError(
            "a login is required and none is configured, so nobody could send: set defaultUsername "
            "and defaultPassword, add a user with `mailer user add`, or set security.requireAuth to false"
        )
    if any(each.beyond and not each.demands_login(settings) for each in doors):
        raise UnsafeSettingsError(
            "this would be an open relay: it listens beyond this host and asks nobody to log in. Set "
            "defaultUsername and defaultPassword, or security.allowLocalOnly to true"
        )


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Have a failure say where: bind(2) does not, and of a socket's name only the last part is known."""
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
    """Bind what can be bound of what one name stands for; `localhost` may be ::1 on a host without IPv6."""
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for address in addresses:
        try:
            sockets.append(_bound(address))
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


def _bind_other_family(bound: list[Bound], service: Service) -> None:
    """Bind ::1 wherever 127.0.0.1 is bound, and warn if somebody has it already.

    `localhost` is both, and many look ::1 up first: whoever listens there gets logins that were meant for us.
    """
    taken = {each.address for each in bound}
    for each in [each for each in bound if each.host in {"127.0.0.1", _ALL_IPV4}]:
        port = each.address[1]
        if taken & {("::1", port), ("::", port)}:
            continue
        try:
            bound.append(Bound.of(_bound(("::1", port)), each.endpoint))
        except OSError as error:
            # Without IPv6 there is nothing to take.
            if error.errno == EADDRINUSE:
                log = service.store.log
                log.warning(_OTHER_FAMILY_TAKEN, address=f"[::1]:{port}")


def _bound(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for the last run's connections to leave TIME_WAIT.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


def _bind_unix(endpoint: Endpoint, owners: Owners) -> Bound:
    """Bind a name in a directory that is opened once: root may be doing this in another user's.

    Raises:
        Untrusted: others may write to the directory, and could put their own socket there.
        OSError: as bind(2).
    """
    path = endpoint.path
    with trusted_directory(Path(path).parent, owners=owners) as found:
        directory = os.dup(found)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        name = Path(path).name
        through = f"/proc/self/fd/{directory}/{name}"
        _remove_stale(name, directory, through, owners, path)
        # Like the loopback port, for everybody on this host: AUTH, or the kernel, says who it is. The umask
        # gives the mode (unix(7)), for chmod would have to go by the name; no other thread makes files yet.
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
    """Remove the socket of a run that was killed; one that is served, or anything else, stays."""
    try:
        state = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(state.st_mode):
        raise FileExistsError(EADDRINUSE, "there is a file, and it is not a socket", path)
    if state.st_uid not in owners:
        # In a sticky directory nobody but its owner and root can remove or replace it.
        raise FileExistsError(EADDRINUSE, "there is a socket of another user", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(through)
        except OSError as error:
            if error.errno != ECONNREFUSED:
                raise
            os.unlink(name, dir_fd=directory)
