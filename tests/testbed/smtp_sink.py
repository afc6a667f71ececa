"""Postfix's `smtp-sink`: a next hop that takes any mail and keeps every byte of it."""

import os
import re
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.arrival import Arrival, as_sent, path_of, take_field
from testbed.clients import Server
from testbed.ports import LOOPBACK, free_port
from testbed.process import ServerProcess
from testbed.tools import postfix_environment, program
from testbed.waiting import until

# `-c` makes it print "sess=1 quit=1 mesg=1" and a carriage return at every change.
_COUNTED = re.compile(r"mesg=(\d+)")


class SmtpSink:
    """A running smtp-sink, whose messages are files in its directory.

    It offers PIPELINING, 8BITMIME and DSN, but not STARTTLS and SMTPUTF8: `testbed.postfix` has those. It
    would offer AUTH, but answers it with 250 instead of 235 (RFC 4954 6), a refusal to most clients.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        """
        Args:
            directory: a new one, which it makes.
            options: of smtp-sink(1), for instance `"-r", "RCPT"` to answer each RCPT with 450.
        """
        self.host = LOOPBACK
        self.port = free_port()
        self._dumps = directory / "messages"
        self._dumps.mkdir(parents=True)
        # smtp-sink demands a user to become when root starts it; only root may enter pytest's directory.
        privileges = ("-u", "root") if os.geteuid() == 0 else ()
        where = (f"{self.host}:{self.port}", "100")
        self._argv = [program("smtp-sink"), *privileges, "-a", "-c", *options, "-d", "message.", *where]
        self._log = directory / "log"
        self._process: ServerProcess | None = None

    @property
    def server(self) -> Server:
        """Where a client submits."""
        return Server(self.host, self.port)

    def __enter__(self) -> Self:
        environment = postfix_environment()
        process = ServerProcess(self._argv, self._log, env=environment, cwd=self._dumps)
        self._process = process
        process.await_port(self.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.__exit__(kind, error, trace)

    def arrivals(self) -> list[Arrival]:
        """Every message whose dot it has seen, in no particular order, once no transaction is open."""
        return [
            _parse(dump.read_bytes()) for dump in until(self._settled, "smtp-sink's transactions to end")[1]
        ]

    def await_arrivals(self, count: int) -> list[Arrival]:
        """As `arrivals`, once there are at least `count` of them."""
        self.await_count(count)
        return self.arrivals()

    def await_count(self, count: int, patience: float = 120.0) -> None:
        """Wait, so many seconds at most, until there are that many messages."""
        until(lambda: self._complete() >= count, f"{count} messages in {self._dumps}", patience)

    def _complete(self) -> int:
        """How many messages have ended with their dot, by smtp-sink's own running count."""
        assert self._process is not None, "smtp-sink is not running"
        return int(["0", *_COUNTED.findall(self._process.output())][-1])

    def _settled(self) -> tuple[int, list[Path]] | None:
        """The count and the dumps, if they agree.

        A dump is made at MAIL and removed if the connection is lost before the dot. The count is read first,
        so more dumps than counted mean that a transaction is (or was just now) open.
        """
        count = self._complete()
        dumps = list(self._dumps.iterdir())
        return (count, dumps) if count == len(dumps) else None


def _parse(dump: bytes) -> Arrival:
    """Read a dump: `X-` lines with the envelope, smtp-sink's Received field, the message, an empty line."""
    rest = dump
    for name in (b"X-Client-Addr", b"X-Client-Proto", b"X-Helo-Args"):
        _, rest = take_field(rest, name)
    sender, rest = take_field(rest, b"X-Mail-Args")
    recipients = []
    while rest.startswith(b"X-Rcpt-Args:"):
        recipient, rest = take_field(rest, b"X-Rcpt-Args")
        recipients.append(path_of(recipient))
    _, rest = take_field(rest, b"Received")
    return Arrival(path_of(sender), tuple(recipients), as_sent(rest.removesuffix(b"\n")))
