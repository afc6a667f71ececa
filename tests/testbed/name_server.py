"""A DNS server over UDP and TCP that answers from a zone given in Python.

What does not fit into 512 octets is cut over UDP (RFC 1035 4.2.1), and comes whole over TCP.
"""

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from testbed.ports import LOOPBACK, free_port

Zone = Mapping[tuple[str, str], Sequence[str]]
"""(name, type) to the records' texts as in zone files: `("example.com", "MX"): ["10 mx.example.com."]`."""

_UDP_OCTETS, _OCTETS = 512, 65535


def txt(value: str) -> str:
    """A TXT record's text: strings of at most 255 characters, quoted."""
    return " ".join(f'"{value[at : at + 255]}"' for at in range(0, len(value), 255))


class NameServer:
    """Runs in a thread while its block does. The zone may be changed meanwhile; nothing is cached."""

    def __init__(self, zone: Zone, *, host: str = LOOPBACK, port: int = 0) -> None:
        """
        Args:
            zone: what it knows. To other names it says NXDOMAIN; to those that it knows with another type,
                that there is no such record.
            host: where it listens.
            port: 0 draws one.
        """
        self.zone = dict(zone)
        self.ttl = 0
        """Of every record."""
        self.silent = False
        """Answers nothing."""
        self.broken = False
        """Answers SERVFAIL."""
        self.denies_all = False
        """Answers NXDOMAIN about every name, also about the root."""
        self.silent_for: set[tuple[str, str]] = set()
        """(name, type) that it answers nothing about."""
        self.broken_for: set[tuple[str, str]] = set()
        """(name, type) that it answers SERVFAIL about."""
        self.asked: list[tuple[str, str, str]] = []
        """Each question as (name, type, "udp" or "tcp")."""
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((host, port or free_port()))
        self.host, self.port = self._udp.getsockname()
        self._tcp = socket.create_server((host, self.port))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def _serve(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._udp, selectors.EVENT_READ, self._serve_datagram)
            ready.register(self._tcp, selectors.EVENT_READ, self._serve_connection)
            while all(key.data() for key, _ in ready.select()):
                pass

    def _serve_datagram(self) -> bool:
        """Answer one question; false: it was the knock of `__exit__`."""
        data, peer = self._udp.recvfrom(_OCTETS)
        if data and (answer := self._answer(data, _UDP_OCTETS, "udp")):
            self._udp.sendto(answer, peer)
        return bool(data)

    def _serve_connection(self) -> bool:
        """Answer one question, and close."""
        connection, _ = self._tcp.accept()
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError, struct.error):
            [length] = struct.unpack("!H", stream.read(2))
            data = stream.read(length)
            if answer := self._answer(data, _OCTETS, "tcp"):
                connection.sendall(struct.pack("!H", len(answer)) + answer)
        return True

    def _answer(self, data: bytes, limit: int, transport: str) -> bytes:
        """Answer in at most so many octets; not at all: nothing."""
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return b""
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, transport))
        if self.silent or (name, kind) in self.silent_for:
            return b""
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA | dns.flags.AA
        if self.denies_all:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif self.broken or (name, kind) in self.broken_for:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif texts := self.zone.get((name, kind)):
            response.answer = [dns.rrset.from_text(question.name, self.ttl, "IN", kind, *texts)]
        elif alias := self.zone.get((name, "CNAME")):
            # Only the alias, as a server that is no authority for its target answers.
            response.answer = [dns.rrset.from_text(question.name, self.ttl, "IN", "CNAME", *alias)]
        elif question.name != dns.name.root and all(known != name for known, _ in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire(max_size=limit, prefer_truncation=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knock:
            knock.sendto(b"", (self.host, self.port))
        self._thread.join()
        self._udp.close()
        self._tcp.close()
