"""DNS lookups with dnspython, and what their results mean for mail.

Three results are kept apart, because mail depends on it: the name does not exist (final), the name exists and
has no such record (an answer), and the lookup failed (temporary, never an answer).
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

# Imported only for their effect. dnspython would import these modules at the first answer that has such a
# record (every negative answer has an SOA). By then a runner that root started may run as another user, which
# cannot read root's Python.
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.TXT import TXT

# For the same reason: by default, dnspython detects the event loop, with imports, at its first query.
dns.asyncbackend.set_default_backend("asyncio")

_CACHE_SIZE = 10_000
"""The most answers to cache, each for its TTL. A run that mails a million domains must not keep them all."""
_SERVER_TIMEOUT = 2.0
"""The most seconds to wait for one server before the next one is asked."""
_MAX_ALIASES = 8
"""The most CNAMEs to follow. RFC 1034 3.6.2 sets no limit; Postfix stops at 10 and BIND at 16."""


DENIES_ALL = "name servers deny every name (NXDOMAIN)"


class NoSuchName(LookupError):
    """The name does not exist (NXDOMAIN)."""


class LookupFailed(OSError):
    """The lookup failed: a time-out, SERVFAIL or a broken answer. This says nothing about the name."""


class Resolver(Protocol):
    """The lookups of the direct route. Both methods raise NoSuchName and LookupFailed."""

    async def mail_exchangers(self, domain: str) -> list[tuple[int, str]]:
        """Return (preference, host) of each MX record; empty when the domain exists and has none.

        The host of a null MX (RFC 7505) is the empty string.
        """

    async def addresses(self, host: str, *, six: bool) -> list[str]:
        """Return a host's IPv6 addresses, or its IPv4 addresses; empty when it has none."""


_Query = tuple[str, str]


class _Cache(dns.resolver.LRUCache):
    """dnspython's cache, except that it does not keep negative answers without an SOA.

    An SOA says how long a negative answer is valid (RFC 2308 5). Without one, dnspython would keep it for
    68 years.
    """

    def put(self, key: dns.resolver.CacheKey, value: dns.resolver.Answer) -> None:
        if value.rrset is not None or value.response.authority:
            super().put(key, value)


class DnsResolver:
    """Asks name servers, caches their answers for the TTL, and merges concurrent equal queries."""

    def __init__(
        self, nameservers: Sequence[str], timeout: float, resolv_conf: Path = Path("/etc/resolv.conf")
    ) -> None:
        """Prepare.

        Args:
            nameservers: each as `ADDRESS` or `ADDRESS:PORT`; if empty, those of resolv.conf.
            timeout: seconds for one query, over all servers.
            resolv_conf: read again when it changes, since the network's name servers may change during a long
                run.

        Raises:
            LookupFailed: resolv.conf is needed and names no server.
            ValueError: a name server is not given by its address.
        """
        self._dns = dns.asyncresolver.Resolver(configure=False)
        self._dns.lifetime = timeout
        self._dns.cache = _Cache(_CACHE_SIZE)
        self._dns.nameservers = [dns.nameserver.Do53Nameserver(*_endpoint(text)) for text in nameservers]
        self._resolv_conf = None if nameservers else resolv_conf
        self._version = (0, 0)
        self._read_again()
        if not self._dns.nameservers:
            raise LookupFailed(f"no name server is configured: {resolv_conf} names none")
        self._share_time()
        self._asking: dict[_Query, asyncio.Future[list[str]]] = {}

    def _read_again(self) -> None:
        """Use the name servers of resolv.conf if the file has changed; ignore a file that names none."""
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
        """Divide the time so that each server can be asked once, and the first one twice."""
        self._dns.timeout = min(_SERVER_TIMEOUT, self._dns.lifetime / (len(self._dns.nameservers) + 1))

    def _servers(self) -> str:
        """Return the names of the servers that are asked, for error messages."""
        # Those of resolv.conf are addresses.
        return ", ".join(
            _named(server.address, server.port)
            if isinstance(server, dns.nameserver.AddressAndPortNameserver)
            else str(server)
            for server in self._dns.nameservers
        )

    async def mail_exchangers(self, domain: str) -> list[tuple[int, str]]:
        """See `Resolver`."""
        records = [record.split(" ", 1) for record in await self._ask(domain, "MX")]
        # In lower case: a server may vary the case of its answers, and a hop is identified by its name.
        return [(int(preference), host.rstrip(".").lower()) for preference, host in records]

    async def addresses(self, host: str, *, six: bool) -> list[str]:
        """See `Resolver`."""
        return await self._ask(host, "AAAA" if six else "A")

    async def texts(self, name: str) -> list[str]:
        """Return a name's TXT records, the strings of each joined (RFC 7208 3.3).

        Raises as the methods of `Resolver`.
        """
        return await self._ask(name, "TXT")

    async def names(self, address: str) -> list[str]:
        """Return the names in an address's PTR records; raises as the methods of `Resolver`."""
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
        """Ask, and follow aliases that the server did not follow itself, as authoritative servers do not."""
        self._read_again()
        for _ in range(_MAX_ALIASES):
            try:
                answer = await self._dns.resolve(_absolute(name), kind, search=False)
            except dns.resolver.NXDOMAIN:
                if await self._denies_the_root():
                    raise LookupFailed(f"{DENIES_ALL} ({self._servers()})") from None
                raise
            except dns.resolver.NoAnswer as none:
                response: dns.message.QueryMessage = none.kwargs["response"]
                target = response.resolve_chaining().canonical_name.to_text()
                if target.lower() == _absolute(name).to_text().lower():
                    return []
                name = target
            else:
                return [_text(record) for record in answer]
        raise LookupFailed(f"more than {_MAX_ALIASES} aliases (CNAME)")

    async def _denies_the_root(self) -> bool:
        """Return whether the servers say NXDOMAIN of the root, too, which exists: they say it of every name.

        A captive portal or a forwarder that has lost its own servers does so, and all mail would bounce.
        """
        try:
            await self._dns.resolve(dns.name.root, "SOA", search=False)
        except dns.resolver.NXDOMAIN:
            return True
        except (dns.exception.DNSException, OSError, EOFError):
            return False
        return False


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
    """Turn dnspython's exceptions into NoSuchName and LookupFailed; `servers` returns the servers asked."""
    try:
        return await ask()
    except LookupFailed:
        raise
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
    """Return the servers' answers, such as SERVFAIL; errors are (server, tcp, port, what, response)."""
    answers = dict.fromkeys(str(what[3]) for what in error.kwargs.get("errors", ()))
    return ", ".join(answers) or "no usable answer"
