"""A real receiver on a free port, with a real spool, in a thread of its own."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mailer.maillog.events import Level, MailLog
from mailer.receive.auth import Authenticator, SingleLogin
from mailer.receive.server import Address, Server
from mailer.receive.settings import Settings
from mailer.receive.upload import Store
from mailer.spool.committer import Committer
from mailer.spool.layout import Spool

USER, PASSWORD = "app@example.com", "correct horse"
OPEN = Settings(port=0, require_auth=False)
"""Open to loopback, on a free port."""
CLOSED = Settings(port=0)
"""The same, with a login required."""


@dataclass(frozen=True)
class Receiver:
    """What a test may do with a running receiver, from its own thread."""

    address: Address
    spool: Path
    log: list[str]
    server: Server
    loop: asyncio.AbstractEventLoop

    def messages(self) -> list[bytes]:
        """Every queued message as it was submitted, without our Received field, in no order."""
        return [_message(path.read_bytes()) for path in sorted((self.spool / "new").iterdir())]

    def leftovers(self) -> list[Path]:
        return list((self.spool / "tmp").iterdir())

    def stop(self, grace_seconds: float) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(grace_seconds), self.loop).result()


@contextmanager
def running(
    directory: Path,
    settings: Settings = OPEN,
    authenticator: Authenticator | None = None,
    committer: Committer | None = None,
) -> Iterator[Receiver]:
    """Run a receiver until the block ends; whatever it logged is a list of lines."""
    if authenticator is None and settings.require_auth:
        authenticator = SingleLogin(USER, PASSWORD)
    spool = Spool.open(directory / "spool", create=True)
    lines: list[str] = []

    def sink(level: Level, text: str) -> None:
        lines.append(f"{level.name} {text}")

    committer = committer or Committer(spool)
    committer.start()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        store = Store(spool, committer, MailLog(time.time, sink), time.time)
        server = Server(settings, store, authenticator)
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        receiver = Receiver(server.addresses[0], spool.path, lines, server, loop)
        try:
            yield receiver
        finally:
            receiver.stop(5)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        committer.close()
        spool.close()


def _message(entry: bytes) -> bytes:
    """Cut the block, our Received field (three lines) and the journal off a spool file."""
    block, _, rest = entry.partition(b"Spool-Length: ")
    assert block.startswith(b"Spool-Format: 1\r\n")
    length, _, rest = rest.partition(b"\r\n")
    received, message = rest[: int(length)].split(b"+0000\r\n", 1)
    assert received.startswith(b"Received: from ")
    return message
