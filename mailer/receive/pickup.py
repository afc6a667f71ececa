"""Taking in what lies in `drop/`: a submission session is told of each, as by its owner at `submitSocket`.

So the same senders, limits and records hold. A drop is removed once its message is durable; its key in
`once/` keeps a death in between from queueing it twice. What is refused for good is put by for the operator.
Its sender is not told, since nothing proves who that is.
"""

import asyncio
import errno
import os
import pwd
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from mailer.config.problem import ConfigError
from mailer.config.secrets import SecretError
from mailer.mail.clock import Clock
from mailer.mail.reply import Reply
from mailer.maillog.events import Level, MailLog
from mailer.receive.local_users import PeerIds
from mailer.receive.server import serve_one
from mailer.receive.service import Service
from mailer.spool import drop
from mailer.spool.drop import Damaged, Drop
from mailer.spool.layout import Spool

_EVERY = 10.0
"""Seconds between looks: mail comes here only while no receiver runs, or restarts."""
_AT_ONCE = 100
"""Drops of one user that are looked at before the directory is read again, and others get their turn."""


class Pickup:
    """Takes in what users have left in one spool's `drop/`. Any number of programs may do so at once."""

    def __init__(self, spool: Spool, log: MailLog, clock: Clock, service: Callable[[], Service]) -> None:
        """Look at nothing yet.

        Args:
            spool: whose drop directory.
            log: told of what is taken in, and what is not.
            clock: what time it is.
            service: asked when something waits; its store has a running committer.
        """
        self._spool = spool
        self._log = log
        self._clock = clock
        self._service = service
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Begin nothing more."""
        self._ending.set()

    async def stay(self) -> None:
        """Look every now and then, until `end`; what cannot be done is logged."""
        while not self._ending.is_set():
            await self.once()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _EVERY)

    async def once(self) -> None:
        """Take in what there is, as long as that goes on; what cannot be done is logged."""
        try:
            await asyncio.to_thread(drop.sweep, self._spool, self._clock())
            if found := await self._look():
                service = self._service()
                while found and await self._turns(service, found):
                    found = await self._look()
        except (OSError, ConfigError, SecretError) as error:
            self._log.warning("what lies in drop/ cannot be taken in", error=str(error))

    async def _look(self) -> dict[int, list[str]]:
        return await asyncio.to_thread(drop.waiting, self._spool, _AT_ONCE)

    async def _turns(self, service: Service, found: dict[int, list[str]]) -> int:
        """Take in one of each user in turn, but of none whose mail has to wait; return how many went."""
        gone = 0
        while found and not self._ending.is_set():
            for uid, names in list(found.items()):
                if await self._take(service, names.pop(0)):
                    gone += 1
                else:
                    names.clear()
                if not names:
                    del found[uid]
        return gone

    async def _take(self, service: Service, name: str) -> bool:
        """Take one drop in, or put it by; False: it has to wait."""
        try:
            taken = await asyncio.to_thread(Drop.take, self._spool, name)
        except (Damaged, OSError) as error:
            return self._not_read(name, error)
        if taken is None:
            return False
        try:
            reply = await submit(service, taken)
            if reply.positive:
                await asyncio.to_thread(taken.remove)
                self._log.notice("took a drop in", drop=name, uid=str(taken.uid), reply=str(reply))
        except (Damaged, OSError) as error:
            return self._not_read(name, error)
        finally:
            taken.release()
        if reply.permanent:
            return self._refuse(name, f"user id {taken.uid}: {reply}")
        if not reply.positive:
            self._log.notice("a drop has to wait", drop=name, uid=str(taken.uid), reply=str(reply))
        return reply.positive

    def _not_read(self, name: str, error: Damaged | OSError) -> bool:
        if isinstance(error, Damaged):
            return self._refuse(name, str(error))
        if error.errno == errno.EACCES:
            return self._refuse(name, "its user has taken the right to read it away")
        self._log.warning("a drop has to wait", drop=name, error=str(error))
        return False

    def _refuse(self, name: str, why: str) -> bool:
        """Put a drop by for the operator."""
        try:
            drop.refuse(self._spool, name)
        except FileNotFoundError:
            return True  # its user has removed it
        except OSError as error:
            self._log.warning("a drop has to wait", drop=name, error=str(error))
            return False
        self._log.message("drop-refused", id=name, reason=why, level=Level.WARNING)
        return True


async def submit(service: Service, taken: Drop) -> Reply:
    """Submit a drop as its user; return the last reply, which is positive if the message is durable.

    Raises:
        Damaged, OSError: it could not be read; nothing is queued.
    """
    ours, theirs = socket.socketpair()
    once = replace(service, store=replace(service.store, once=taken.once))
    serving = asyncio.create_task(serve_one(once, theirs, _ids(taken.uid)))
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    try:
        return await _say(reader, writer, taken)
    except ConnectionError:
        return Reply(421, ("4.3.0 the session ended",))
    finally:
        writer.close()
        await serving


async def _say(reader: StreamReader, writer: StreamWriter, taken: Drop) -> Reply:
    reply = await _reply(reader)
    for command in ("EHLO localhost", *taken.commands):
        # All or nothing, as `mailer-sendmail` has it: its caller was told that all is well, or nothing.
        if not reply.positive:
            return reply
        writer.write(command.encode("utf-8", "surrogateescape") + b"\r\n")
        reply = await _reply(reader)
    if not reply.positive:
        return reply
    writer.write(f"BDAT {taken.size} LAST\r\n".encode())
    with suppress(ConnectionError):  # its last reply says why
        for piece in taken.read():
            writer.write(piece)
            await writer.drain()
    return await _reply(reader)


async def _reply(reader: StreamReader) -> Reply:
    lines = []
    while True:
        line = (await reader.readline()).decode("utf-8", "replace").rstrip("\r\n")
        if len(line) < 4:
            raise ConnectionResetError
        lines.append(line[4:])
        if line[3] != "-":
            return Reply(int(line[:3]), tuple(lines))


def _ids(uid: int) -> PeerIds:
    """Return whose program made a file: of its groups the host's list tells, for a file has only one."""
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return PeerIds(uid, frozenset())
    return PeerIds(uid, frozenset(os.getgrouplist(account.pw_name, account.pw_gid)))
