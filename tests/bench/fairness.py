"""A run over many destinations some of which are black holes, and how much these cost the others.

    scripts/bench_fairness [--messages 10000] [--destinations 100] [--holes 10] [--directory DIR]

sends the mail of the others alone first, then all of it, and prints the ratio of the two times. Half of the
holes take connections and never say a word; to the other half every packet is lost.
"""

# ruff: noqa: T201 - a command that prints

import argparse
import contextlib
import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from outbound.hostile import HANG, Server
from outbound.sending import MESSAGE, SENDER
from testbed.name_server import NameServer
from testbed.ports import LOOPBACK
from testbed.relay import Relay
from testbed.smtp_sink import SmtpSink

from mailer.mail.envelope import Envelope, Recipient
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming

_HOLES = "127.0.66."


@contextlib.contextmanager
def deaf(host: str, port: int) -> Iterator[None]:
    """An address where packets are lost: the queue of a socket there is full, and the kernel drops SYNs."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(3):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


def fill(spool: Path, recipients: Sequence[str]) -> None:
    """Put one message for each recipient into `new/`, without waiting for the disk each time."""
    with Spool.open(spool, create=True) as opened:
        for recipient in recipients:
            envelope = Envelope(SENDER, (Recipient(recipient),))
            now = time.time()
            incoming = Incoming.create(opened, received=now, user="", peer=LOOPBACK, envelope=envelope)
            incoming.write(MESSAGE)
            incoming.seal(now)
            incoming.move()
            incoming.release()


@contextlib.contextmanager
def holes(count: int, port: int) -> Iterator[list[str]]:
    """The addresses of so many black holes, of both kinds by turns."""
    with contextlib.ExitStack() as open_ones:
        addresses = [f"{_HOLES}{number + 1}" for number in range(count)]
        for silent in addresses[::2]:
            open_ones.enter_context(Server({"banner": HANG}, host=silent, port=port))
        for lost in addresses[1::2]:
            open_ones.enter_context(deaf(lost, port))
        yield addresses


def seconds(directory: Path, good: Sequence[str], bad: Sequence[str], messages: int) -> tuple[float, float]:
    """How long a run takes until the good destinations have all their mail; and its time on the processor.

    Args:
        directory: a new one.
        good: domains that work.
        bad: the black holes.
        messages: for each domain.
    """
    directory.mkdir()
    sink = SmtpSink(directory / "sink")
    zone = {(domain, "MX"): [f"10 mx.{domain}."] for domain in (*good, *bad)}
    zone |= {(f"mx.{domain}", "A"): [LOOPBACK] for domain in good}
    with sink, holes(len(bad), sink.port) as addresses, NameServer(zone) as dns:
        dns.zone |= {(f"mx.{domain}", "A"): [at] for domain, at in zip(bad, addresses, strict=True)}
        dns.ttl = 3600
        relay = Relay(directory)
        relay.configure(
            {
                "directDelivery": {"enabled": True, "port": sink.port, "allowPrivate": True},
                "dns": {"nameservers": [str(dns)]},
                "sending": {"shutdownGrace": 0},
            }
        )
        to = [f"user{number}@{domain}" for domain in (*good, *bad) for number in range(messages)]
        random.Random(1).shuffle(to)
        fill(relay.spool, to)
        began = time.monotonic()
        with relay.watch() as runner:
            sink.await_count(len(good) * messages, 600.0)
            return time.monotonic() - began, _on_processor(runner.pid)


def _on_processor(pid: int) -> float:
    """Seconds of one processor that a process has used (proc(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    options = _parse()
    each = options.messages // options.destinations
    names = [f"d{number}.test" for number in range(options.destinations)]
    good, bad = names[options.holes :], names[: options.holes]
    with tempfile.TemporaryDirectory(dir=options.directory) as parent:
        alone, used = seconds(Path(parent) / "alone", good, (), each)
        print(f"{len(good)} destinations, {each} messages each: {alone:.2f} s, {used:.2f} s of processor")
        sys.stdout.flush()
        beside, more = seconds(Path(parent) / "beside", good, bad, each)
    print(f"beside {len(bad)} black holes with as many each: {beside:.2f} s, {more:.2f} s of processor")
    print(f"ratio: {alone / beside:.2f}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench_fairness", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000, help="of all destinations together")
    parser.add_argument("--destinations", type=int, default=100)
    parser.add_argument("--holes", type=int, default=10)
    parser.add_argument("--directory", type=Path, help="where to put the spool")
    return parser.parse_args()


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
