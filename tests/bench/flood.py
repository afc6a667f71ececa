"""Strangers on this host who fill every place of a receiver and guess passwords.

    scripts/bench_flood [--connections 4096] [--guesses 100] [--logins 100]

prints how long an application's logins take in the middle of that, and the memory of the receiver.
"""

# ruff: noqa: T201 - a command that prints

import argparse
import base64
import contextlib
import os
import resource
import smtplib
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from testbed.ports import LOOPBACK
from testbed.relay import PASSWORD, USERNAME, Relay

USER, USER_PASSWORD = "shop", "a long password"
MAIL = "From: app@example.com\r\n\r\nhello\r\n"
_GUESSERS = 4


def hold(port: int, number: int) -> socket.socket:
    """A connection that never logs in, and costs what it can."""
    client = socket.create_connection((LOOPBACK, port), timeout=60)
    client.recv(100)
    client.setblocking(False)
    match number % 5:
        case 0:
            sent = b"x" * 12_000  # most of the longest line, and never its end
        case 1:
            sent = b"EHLO x\r\n" + b"NOOP\r\n" * 900  # and reads no answer
        case 2:
            sent = b"EHLO x\r\nAUTH LOGIN\r\n"
        case 3:
            secret = base64.b64encode(f"\0{USER}\0guess {number}".encode())
            # While the guess waits for its turn, the rest is not looked at.
            sent = b"EHLO x\r\nAUTH PLAIN " + secret + b"\r\n" + b"x" * 240_000
        case _:
            sent = b""
    with contextlib.suppress(BlockingIOError):
        client.sendall(sent)
    return client


@contextlib.contextmanager
def guessing(port: int, each_second: int) -> Iterator[list[str]]:
    """Guess at a user, at the default login and at nobody, and leave at once; the names so far."""
    made: list[str] = []
    stop = threading.Event()

    def guess() -> None:
        while not stop.wait(_GUESSERS / each_second):
            with (
                contextlib.suppress(OSError),
                socket.create_connection((LOOPBACK, port), timeout=20) as client,
            ):
                client.recv(100)
                name = (USER, USERNAME, f"nobody{len(made)}")[len(made) % 3]
                secret = base64.b64encode(f"\0{name}\0guess {len(made)}".encode()).decode()
                client.sendall(f"EHLO x\r\nAUTH PLAIN {secret}\r\n".encode())
                made.append(name)

    threads = [threading.Thread(target=guess) for _ in range(_GUESSERS)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def deliver(port: int, user: str, password: str) -> float:
    """Submit a message as an application does; the seconds from the connection to the login."""
    began = time.monotonic()
    with smtplib.SMTP(LOOPBACK, port, timeout=60) as client:
        client.login(user, password)
        took = time.monotonic() - began
        client.sendmail("app@example.com", ["bob@example.net"], MAIL)
    return took


def resident_megabytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=4096)
    parser.add_argument("--guesses", type=int, default=100, help="a second")
    parser.add_argument("--logins", type=int, default=100)
    asked = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < asked.connections + 200:
        sys.exit(f"the hard limit of descriptors is {hard}; raise it, or ask for fewer --connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as held:
        relay = Relay(Path(directory))
        relay.mailer("user", "add", USER, given=f"{USER_PASSWORD}\n")
        server = held.enter_context(relay.serve())
        print(f"first login of a user, with its hash  {deliver(relay.port, USER, USER_PASSWORD):.3f} s")
        for number in range(asked.connections):
            held.enter_context(hold(relay.port, number))
        with guessing(relay.port, asked.guesses) as made:
            time.sleep(1)
            for user, password in ((USERNAME, PASSWORD), (USER, USER_PASSWORD)):
                waits = sorted(deliver(relay.port, user, password) for _ in range(asked.logins))
                middle, late = waits[len(waits) // 2], waits[-1 - len(waits) // 100]
                print(
                    f"logins of {user:20} median {middle:.3f} s, 99 % {late:.3f} s, longest {waits[-1]:.3f} s"
                )
            print(f"resident {resident_megabytes(server.pid):.0f} MB, {len(made)} guesses")


if __name__ == "__main__":
    main()
