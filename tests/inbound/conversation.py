"""Sessions of a receiver without sockets: what a client sends, piece by piece, and all that comes of it."""

import asyncio
import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inbound.receiving import login
from mailer.maillog.events import MailLog
from mailer.maillog.ledger import Ledger
from mailer.receive.context import Client, ReceiverContext
from mailer.receive.settings import Settings
from mailer.receive.smtp.session import Session
from mailer.receive.upload import Store
from mailer.receive.users.accounts import single_login
from mailer.receive.users.failures import Failures
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool

NOW = 1_800_000_000.0
_ID = re.compile(rb"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_DIGEST = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True)
class Result:
    """What came of a session; ids, and the digests of what has them, are the same in all."""

    replies: bytes
    files: tuple[bytes, ...]
    ledger: bytes
    leftovers: tuple[str, ...]


class _AtOnce(Failures):
    """Holds no answer to a failed login back."""

    def note(self, peer: str, user: str) -> float:
        super().note(peer, user)
        return 0.0


class _Wire(asyncio.Transport):
    """A connection in memory: keeps what the session says."""

    def __init__(self) -> None:
        super().__init__()
        self.said = bytearray()
        self.spoke = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += data
        self.spoke.set()

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


class Conversations:
    """One receiver, and one session with it after the other."""

    def __init__(self, settings: Settings) -> None:
        # In memory, where there is such a place: durability is not what is tried.
        memory = Path("/dev/shm")
        self._directory = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        directory = Path(self._directory.name)
        self._spool = Spool.open(directory / "spool", create=True)
        self._committer = Committer(self._spool).start()
        self._loop = asyncio.new_event_loop()
        self._log = directory / "log"
        self._log.mkdir()
        log = MailLog(lambda: NOW, lambda *_: None, Ledger(self._open_log, _fail))
        store = Store(self._spool, self._committer, log, lambda: NOW)
        self._context = ReceiverContext(settings, store, login(single_login("app", "secret")))

    @contextlib.contextmanager
    def _open_log(self) -> Iterator[int]:
        fd = os.open(self._log, os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)

    def hold(self, pieces: Sequence[bytes], *, wait: bool = False) -> Result:
        """Send these, one by one, then nothing more; forget what came of it but for the result.

        Args:
            pieces: of what the client sends.
            wait: each gets a reply, which the client waits for.
        """
        replies = self._loop.run_until_complete(self._converse(pieces, wait=wait))
        entries = list((self._spool.path / "new").iterdir())
        files = sorted(_alike(entry.read_bytes()) for entry in entries)
        ledger = b"".join(path.read_bytes() for path in self._log.iterdir())
        leftovers = tuple(path.name for path in (self._spool.path / "tmp").iterdir())
        for path in (*entries, *self._log.iterdir()):
            os.truncate(path, 0) if path.parent == self._log else path.unlink()
        return Result(_alike(replies), tuple(files), _alike(ledger), leftovers)

    async def _converse(self, pieces: Sequence[bytes], *, wait: bool) -> bytes:
        wire = _Wire()
        session = Session(
            Client("127.0.0.1", local=True), self._context, _AtOnce(time.monotonic), lambda _: None
        )
        session.connection_made(wire)
        for piece in pieces:
            wire.spoke.clear()
            session.input.buffer += piece
            session.go_on()
            # Without a wait, some pieces come while the session waits for the disk, and some after that.
            await (wire.spoke.wait() if wait else asyncio.sleep(0))
        session.eof_received()
        await session.ended
        session.connection_lost(None)
        return bytes(wire.said)

    def close(self) -> None:
        self._loop.close()
        self._committer.close()
        self._spool.close()
        self._directory.cleanup()


def _alike(data: bytes) -> bytes:
    # Digests first: 26 digits in a row, which look like an id, are in one of some thousands.
    return _ID.sub(b"ID", _DIGEST.sub(b"DIGEST", data))


def _fail(error: OSError) -> None:
    raise error
