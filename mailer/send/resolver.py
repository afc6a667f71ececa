"""Looking names up: dnspython, and what its answers mean to mail.

Three things are kept apart, because mail depends on it: the name does not exist (final), the name exists and
has no such record (an answer), and nobody could tell (temporary, never an answer).
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype

# Not named below: dnspython would import these at the first answer that has one (SOA comes with every "there
# is none"). By then a runner that root started may be another user, who cannot read root's Python.
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.TXT import TXT

# For the same reason; left to itself, dnspython looks at its first question for what runs the loop.
dns.asyncbackend.set_default_backend("asyncio")

_CACHE = 10_000
"""Answers kept, each for its TTL. A run that mails a million domains must not remember them all."""
_TURN = 2.0
"""Seconds that one server is given to answer, at most, before the next one is asked."""
_MAX_ALIASES = 8
"""CNAMEs followed. RFC 1034 3.6.2 knows no number; Postfix stops at 10 and BIND at 16."""


class NoSuchName(LookupError):
    """The name does not exist (NXDOMAIN)."""


class LookupFailed(OSError):
    """Nobody could tell: a time-out, SERVFAIL, a broken answer. It says nothing about the name."""


class Resolver(Protocol):
    """What the direct route asks. Both raise NoSuchName and LookupFailed."""

    async def mail_exchangers(self, domain: str) -> list[tuple[int, str]]:
        """Return (preference, host) of each MX record; empty when the domain exists and has none.

        The host of a null MX (RFC 7505) is the empty string.
        """

    async def addresses(self, host: str, *, six: bool) -> list[str]:
        """Return a host's IPv6 addresses, or its IPv4 addresses; empty when it has none."""


_Query = tuple[str, str]


class _Cache(dns.resolver.LRUCache):
    """As dnspython's, less what it would keep for 68 years.

    That is an answer that there is no such record, without an SOA to say for how long (RFC 2308 5).
    """

    def put(self, key: dns.resolver.CacheKey, value: dns.resolver.Answer) -> None:
        if value.rrset is not None or value.response.authority:
            super().put(key, value)


