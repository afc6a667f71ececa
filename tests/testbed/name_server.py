"""A DNS server over UDP that answers from a zone given in Python."""

import contextlib
import socket
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

from testbed.ports import LOOPBACK

Zone = Mapping[tuple[str, str], Sequence[str]]
"""(name, type) to the records' texts as in zone files: `("example.com", "MX"): ["10 mx.example.com."]`."""

_TTL = 0


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
        self.silent = False
        """Answers nothing."""
        self.broken = False
        """Answers SERVFAIL."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self.host, self.port = self._socket.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def _serve(self) -> None:
        while True:
            try:
                data, peer = self._socket.recvfrom(65535)
            except OSError:
                return
            if not data:
                return  # from __exit__
            if not self.silent:
                with contextlib.suppress(dns.exception.DNSException):
                    self._socket.sendto(self._answer(data), peer)

    def _answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA | dns.flags.AA
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        if self.broken:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif texts := self.zone.get((name, dns.rdatatype.to_text(question.rdtype))):
            response.answer = [dns.rrset.from_text(question.name, _TTL, "IN", question.rdtype, *texts)]
        elif alias := self.zone.get((name, "CNAME")):
            # Only the alias, as a server that is no authority for its target answers.
            response.answer = [dns.rrset.from_text(question.name, _TTL, "IN", "CNAME", *alias)]
        elif all(known != name for known, _ in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire(max_size=65535)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knock:
            knock.sendto(b"", (self.host, self.port))
        self._thread.join()
        self._socket.close()
