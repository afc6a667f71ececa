"""What delivers mail in a world: the product's runner and sweep, put together as it does."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from lab.hops import HOP, Hop
from lab.operating import examine
from lab.submitting import log_of, open_spool, take_in
from lab.world import SPOOL, World
from mailer.config.model import Config
from mailer.mail.budget import Allowance
from mailer.maillog.events import MailLog
from mailer.send import idle
from mailer.send.backoff import Backoff
from mailer.send.budgets import Budgets
from mailer.send.context import RunContext
from mailer.send.dsn.notify import NotificationSettings, Notifier
from mailer.send.journals import Journals
from mailer.send.routes.directions import Directions, Own
from mailer.send.routes.table import Table
from mailer.send.runner import Runner
from mailer.send.settle import Settler
from mailer.send.smtp.places import Places
from mailer.send.suppressed import Suppressed
from mailer.spool.background_close import BackgroundClose
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.run.claim import Claims
from mailer.spool.run.sweep import clean_tmp
from mailer.spool.state.clock_guard import ClockGuard
from mailer.spool.state.pause import is_paused, resume
from mailer.spool.state.slots import Slots

_CONFIG = Config()
_DIRECTIONS = Directions(_CONFIG)
_DELAY = 600.0
_ROUND = 1900.0
"""Seconds from one run to the next: longer than a message ever waits, and the minute of its bucket."""
ROUNDS = 8


@asynccontextmanager
async def _runners(world: World, spool: Spool) -> AsyncIterator["Runners"]:
    log = log_of(world, spool)
    committer, background = Committer(spool).start(), BackgroundClose()
    clocks = world.clocks()
    guard = idle.guard(spool, clocks, log) if world.story.jumps or world.story.limits else None
    try:
        async with Budgets(_CONFIG, spool, clocks, guard.trusts if guard else lambda: True) as budgets:
            yield Runners(world, spool, log, committer, background, budgets, guard)
    finally:
        committer.close()
        background.close_all()


class Runners:
    """All that surrounds a run, as `mailer.send.run` puts it together; the routes are the story's."""

    def __init__(  # noqa: PLR0917 - as `mailer.send.run`
        self,
        world: World,
        spool: Spool,
        log: MailLog,
        committer: Committer,
        background: BackgroundClose,
        budgets: Budgets,
        guard: ClockGuard | None,
    ) -> None:
        self._spool = spool
        self._take_in = partial(take_in, world, spool, committer, log)
        backoff = Backoff((_DELAY,), 30 * 86400.0)
        self._context = RunContext(
            routes=Table(_DIRECTIONS, {Own.LOCAL: _hop(world, spool, budgets)}, world.random.random),
            backoff=backoff,
            hold_uncertain=world.story.hold_uncertain,
            log=log,
            clock=world.wall,
            random=world.random.random,
            journals=Journals(committer),
            archive_max_age=300 * 86400.0,
            idempotency_window=7 * 86400.0,
            guard=guard,
            budgets=budgets if world.story.limits else None,
            suppressed=Suppressed(_CONFIG, spool, world.wall),
        )
        self._claims = Claims(spool, world.wall, world.boot, lambda *_: None, lambda *_: None)
        settings = NotificationSettings(lambda sender: sender, "relay.example.com", 0.0, backoff.max_age)
        self._settler = Settler(
            committer,
            background,
            Notifier(spool, committer, settings, log),
            horizon=backoff.horizon,
            archive=world.story.archive,
        )

    async def once(self) -> None:
        await self._take_in()
        runner = Runner(self._spool, self._claims, self._context, self._settler, concurrency=10)
        await runner.once(asyncio.Event(), 60.0)


def _hop(world: World, spool: Spool, budgets: Budgets) -> Hop:
    hop, story = world.hop(), world.story
    allowed = Allowance(per_minute=story.per_minute, per_hour=story.per_hour)
    hop.budget = budgets.share("account", allowed, HOP, "the hop")
    if story.sessions:
        hop.places, hop.slots = Places(clock=world.wall), Slots(spool, "account", story.sessions)
    return hop


async def runner(world: World, path: str = SPOOL) -> None:
    """`mailer-send --once`."""
    with open_spool(path) as spool:
        async with _runners(world, spool) as runners:
            await runners.once()


async def drain(world: World, path: str = SPOOL) -> None:
    """Run until nothing is left to do: a run each half hour, and a day later the sweep of tmp/."""
    with open_spool(path) as spool:
        if is_paused(spool):
            resume(spool)
        async with _runners(world, spool) as runners:
            if world.in_tmp() and world.random.random() < 0.3:
                # Another program's sweep, long after.
                clean_tmp(spool, math.inf)
            # What is allowed in an hour is used up once in two runs.
            for _ in range(ROUNDS if not world.story.limits else 5 * ROUNDS):
                await runners.once()
                if not world.waiting():
                    break
                await asyncio.sleep(_ROUND)
            await asyncio.sleep(1.0)
            if world.in_tmp():
                clean_tmp(spool, math.inf)
        if world.examines:
            examine(world, spool)
