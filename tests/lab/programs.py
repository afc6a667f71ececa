"""What delivers mail in a world: the product's runner and sweep, put together as it does."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from lab.submitting import log_of, open_spool, take_in
from lab.world import World
from mailer.config.model import Config
from mailer.maillog.events import MailLog
from mailer.send.backoff import Backoff
from mailer.send.dsn.notify import Notifier, Terms
from mailer.send.journals import Journals
from mailer.send.policy import Policy
from mailer.send.routes.directions import Directions, Own
from mailer.send.routes.table import Table
from mailer.send.runner import Runner
from mailer.send.settle import Settler
from mailer.spool.claim import Claims
from mailer.spool.committer import Committer
from mailer.spool.disposal import Disposal
from mailer.spool.layout import Spool
from mailer.spool.pause import is_paused, resume
from mailer.spool.sweep import clean_tmp

_DIRECTIONS = Directions(Config())
_DELAY = 600.0
_ROUND = 1900.0
"""Seconds from one run to the next: longer than a message ever waits, and the minute of its bucket."""
ROUNDS = 8


@asynccontextmanager
async def _runners(world: World, spool: Spool) -> AsyncIterator["Runners"]:
    log = log_of(world, spool)
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
        self._take_in = partial(take_in, world, spool, committer, log)
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
        await self._take_in()
        runner = Runner(self._spool, self._claims, self._policy, self._settler, concurrency=10)
        await runner.once(asyncio.Event(), 60.0)


async def runner(world: World) -> None:
    """`mailer-send --once`."""
    with open_spool() as spool:
        async with _runners(world, spool) as runners:
            await runners.once()


async def drain(world: World) -> None:
    """Run until nothing is left to do: a run each half hour, and a day later the sweep of tmp/."""
    with open_spool() as spool:
        if is_paused(spool):
            resume(spool)
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
