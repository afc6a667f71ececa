"""Compare, in one run, what signing a 3 KB message costs: the bare OpenSSL operation, mailer, stock dkimpy.

    scripts/bench_dkim [SECONDS]

Each contestant runs in turn for SECONDS (1) altogether, in short rounds that alternate; the fastest round of
each counts, in processor time, so that a busy machine changes little. Keys are loaded beforehand, except by
stock dkimpy, which parses its key for each message.
"""

# ruff: noqa: T201 - a command that prints

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dkim

from mailer.config.model import Dkim, DkimKey
from mailer.send.dkim.keys import KeyType, generate, parse
from mailer.send.dkim.signer import Signer

HEADER = (
    b"Received: from app ([127.0.0.1])\r\n\tby relay.example.com with ESMTPA id "
    b"01JD0M3QZJ0000000000000000;\r\n\tSun, 22 Nov 2026 21:45:01 +0000\r\n"
    b"From: App <app@example.com>\r\nTo: Bob <bob@example.net>\r\nSubject: Your order of 22 November\r\n"
    b"Date: Sun, 22 Nov 2026 21:45:01 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
)
MESSAGE = (HEADER + b"A line of text that is as long as lines of text are, more or less.\r\n" * 40)[:3072]
ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Held:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with tempfile.TemporaryDirectory() as directory:
        measured = race(contestants(Path(directory)), seconds)
    bare = measured["OpenSSL, RSA-2048 alone"]
    for name, cost in measured.items():
        print(f"{name:<36} {cost * 1e6:8.0f} us {1 / cost:8.0f}/s {cost / bare:6.2f} x")


def contestants(directory: Path) -> dict[str, Callable[[], object]]:
    pem = {"rsa": generate(KeyType.RSA2048), "ed": generate(KeyType.ED25519)}
    keys = {}
    for selector, private in pem.items():
        path = directory / f"{selector}.private"
        path.touch(mode=0o600)
        path.write_bytes(private)
        keys[selector] = DkimKey(domain="example.com", selector=selector, private_key_path=path)
    digest = hashlib.sha256(MESSAGE).digest()
    rsa_key, ed_key = parse(pem["rsa"]), parse(pem["ed"])
    one = Signer(Dkim(enabled=True, keys=(keys["rsa"],)), time.time)
    both = Signer(Dkim(enabled=True, keys=(keys["rsa"], keys["ed"])), time.time)
    message = Held(MESSAGE)
    return {
        "OpenSSL, RSA-2048 alone": lambda: rsa_key.sign(digest),
        "OpenSSL, Ed25519 alone": lambda: ed_key.sign(digest),
        "mailer, RSA-2048": lambda: one.sign(message),
        "mailer, RSA-2048 and Ed25519": lambda: both.sign(message),
        "stock dkimpy, RSA-2048": lambda: dkim.sign(
            MESSAGE, b"rsa", b"example.com", pem["rsa"], canonicalize=(b"relaxed", b"relaxed")
        ),
    }


def race(runners: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Seconds of processor time that one call of each takes."""
    best = {name: float("inf") for name in runners}
    for _ in range(ROUNDS):
        for name, run in runners.items():
            calls, started = 0, time.process_time()
            while time.process_time() - started < seconds / ROUNDS or calls < 2:
                run()
                calls += 1
            best[name] = min(best[name], (time.process_time() - started) / calls)
    return best


if __name__ == "__main__":
    main()
