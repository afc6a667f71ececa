"""The world around a power-cut disk: the servers that mail goes to, and who looks into the local Maildir."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from outbound.hostile import HANG, Server, Session
from testbed.name_server import NameServer

from power_cuts.books import Books, token_of

# Each recording and each drain has a network of its own, so that ports can be fixed.
SMTP_PORT = 2525
DNS_PORT = 5353
ONE, TWO, TARPIT, SLOW, FEW = (f"127.0.0.{last}" for last in range(11, 16))
_HOSTS = {"one.test": ONE, "two.test": TWO, "tarpit.test": TARPIT, "slow.test": SLOW, "few.test": FEW}
_SILENCES: dict[str, dict[str, Any]] = {TARPIT: {"banner": HANG}, SLOW: {"dot": HANG}}
"""A destination that never says a word, and one that never answers the final dot."""
_LOOK_EVERY = 0.02


@contextmanager
def destinations(books: Books, *, willing: bool) -> Iterator[None]:
    """Run all the servers that mail goes to, and the name server that knows them.

    Args:
        books: what they take is noted there.
        willing: they take everything. Otherwise `never...` is refused, `later...` is deferred once, and two
            of the servers do not answer.
    """
    zone = {(domain, "MX"): [f"10 mx.{domain}."] for domain in _HOSTS}
    zone |= {(f"mx.{domain}", "A"): [host] for domain, host in _HOSTS.items()}
    with ExitStack() as running:
        running.enter_context(NameServer(zone, port=DNS_PORT))
        for host in _HOSTS.values():
            script: dict[str, Any] = {"dot": partial(_take, books)}
            if not willing:
                script |= {"rcpt": _Fickle()} | _SILENCES.get(host, {})
            running.enter_context(Server(script, host=host, port=SMTP_PORT))
        yield


def _take(books: Books, session: Session, _line: bytes) -> None:
    """Note the message just before its 250."""
    message = session.messages[-1]
    books.note_arrival(message.sender, message.recipients, message.body)


class _Fickle:
    """Answers RCPT by the local part."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __call__(self, _session: Session, line: bytes) -> str | None:
        if b"<never" in line:
            return "550 5.1.1 no such user"
        if b"<later" in line and line not in self._seen:
            self._seen.add(line)
            return "451 4.7.1 greylisted"
        return None


class MaildirWatcher(threading.Thread):
    """Notes what is delivered to a local Maildir, when it is there to be read."""

    def __init__(self, maildir: Path, books: Books) -> None:
        super().__init__(daemon=True)
        self._stop_looking = threading.Event()
        self._maildir = maildir
        self._books = books
        self._seen: set[str] = set()

    def run(self) -> None:
        while not self._stop_looking.wait(_LOOK_EVERY):
            for path in (self._maildir / "new").glob("*"):
                if path.name not in self._seen:
                    self._seen.add(path.name)
                    self._books.note("delivered", *_whose(path))

    def end(self) -> None:
        self._stop_looking.set()
        self.join()


def kept(maildir: Path) -> Iterator[tuple[str, str]]:
    """Each copy in a local Maildir, as token and recipient."""
    for path in (maildir / "new").glob("*"):
        token, recipients = _whose(path)
        yield from ((token, recipient) for recipient in recipients)


def _whose(path: Path) -> tuple[str, tuple[str, ...]]:
    stored = path.read_bytes()
    fields = (line.partition(b": ") for line in stored.partition(b"\n\n")[0].splitlines())
    return token_of(stored), tuple(value.decode() for name, _, value in fields if name == b"Delivered-To")
