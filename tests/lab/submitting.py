"""What brings mail in: receivers with their clients, users at `drop/`, and who takes that in."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lab import judge
from lab.hops import Ack
from lab.story import Mail
from lab.world import SPOOL, World, content_of
from mailer.mail.envelope import Envelope, Recipient
from mailer.mail.reply import Reply
from mailer.maillog.events import Fields, Level, MailLog
from mailer.maillog.ledger import Ledger
from mailer.receive.content.header_policy import ContentPolicy, Origin
from mailer.receive.upload import Store, Upload
from mailer.sendmail.drop import hand_over
from mailer.sendmail.failure import Failure
from mailer.spool import drop, drop_file
from mailer.spool.changes import NotUndone
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.key_file import name_of_replay
from mailer.spool.view.inspect import View

Main = Callable[[World], Awaitable[None]]
_TRIES = 5
"""How often a client with a key submits until it hears a reply."""
_POLICY = ContentPolicy()


def open_spool(path: str = SPOOL) -> Spool:
    return Spool.open(Path(path), create=True)


def log_of(world: World, spool: Spool) -> MailLog:
    def say(_level: Level, text: str, fields: Fields) -> None:
        current = world.scheduler.current
        if text == "defect" and current is not None and not current.program.dead:
            world.log.violations.append(f"a defect: {dict(fields)}")

    return MailLog(world.wall, say, Ledger(lambda: spool.directory("log"), lambda _: None))


def make_spool(*, drops: bool) -> Main:
    async def main(_: World) -> None:
        with open_spool() as spool:
            drop.prepare(spool, wanted=drops)

    return main


def receiver(mails: Iterable[Mail]) -> Main:
    """A receiver with its clients: each message is answered with 250, or 452, or not at all."""

    async def main(world: World) -> None:
        with open_spool() as spool:
            committer = Committer(spool).start()
            store = _store(world, spool, committer, log_of(world, spool))
            try:
                await asyncio.gather(*[_submit(world, store, mail) for mail in mails])
                await take_in(world, spool, committer, store.log)
            finally:
                committer.close()

    return main


def _store(world: World, spool: Spool, committer: Committer, log: MailLog) -> Store:
    clocks = world.clocks()
    return Store(spool, committer, log, world.wall, clocks.boot, clocks.uptime)


async def _submit(world: World, store: Store, mail: Mail) -> None:
    await asyncio.sleep(mail.after)
    envelope = Envelope(mail.sender, tuple(map(Recipient, mail.recipients)))
    content = content_of(mail.token, mail.size)
    if mail.key:
        content = f"Idempotency-Key: {mail.token}\r\n".encode() + content
    for _ in range(_TRIES if mail.key else 1):
        scheduled = world.begun + mail.wait if mail.wait else 0.0
        reply = await _upload(store, envelope, content, "app", scheduled)
        if reply is not None and reply.positive:
            world.log.acks.append(Ack(mail.token, world.time()))
            world.log.version += 1
            return
        if mail.key:
            await asyncio.sleep(0.5)
        elif reply is not None:
            world.log.refused.append(mail.token)


def replayer(mail: Mail) -> Main:
    """The operator sends a message again; the lab's token stands for the Resent- fields."""

    async def main(world: World) -> None:
        await asyncio.sleep(mail.after)
        with open_spool() as spool:
            committer = Committer(spool).start()
            store = _store(world, spool, committer, log_of(world, spool))
            try:
                for _ in range(_TRIES if mail.key else 1):
                    if await _replay(world, store, mail):
                        break
                    await asyncio.sleep(0.5)
            finally:
                committer.close()

    return main


async def _replay(world: World, store: Store, mail: Mail) -> bool:
    """Make one request; return whether it was said that the copy is queued."""
    found = judge.file_of(world.disk, mail.replays)
    try:
        view = View.find(store.spool, found.name) if found else None
        if view is None:
            return False
        with view:
            entry = view.entry()
            view.check(entry)
            content = f"X-Token: {mail.token}\r\n".encode() + b"".join(view.message(entry))
    except (Corrupt, TimeoutError, OSError):
        return False
    once = name_of_replay(mail.token) if mail.key else ""
    envelope = Envelope(mail.sender, tuple(map(Recipient, mail.recipients)))
    reply = await _upload(
        replace(store, replays=found.name, by="operator", once=once), envelope, content, "app"
    )
    if reply is not None and reply.positive:
        world.log.acks.append(Ack(mail.token, world.time()))
        world.log.version += 1
    elif reply is not None and not mail.key:
        world.log.refused.append(mail.token)
    return reply is not None and reply.positive


async def _upload(
    store: Store, envelope: Envelope, content: bytes, user: str, scheduled: float = 0.0
) -> Reply | None:
    """Do what a session does between DATA and its reply; None: the connection is closed without one."""
    origin = Origin("localhost", "127.0.0.1", "relay.example.com", extended=True, user=user, smtputf8=False)
    try:
        upload = Upload(store, envelope, origin, _POLICY, scheduled=scheduled)
    except OSError:
        return Reply(452, ("4.3.1 no file",))
    upload.append(content)
    ended: asyncio.Future[Reply | Exception] = asyncio.get_running_loop().create_future()
    rest = upload.commit(None, encode=False, answer=ended.set_result)
    if rest is not None:
        await rest
    answer = await ended
    if isinstance(answer, Exception) and not isinstance(answer, NotUndone):
        raise answer
    return answer if isinstance(answer, Reply) else None


def user(mails: Iterable[Mail]) -> Main:
    """Somebody who may not write to the spool, and runs `mailer-sendmail`."""

    async def main(world: World) -> None:
        began = world.scheduler.now
        for mail in sorted(mails, key=lambda mail: mail.after):
            await asyncio.sleep(max(0.0, began + mail.after - world.scheduler.now))
            commands = [f"MAIL FROM:<{mail.sender}>", *(f"RCPT TO:<{to}>" for to in mail.recipients)]
            with suppress(Failure):
                hand_over(f"{SPOOL}/drop", commands, content_of(mail.token, mail.size))
                world.log.acks.append(Ack(mail.token, world.time()))
                world.log.version += 1

    return main


async def take_in(world: World, spool: Spool, committer: Committer, log: MailLog) -> None:
    """Do what `receive.pickup` does, but for the session."""
    store = _store(world, spool, committer, log)
    drop.sweep(spool, world.wall())
    for names in drop.waiting(spool, 500).values():
        for name in names:
            with suppress(OSError):
                await _take_one(store, name)


async def _take_one(store: Store, name: str) -> None:
    try:
        taken = drop_file.Drop.lock(store.spool, name)
    except drop_file.Damaged:
        drop.refuse(store.spool, name, store.clock())
        return
    if taken is None:
        return
    try:
        mail, *to = (command.partition(":<")[2].rstrip(">") for command in taken.commands)
        envelope = Envelope(mail, tuple(map(Recipient, to)))
        once = replace(store, once=taken.once)
        reply = await _upload(once, envelope, b"".join(taken.read()), f"uid{taken.uid}")
        if reply is not None and reply.positive:
            await asyncio.to_thread(taken.remove)
    finally:
        taken.release()
