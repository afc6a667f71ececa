"""Submits the messages in `drop/` through a session, as their owners would at `submitSocket`.

So the same allowed senders, limits and log lines apply. A drop is removed once its message is durable; its
key in `once/` deduplicates it if the process dies in between. A drop that is refused permanently is kept for
the operator. Its sender gets no bounce, since nothing proves who the sender is.
"""

import asyncio
import errno
import os
import pwd
import socket
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from mailer.config.problem import ConfigError
from mailer.config.secrets import SecretError
from mailer.mail.clock import Clock
from mailer.mail.reply import Reply
from mailer.maillog.events import Level, MailLog
from mailer.receive import replies
from mailer.receive.context import ReceiverContext
from mailer.receive.drop_limits import Refusals
from mailer.receive.server import serve_one
from mailer.receive.users.local_users import PeerIds
from mailer.spool import drop
from mailer.spool.directory import Spool
from mailer.spool.drop_file import Damaged, Drop

_SCAN_INTERVAL = 10.0
"""Seconds between scans of `drop/`; drops appear only while no receiver runs."""
_MAX_BATCH = 500
"""The most drops taken in by one call of `once`, before the directory is read again."""
_MAX_WAITS = 5
"""If this many drops of one user in a row have to wait, the rest of that user's drops wait, too."""
_TOO_MANY_RECIPIENTS = "4.5.3"
"""A temporary refusal that is permanent for a drop, which cannot be sent to fewer recipients next time."""


class Pickup:
    """Takes in the messages in one spool's `drop/`. Any number of programs may do so concurrently."""

    def __init__(
        self,
        spool: Spool,
        log: MailLog,
        clock: Clock,
        context: Callable[[], ReceiverContext],
        refusals: Refusals | None = None,
    ) -> None:
        """Prepare; reads nothing yet.

        Args:
            spool: the spool with the drop directory.
            log: gets a line for each drop that is taken in, refused or delayed.
            clock: the current time.
            context: called when a drop waits; its store has a running committer.
            refusals: shared by several instances in one program; None: use a new one.
        """
        self._spool = spool
        self._log = log
        self._clock = clock
        self._context = context
        self._ending = asyncio.Event()
        self._refusals = refusals or Refusals(clock)

    def end(self) -> None:
        """Take in no more drops after the current one."""
        self._ending.set()

    async def stay(self) -> None:
        """Scan `drop/` every `_SCAN_INTERVAL` seconds until `end`; failures are logged."""
        while not self._ending.is_set():
            if await self.once():
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _SCAN_INTERVAL)

    async def once(self) -> int:
        """Take in the present drops, up to a limit; failures are logged.

        Returns:
            The number of drops taken in or refused permanently. If it is not 0, more drops may be waiting.
        """
        try:
            await asyncio.to_thread(drop.sweep, self._spool, self._clock())
            if found := await asyncio.to_thread(drop.waiting, self._spool, _MAX_BATCH):
                await asyncio.to_thread(self._refusals.look, self._spool)
                return await self._turns(self._context(), found)
        except (OSError, ConfigError, SecretError) as error:
            self._log.warning("the messages in drop/ cannot be submitted", error=str(error))
        return 0

    async def _turns(self, context: ReceiverContext, found: dict[int, list[str]]) -> int:
        """Take in drops of all users in turn; return how many went.

        A user's drops are skipped once too many of them have to wait or are refused.
        """
        gone, waits = 0, Counter[int]()
        while found:
            for uid, names in list(found.items()):
                if self._ending.is_set() or gone >= _MAX_BATCH:
                    return gone
                if self._refusals.too_many(uid) or self._refusals.pauses.lasts(uid):
                    del found[uid]
                    continue
                if await self._take(context, uid, names.pop(0)):
                    gone, waits[uid] = gone + 1, 0
                    self._refusals.pauses.went(uid)
                else:
                    waits[uid] += 1
                if not names or waits[uid] >= _MAX_WAITS:
                    if waits[uid]:
                        self._refusals.pauses.waited(uid)
                    del found[uid]
        return gone

    async def _take(self, context: ReceiverContext, uid: int, name: str) -> bool:
        """Take in one drop of a user, or refuse it permanently; return False if it has to wait."""
        try:
            taken = await asyncio.to_thread(Drop.lock, self._spool, name)
        except (Damaged, OSError) as error:
            return self._not_read(uid, name, error)
        if taken is None:
            return False
        try:
            reply = await submit(context, taken)
            if reply.positive:
                await asyncio.to_thread(taken.remove)
                self._log.notice("submitted a drop", drop=name, uid=str(taken.uid), reply=str(reply))
        except (Damaged, OSError) as error:
            return self._not_read(uid, name, error)
        finally:
            taken.release()
        if reply.permanent or reply.enhanced == _TOO_MANY_RECIPIENTS:
            return self._refuse(uid, name, f"user id {taken.uid}: {reply}")
        if not reply.positive:
            self._log.notice(
                "a drop was not submitted, and is tried again",
                drop=name,
                uid=str(taken.uid),
                reply=str(reply),
            )
        return reply.positive

    def _not_read(self, uid: int, name: str, error: Damaged | OSError) -> bool:
        if isinstance(error, Damaged):
            return self._refuse(uid, name, str(error))
        if error.errno == errno.EACCES:
            return self._refuse(uid, name, "its owner has removed the permission to read it")
        self._log.warning("a drop was not submitted, and is tried again", drop=name, error=str(error))
        return False

    def _refuse(self, uid: int, name: str, why: str) -> bool:
        """Keep a refused drop for the operator, under another name."""
        self._refusals.add(uid)
        try:
            kept = drop.refuse(self._spool, name, self._clock())
        except FileNotFoundError:
            return True  # its user has removed it
        except OSError as error:
            self._log.warning("a drop was not submitted, and is tried again", drop=name, error=str(error))
            return False
        if kept != name + drop.REFUSED:
            why = f"{why} (it is now drop/{kept}, as there was an {name}{drop.REFUSED})"
        self._log.message("drop-refused", id=name, reason=why, level=Level.WARNING)
        return True


async def submit(context: ReceiverContext, taken: Drop) -> Reply:
    """Submit a drop as its user; return the last reply, which is positive if the message is durable.

    Raises:
        Damaged, OSError: the drop could not be read; nothing is queued.
    """
    if taken.size > context.settings.max_message_size:
        return replies.MESSAGE_TOO_BIG  # the session ends at such a BDAT, and its reply may be lost
    ours, theirs = socket.socketpair()
    once = replace(context, store=replace(context.store, once=taken.once))
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
        # All recipients or none, because `mailer-sendmail` has already reported success for the message.
        if not reply.positive:
            return reply
        writer.write(command.encode("utf-8", "surrogateescape") + b"\r\n")
        reply = await _reply(reader)
    if not reply.positive:
        return reply
    writer.write(f"BDAT {taken.size} LAST\r\n".encode())
    with suppress(ConnectionError):  # the session's last reply says why
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
    """Return the owner of a file with the groups of the host's user database, since a file has only one."""
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return PeerIds(uid, frozenset())
    return PeerIds(uid, frozenset(os.getgrouplist(account.pw_name, account.pw_gid)))
