"""The wait for one of the connections that all runners together may have (`Hop.slots`)."""

import asyncio
import math
from time import time
from typing import TYPE_CHECKING

from mailer.mail.clock import Clock
from mailer.mail.outcome import Scope
from mailer.send.phase import Phase
from mailer.send.trouble import Resting

if TYPE_CHECKING:
    from mailer.spool.state.slots import Slot, Slots

LOOK = 0.1
"""Seconds between looks for a free slot."""

PATIENCE = 60.0
"""Seconds without a free slot after which mail goes to `retry/`, or another way: a program that was stopped,
or whose server does not answer, must not stop all the others."""

PAUSE = 60.0
"""Seconds for which nothing waits for a slot after that."""

ABANDONED = 1.0
"""Seconds until a slot is used again whose session was cut: the other side may not have noticed yet."""


class Places:
    """Takes slots for one run, and gives up when none comes free."""

    def __init__(self, *, patience: float = PATIENCE, clock: Clock = time) -> None:
        """Prepare; args: patience: seconds to wait; clock: what time it is."""
        self._patience = patience
        self._clock = clock
        self._taken: dict[Slots, float] = {}
        """When this run last took a slot of these."""
        self._given_up: dict[Slots, float] = {}
        """When it last waited for one in vain."""

    async def take(self, slots: "Slots", hop: str) -> "Slot":
        """Wait for a slot; args: hop: as outcomes name it.

        Raises:
            Resting: none came free; nothing was tried.
            OSError: as `Slots.take`.
        """
        slot = None if slots.wanted() else slots.take()
        if slot is None:
            with slots.waiting():
                slot = await self._wait(slots, hop)
        self._taken[slots] = self._now()
        self._given_up.pop(slots, None)
        if slot.abandoned:
            try:
                await asyncio.sleep(ABANDONED)
            except BaseException:
                slot.release(in_order=False)
                raise
        return slot

    async def _wait(self, slots: "Slots", hop: str) -> "Slot":
        began = self._now()
        while True:
            if slot := slots.take():
                return slot
            # As long as others of this run get theirs, it is a queue.
            if self._now() - max(began, self._taken.get(slots, began)) >= self._patience:
                self._given_up[slots] = self._now()
            if self._now() < self._given_up.get(slots, -math.inf) + PAUSE:
                raise self._none_free(slots, hop)
            await asyncio.sleep(LOOK)

    def _none_free(self, slots: "Slots", hop: str) -> Resting:
        text = f"not tried, since none of the {slots} was free for {self._patience:.0f} s"
        if users := slots.users():
            text += f"; in use by process {', '.join(users)}"
        return Resting(hop, Phase.CONNECT, text, scope=Scope.PROVIDER, until=self._clock() + PAUSE)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
