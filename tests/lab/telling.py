"""Who is told what becomes of mail (`onEvent`), and cannot always take it: outside of the faulted machine."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from lab.submitting import log_of, open_spool
from lab.world import World
from mailer.config.calls import OnEvent
from mailer.events.deliverer import LONGEST, Deliverer
from mailer.events.event import Event
from mailer.events.receiver import Answer, Verdict

_LOOKS = 30


class Listener:
    """Takes batches, or does not."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def give(self, events: Sequence[Event]) -> Answer:
        world = self._world
        await asyncio.sleep(0.01)
        if world.on_call is not None and world.random.random() < 0.3:
            return Answer(Verdict.LATER, "it is down")
        world.log.told += [(event.queue_id, event.to, event.event) for event in events]
        world.log.version += 1
        return Answer(Verdict.TAKEN)


def teller(looks: int = _LOOKS, *, every: float = LONGEST) -> Callable[[World], Awaitable[None]]:
    """A program that tells what the ledger says."""

    async def main(world: World) -> None:
        with open_spool() as spool:
            log = log_of(world, spool)
            deliverer = Deliverer(OnEvent(), spool, log, world.wall, world.random.random)
            deliverer._receiver = Listener(world)  # type: ignore[assignment]
            deliverer.begin()
            for _ in range(looks):
                if await deliverer.round() and looks == _LOOKS:
                    break
                await asyncio.sleep(every)

    return main