class DnsResolver:
    """Asks name servers, keeps answers as long as these allow, and never asks one thing twice at a time."""

    def __init__(
        self, nameservers: Sequence[str], timeout: float, resolv_conf: Path = Path("/etc/resolv.conf")
    ) -> None:
        """Prepare.

        Args:
            nameservers: as `ADDRESS` or `ADDRESS:PORT`; none: those of resolv.conf.
            timeout: seconds for one question, over all servers.
            resolv_conf: read again when it changes: a runner that stays outlives its network's name servers.

        Raises:
            LookupFailed: resolv.conf is needed and names no server.
            ValueError: a name server is not given by its address.
        """
        self._dns = dns.asyncresolver.Resolver(configure=False)
        self._dns.lifetime = timeout
        self._dns.cache = _Cache(_CACHE)
        self._dns.nameservers = [dns.nameserver.Do53Nameserver(*_endpoint(text)) for text in nameservers]
        self._resolv_conf = None if nameservers else resolv_conf
        self._version = (0, 0)
        self._read_again()
        if not self._dns.nameservers:
            raise LookupFailed(f"no name server is configured: {resolv_conf} names none")
        self._share_time()
        self._asking: dict[_Query, asyncio.Future[list[str]]] = {}

    def _read_again(self) -> None:
        """Take the name servers of resolv.conf if it has changed; one that names none changes nothing."""
        if self._resolv_conf is None:
            return
        with contextlib.suppress(OSError, dns.resolver.NoResolverConfiguration):
            state = self._resolv_conf.stat()
            version = (state.st_ino, state.st_mtime_ns)
            if version != self._version:
                self._dns.read_resolv_conf(str(self._resolv_conf))
                self._version = version
                self._share_time()

    def _share_time(self) -> None:
        """Give each server its turn, and the first one a second turn, before the time is over."""
        self._dns.timeout = min(_TURN, self._dns.lifetime / (len(self._dns.nameservers) + 1))

    def _servers(self) -> str:
        """Name the servers that are asked: where an operator looks first when there is trouble."""
        asked = (s for s in self._dns.nameservers if isinstance(s, dns.nameserver.AddressAndPortNameserver))
        return ", ".join(_named(server.address, server.port) for server in asked)

    async def mail_exchangers(self, domain: str) -> list[tuple[int, str]]:
        """See `Resolver`."""
        records = [record.split(" ", 1) for record in await self._ask(domain, "MX")]
        # In one case: a server may answer in another one each time, and a hop is known by its name.
        return [(int(preference), host.rstrip(".").lower()) for preference, host in records]

    async def addresses(self, host: str, *, six: bool) -> list[str]:
        """See `Resolver`."""
        return await self._ask(host, "AAAA" if six else "A")

    async def texts(self, name: str) -> list[str]:
        """Return a name's TXT records, the strings of each joined (RFC 7208 3.3); raises as the others."""
        return await self._ask(name, "TXT")

    async def names(self, address: str) -> list[str]:
        """Return the names that an address's PTR records give it; raises as the others."""
        reverse = ipaddress.ip_address(address).reverse_pointer
        return [name.rstrip(".") for name in await self._ask(reverse, "PTR")]

    async def _ask(self, name: str, kind: str) -> list[str]:
        query = (name.lower(), kind)
        asking = self._asking.get(query)
        if asking is None:
            asking = asyncio.ensure_future(_translated(lambda: self._follow(name, kind), self._servers))
            self._asking[query] = asking
            asking.add_done_callback(lambda _: self._asking.pop(query))
        # Shielded: the first caller may be cancelled while others still wait for the answer.
        return await asyncio.shield(asking)

    async def _follow(self, name: str, kind: str) -> list[str]:
        """Ask, and follow aliases that the server did not follow for us (an authoritative one does not)."""
        self._read_again()
        for _ in range(_MAX_ALIASES):
            try:
                answer = await self._dns.resolve(_absolute(name), kind, search=False)
            except dns.resolver.NoAnswer as none:
                response: dns.message.QueryMessage = none.kwargs["response"]
                target = response.resolve_chaining().canonical_name.to_text()
                if target.lower() == _absolute(name).to_text().lower():
                    return []
                name = target
            else:
                return [_text(record) for record in answer]
        raise LookupFailed(f"more than {_MAX_ALIASES} aliases (CNAME)")


def _absolute(name: str) -> dns.name.Name:
    return dns.name.from_text(name, origin=dns.name.root, idna_codec=dns.name.IDNA_2008_Practical)


def _text(record: object) -> str:
    if isinstance(record, MX):
        return f"{record.preference} {record.exchange.to_text()}"
    if isinstance(record, TXT):
        return b"".join(record.strings).decode("utf-8", "replace")
    return str(record)


def _endpoint(text: str) -> tuple[str, int]:
    address, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (address.startswith("[") or ":" not in address):
        return str(ipaddress.ip_address(address.strip("[]"))), int(port)
    return str(ipaddress.ip_address(text)), 53


def _named(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address and port != 53 else address
    return host if port == 53 else f"{host}:{port}"


async def _translated(ask: Callable[[], Awaitable[list[str]]], servers: Callable[[], str]) -> list[str]:
    """Turn dnspython's many exceptions into our two; args: servers: names those that were asked."""
    try:
        return await ask()
    except dns.resolver.NXDOMAIN as error:
        raise NoSuchName("the domain does not exist (NXDOMAIN)") from error
    except dns.resolver.NoNameservers as error:
        raise LookupFailed(f"name servers failed: {_codes(error)} ({servers()})") from error
    except dns.exception.Timeout as error:
        raise LookupFailed(f"name servers did not answer in time ({servers()})") from error
    except (dns.name.NameTooLong, dns.name.LabelTooLong, dns.name.IDNAException) as error:
        raise NoSuchName("no domain can have that name") from error
    except (dns.exception.DNSException, OSError, EOFError, UnicodeError) as error:
        raise LookupFailed(f"{type(error).__name__}: {error}") from error


def _codes(error: dns.resolver.NoNameservers) -> str:
    """Name what the servers answered, such as SERVFAIL; errors are (server, tcp, port, what, response)."""
    answers = dict.fromkeys(str(what[3]) for what in error.kwargs.get("errors", ()))
    return ", ".join(answers) or "no usable answer"
