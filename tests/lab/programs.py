"""What runs in a world: the product's receiver side, runner, sweep and operator, put together as it does."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from lab.hops import Ack
from lab.story import Command, Mail
from lab.world import SPOOL, World, content_of
from mailer.config.model import Config
from mailer.mail.envelope import Envelope, Recipient
from mailer.maillog.events import Fields, Level, MailLog
from mailer.maillog.ledger import Ledger
from mailer.send.backoff import Backoff
from mailer.send.dsn.notify import Notifier, Terms
from mailer.send.journals import Journals
from mailer.send.policy import Policy
from mailer.send.routes.directions import Directions, Own
from mailer.send.routes.table import Table
from mailer.send.runner import Runner
from mailer.send.settle import Settler
from mailer.spool.changes import NotUndone
from mailer.spool.claim import Claims
from mailer.spool.committer import Committer
from mailer.spool.disposal import Disposal
from mailer.spool.entry import Corrupt
from mailer.spool.held import Missed, Unsafe
from mailer.spool.incoming import Incoming
from mailer.spool.layout import Place, Spool
from mailer.spool.operate import Operator, Refused
from mailer.spool.scan import find
from mailer.spool.sweep import clean_tmp

_DIRECTIONS = Directions(Config())
_DELAY = 600.0
_ROUND = 1900.0
"""Seconds from one run to the next: longer than a message ever waits, and the minute of its bucket."""
ROUNDS = 8


def _open(*, create: bool = True) -> Spool:
    return Spool.open(Path(SPOOL), create=create)


def _log(world: World, spool: Spool) -> MailLog:
    def say(_level: Level, text: str, fields: Fields) -> None:
        if text == "defect":
            world.log.violations.append(f"a defect: {dict(fields)}")

    return MailLog(world.wall, say, Ledger(lambda: spool.directory("log"), lambda _: None))


async def make_spool(_: World) -> None:
    with _open():
        pass


def receiver(mails: list[Mail]):
    """A receiver with its clients: each message is answered with 250, or 452, or not at all."""

    async def main(world: World) -> None:
        with _open() as spool:
            log, committer = _log(world, spool), Committer(spool).start()
            try:
                await asyncio.gather(*[_submit(world, spool, log, committer, mail) for mail in mails])
            finally:
                committer.close()

    return main


async def _submit(world: World, spool: Spool, log: MailLog, committer: Committer, mail: Mail) -> None:
    await asyncio.sleep(mail.after)
    envelope = Envelope(mail.sender, tuple(map(Recipient, mail.recipients)))
    try:
        incoming = Incoming.create(spool, received=world.wall(), user="", peer="127.0.0.1", envelope=envelope)
    except OSError:
        world.log.refused.append(mail.token)
        return
    try:
        incoming.write(content_of(mail.token, mail.size))
        incoming.seal(world.wall())
    except OSError:
        with suppress(OSError):
            incoming.discard()
        world.log.refused.append(mail.token)
        return
    try:
        await committer.commit_in_loop(incoming)
    except NotUndone:
        return  # The connection is closed without an answer.
    except OSError:
        world.log.refused.append(mail.token)
        return
    log.accepted(id=incoming.id, envelope=envelope, size=incoming.size, user="", peer="127.0.0.1")
    world.log.acks.append(Ack(mail.token, world.wall()))
    world.log.version += 1
    committer.sync_soon(Place.TMP.value)
    incoming.release()


@asynccontextmanager
async def _runners(world: World, spool: Spool) -> AsyncIterator["Runners"]:
    log = _log(world, spool)
    committer, disposal = Committer(spool).start(), Disposal()
    try:
        yield Runners(world, spool, log, committer, disposal)
    finally:
        committer.close()
        disposal.finish()


class Runners:
    """All that surrounds a run, as `mailer.send.run` puts it together; the routes are the story's."""

    def __init__(
        self, world: World, spool: Spool, log: MailLog, committer: Committer, disposal: Disposal
    ) -> None:
        self._spool = spool
        backoff = Backoff((_DELAY,), 30 * 86400.0)
        self._policy = Policy(
            routes=Table(_DIRECTIONS, {Own.LOCAL: world.hop()}, world.random.random),
            backoff=backoff,
            hold_uncertain=world.story.hold_uncertain,
            log=log,
            clock=world.wall,
            random=world.random.random,
            journals=Journals(committer),
            archive_max_age=300 * 86400.0,
        )
        self._claims = Claims(spool, world.wall, world.boot, lambda *_: None, lambda *_: None)
        terms = Terms(lambda sender: sender, "relay.example.com", 0.0, backoff.max_age)
        self._settler = Settler(
            committer,
            disposal,
            Notifier(spool, committer, terms, log),
            horizon=backoff.horizon,
            archive=world.story.archive,
        )

    async def once(self) -> None:
        runner = Runner(self._spool, self._claims, self._policy, self._settler, concurrency=10)
        await runner.once(asyncio.Event(), 60.0)


async def runner(world: World) -> None:
    """`mailer-send --once`."""
    with _open() as spool:
        async with _runners(world, spool) as runners:
            await runners.once()


def operator(commands: list[Command]):
    """Somebody at the command line."""

    async def main(world: World) -> None:
        with _open() as spool:
            who = Operator(spool, "operator")
            began = world.scheduler.now
            for command in commands:
                await asyncio.sleep(max(0.0, began + command.after - world.scheduler.now))
                with suppress(Missed, Unsafe, Refused, Corrupt, OSError):
                    _command(world, spool, who, command)

    return main


def _command(world: World, spool: Spool, who: Operator, command: Command) -> None:
    name = world.id_of(command.token)
    for spot in find(spool, name) if name else []:
        match command.verb:
            case "retry":
                world.log.reopened[command.token] += 1
                who.retry(spot, world.wall())
            case "hasten":
                world.log.reopened[command.token] += 1
                who.hasten(spot, world.wall())
            case "hold":
                world.log.held.append(command.token)
                who.hold(spot, world.wall())
            case "release":
                who.release(spot, world.wall())
            case "rm":
                world.log.removed.append(command.token)
                who.remove(spot)


async def drain(world: World) -> None:
    """Run until nothing is left to do: a run each half hour, and a day later the sweep of tmp/."""
    with _open() as spool:
        async with _runners(world, spool) as runners:
            if world.in_tmp() and world.random.random() < 0.3:
                # Another program's sweep, long after.
                clean_tmp(spool, math.inf)
            for _ in range(ROUNDS):
                await runners.once()
                if not world.waiting():
                    break
                await asyncio.sleep(_ROUND)
            await asyncio.sleep(1.0)
            if world.in_tmp():
                clean_tmp(spool, math.inf)
