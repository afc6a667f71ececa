"""The receiver's rate limits over several hosts: what the others accept counts here within some seconds."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from mailer.cli.receiving.rates import submitted
from mailer.maillog.lines import decode
from mailer.maillog.tail import Tail
from mailer.receive.users.rates import RateLimiter, Sent
from mailer.spool.directory import Spool
from mailer.spool.hosts.neighbours import others
from mailer.spool.layout import LOG

LOOK_EVERY = 5.0
"""Seconds between two looks into the ledgers of the other hosts. All hosts together may exceed a limit by
what the others accept in that time."""


class OthersMail:
    """Follows the ledgers of the other hosts, from the moment when it is made."""

    def __init__(self, spool: Spool) -> None:
        """Begin; a limiter that is made from the ledgers after this misses nothing."""
        self._spool = spool
        self._tails: dict[str, Tail] = {}
        """By host."""
        self.look()

    async def count(self, limiter: Callable[[], RateLimiter | None]) -> None:
        """Count what the others accept, until this is cancelled; args: limiter: the one that is in use."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            # In a thread, because a filesystem over a network may hang.
            found = await asyncio.to_thread(self.look)
            if (rates := limiter()) is not None:
                for each in found:
                    rates.count_elsewhere(each)

    def look(self) -> list[Sent]:
        """Return what other hosts have accepted since the last look; one that cannot be read is skipped."""
        found: list[Sent] = []
        with suppress(OSError):
            for each in others(self._spool):
                with suppress(OSError):
                    found += self._added(each)
        return found

    def _added(self, other: Spool) -> list[Sent]:
        directory = partial(other.directory, LOG)
        if (known := self._tails.get(other.path.name)) is None:
            self._tails[other.path.name] = tail = Tail(directory)
            tail.skip()
            return []
        # The spool is opened anew for each look, and the positions are kept.
        self._tails[other.path.name] = tail = Tail(directory, known.positions)
        lines = (decode(raw) for block in tail.blocks() for raw in block.split(b"\n"))
        return [sent for line in lines if line and (sent := submitted(line))]
