"""Wait for a slot: one of the connections to a hop that all runners together may have (`Hop.slots`)."""

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
"""Seconds between two attempts to take a slot."""

PATIENCE = 60.0
"""Seconds to wait for a slot before the mail takes another route or goes to `retry/`: a runner that is
stopped, or whose server does not answer, must not block all the others."""

PAUSE = 60.0
"""Seconds after such a vain wait during which a delivery that finds no free slot fails without waiting."""

ABANDONED = 1.0
"""Seconds to wait before reusing a slot whose connection was not closed in order: the server may not have
noticed yet."""


class Places:
    """Takes slots for one run, and gives up when none comes free."""

    def __init__(self, *, patience: float = PATIENCE, clock: Clock = time) -> None:
        """Prepare; args: patience: seconds to wait for a slot; clock: returns the wall-clock time."""
        self._patience = patience
        self._clock = clock
        self._taken: dict[Slots, float] = {}
        """When this run last took one of these slots, in the loop's time."""
        self._given_up: dict[Slots, float] = {}
        """When it last waited for one in vain, in the loop's time."""

    async def take(self, slots: "Slots", hop: str) -> "Slot":
        """Wait for a slot; args: hop: its name as in outcomes.

        Raises:
            Resting: no slot became free; no connection was tried.
            OSError: as `Slots.acquire`.
        """
        slot = None if slots.wanted() else slots.acquire()
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
            if slot := slots.acquire():
                return slot
            # While other deliveries of this run get slots, the hop is only busy: the time starts again.
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
