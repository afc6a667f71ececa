"""A real receiver on a free port, with a real spool, in a thread of its own."""

import asyncio
import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trustme
from testbed.arrival import without_added

from mailer.mail.reply import Reply
from mailer.maillog.events import Fields, Level, MailLog
from mailer.maillog.stderr import logfmt
from mailer.receive.context import ReceiverContext
from mailer.receive.listen.certificate import Certificate
from mailer.receive.listen.inherited import Inherited
from mailer.receive.server import Server
from mailer.receive.settings import Address, Settings
from mailer.receive.space import Space
from mailer.receive.upload import Store, Upload
from mailer.receive.users.account import Account
from mailer.receive.users.accounts import Accounts, single_login
from mailer.receive.users.auth import Authenticator
from mailer.receive.users.local_users import LocalUser
from mailer.receive.users.rates import RateLimiter
from mailer.receive.web.messages import Lookup
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool

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
    trust: ssl.SSLContext
    """A client's context that trusts our certificate."""
    loop: asyncio.AbstractEventLoop

    def messages(self) -> list[bytes]:
        """Every queued message as it was submitted, without our Received field, in no order."""
        return [_message(path.read_bytes()) for path in sorted((self.spool / "new").iterdir())]

    def leftovers(self) -> list[Path]:
        return list((self.spool / "tmp").iterdir())

    def stop(self, grace_seconds: float) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(grace_seconds), self.loop).result()


def login(*accounts: Account, cram_md5: dict[str, str] | None = None) -> Accounts:
    """Everybody who may log in."""
    known = {account.identity.user: account for account in accounts}
    return Accounts(lambda: known, now=time.monotonic, random=os.urandom, recoverable=cram_md5)


@cache
def _authority() -> tuple[trustme.CA, ssl.SSLContext]:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return authority, context


def issue_certificate(directory: Path) -> tuple[Path, Path]:
    """Write a fresh certificate for localhost, and its key, as files."""
    issued = _authority()[0].issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    chain, key = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(str(key))
    return chain, key


def write_authority(directory: Path) -> Path:
    """Write the certificate that signs ours, for clients that trust files."""
    path = directory / "authority.pem"
    _authority()[0].cert_pem.write_to_path(str(path))
    return path


def certificate(directory: Path, events: list[str] | None = None) -> Certificate:
    """A fresh certificate for localhost, trusted by `Receiver.trust`."""
    told: list[str] = [] if events is None else events
    return Certificate(
        *issue_certificate(directory), now=time.monotonic, on_event=lambda text, _: told.append(text)
    )


async def finished(upload: Upload) -> Reply:
    """Finish a message that is right as it is, as a session does; return the reply to it."""
    reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def answer(given: Reply | Exception) -> None:
        if isinstance(given, Exception):
            reply.set_exception(given)
        else:
            reply.set_result(given)

    try:
        if (slow := upload.commit(None, encode=False, answer=answer)) is not None:
            await slow
        return await reply
    except BaseException:
        upload.discard()
        raise


@contextmanager
def running(
    directory: Path,
    settings: Settings = OPEN,
    authenticator: Authenticator | None = None,
    committer: Committer | None = None,
    inherited: tuple[Inherited, ...] = (),
    lookup: Lookup | None = None,
    **parts: Certificate | RateLimiter | Space | tuple[LocalUser, ...] | None,
) -> Iterator[Receiver]:
    """Run a receiver until the block ends; whatever it logged is a list of lines."""
    if authenticator is None and settings.require_auth:
        authenticator = login(single_login(USER, PASSWORD))
    spool = Spool.open(directory / "spool", create=True)
    lines: list[str] = []

    def sink(level: Level, text: str, told: Fields) -> None:
        lines.append(f"{level.name} {logfmt(text, told)}")

    committer = committer or Committer(spool)
    committer.start()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        store = Store(spool, committer, MailLog(time.time, sink), time.time)
        server = Server(ReceiverContext(settings, store, authenticator, **parts), inherited, lookup)
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        receiver = Receiver(server.addresses[0], spool.path, lines, server, _authority()[1], loop)
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
    """Cut the block, the fields that we add (Received, Message-ID, Date) and the journal off a spool file."""
    block, _, rest = entry.partition(b"Spool-Length: ")
    assert block.startswith(b"Spool-Format: 1\r\n")
    length, _, rest = rest.partition(b"\r\n")
    received, message = rest[: int(length)].split(b"+0000\r\n", 1)
    assert received.startswith(b"Received: ")
    return without_added(message)
