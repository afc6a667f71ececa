"""`mailer spool move` to another spool of this host: two programs at the ends of two pipes."""

import asyncio
import os
from collections.abc import Iterator
from functools import partial

from lab import judge
from lab.submitting import open_spool
from lab.world import OTHER, SPOOL, World
from mailer.spool.directory import Spool
from mailer.spool.handover.alone import Occupied, alone
from mailer.spool.handover.arriving import serve
from mailer.spool.handover.leaving import MOVABLE
from mailer.spool.handover.mover import Mover, Result
from mailer.spool.handover.wire import Broken, Greeting, Pipe
from mailer.spool.journal import Kind
from mailer.spool.layout import Spot
from mailer.spool.mark import identity
from mailer.spool.view.inspect import listing

_TIMES = 20
_PAUSE = 10.0
LONGEST = (_TIMES + 1) * _PAUSE
"""Seconds that `finish` takes at most."""


async def move(world: World, number: int = 9, *, resumes: bool = False) -> None:
    """Hand all messages over to the other spool, or those whose move was interrupted."""
    ends: list[int] = []
    with open_spool() as spool:
        target = world.start(f"target {number}", partial(_take_in, ends))
        kernel, source = world.kernel, world.kernel.owner
        there, back = kernel.pipe(target, source), kernel.pipe(source, target)
        ends += (there[0], back[1])
        pipe = Pipe(back[0], there[1])
        try:
            where = pipe.greet(Greeting(f"host:{SPOOL}", ""))
            with alone(spool):
                _hand_over(world, spool, Mover(spool, pipe, "operator", world.wall, where), resumes=resumes)
        except (Broken, Occupied):
            pass
        finally:
            os.close(back[0])
            os.close(there[1])


def _hand_over(world: World, spool: Spool, mover: Mover, *, resumes: bool) -> None:
    for outcome in mover.move(_chosen(spool, world.wall(), resumes=resumes), resumes=resumes):
        if outcome.result is Result.DONE:
            world.log.moved.add(outcome.spot.name)
            world.log.version += 1


def _chosen(spool: Spool, now: float, *, resumes: bool) -> Iterator[Spot]:
    for seen in listing(spool, now, MOVABLE):
        begun = seen.entry.state.move if seen.entry else None
        if not resumes or (begun and begun.event != Kind.ARRIVING):
            yield seen.spot


async def _take_in(ends: list[int], world: World) -> None:
    try:
        with open_spool(OTHER) as spool:
            here = Greeting(f"host:{OTHER}", identity(spool.root))
            with alone(spool):
                pipe = Pipe(*ends)
                serve(spool, pipe, here, world.wall, min_free=0, on_arrival=lambda *_: None)
    except (Broken, Occupied):
        pass
    finally:
        for end in ends:
            os.close(end)


async def finish(world: World) -> None:
    """Resume until no message is between the spools; then, now and then, move the rest."""
    for _ in range(_TIMES):
        await move(world, resumes=True)
        if not judge.between(world.disk):
            break
        await asyncio.sleep(_PAUSE)
    if world.random.random() < 0.5:
        await move(world)
