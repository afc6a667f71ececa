"""The runner: delivers several messages concurrently, until none is ready or it is asked to stop."""

import asyncio
import contextlib
from time import monotonic

from mailer.ground.lazy_task import LazyTask
from mailer.send.active import ActiveMessages
from mailer.send.context import RunContext
from mailer.send.destination_queues import DestinationQueues
from mailer.send.queue_scan import QueueScan
from mailer.send.settle import Settler
from mailer.send.skipped import Skipped
from mailer.send.worker import Tally, Worker
from mailer.spool.directory import SPOOL_WIDE, Spool
from mailer.spool.run.arrivals import Arrivals
from mailer.spool.run.claim import Claim, Claims
from mailer.spool.state.pause import is_paused

ERROR_PAUSE = 30.0
"""Seconds that a long-running runner waits after a disk error."""
MAX_PUT_BACK = 50
"""Messages put back for full destinations before control returns to the event loop."""
SCAN_INTERVAL = 0.1
"""Seconds between scans of `new/` where inotify is not available."""
ALONE_LIMIT = 5.0
"""The most seconds that a suspect runs alone, or waits to run alone. A message that kills its runner does so
within that time, and a server that does not answer must not stop all other mail."""
_BUDGET_WAIT = 61.0
"""The most seconds that a run which ends when nothing is ready waits for a budget: a one-minute window,
rounded up."""
_BUDGET_POLL = 1.0
"""Seconds between checks of budgets that are used up."""
PAUSE_POLL = 1.0
"""Seconds between checks of whether the operator has paused or resumed sending."""


class Stopped(OSError):
    """The run ended early because the spool could not be read or written."""


class Runner:
    """One run over one spool. Any number of runners may work on the same spool concurrently."""

    def __init__(
        self,
        spool: Spool,
        claims: Claims,
        context: RunContext,
        settler: Settler,
        *,
        concurrency: int,
        limit: int = 0,
    ) -> None:
        """Prepare a run.

        Args:
            spool: the spool to work on.
            claims: takes this runner's locks on messages.
            context: how to try a message.
            settler: moves a message after its attempt.
            concurrency: the most messages in progress at a time.
            limit: the most messages to claim in this run; 0 means no limit.
        """
        self._spool = spool
        self._context = context
        self._settler = settler
        self._concurrency = concurrency
        self._limit = limit
        self._skipped = Skipped(monotonic)
        self._scan = QueueScan(spool, claims, context, self._skipped)
        self._queues = DestinationQueues(context.destinations, concurrency, context.routes.goes_direct)
        self._scan.leave_alone = self._queues.names
        self._suspect: Claim | None = None
        """A claimed suspect that waits until no other message is active, so that it can be tried alone."""
        self._alone: Claim | None = None
        """The suspect that is being tried alone; nothing else is started meanwhile."""
        self._trouble: OSError | None = None
        self._closing = False
        self._draining = False
        """Whether the run ends, so that nothing is started any more."""
        self._paused = False
        self._look_for_pause = float("-inf")
        shares = [route.budget for route in context.routes.all]
        self._shares = [share for share in shares if share] if all(shares) else []
        """One budget for each route; empty if some route has none, since mail can then always leave."""
        self._opens: asyncio.TimerHandle | None = None
        """Wakes the run when a budget may have capacity again; None if nothing waits for that."""
        self._wake = asyncio.Event()
        self._active = ActiveMessages(self._queues, self._wake.set)
        self.tally = Tally()
        self._worker = Worker(
            claims,
            context,
            settler,
            self.tally,
            pause=self._active.pause,
            on_end=self._ended,
            on_trouble=self._troubled_by,
        )

    async def once(self, stop: asyncio.Event, grace: float) -> Tally:
        """Work until nothing is ready, or `stop` is set.

        Args:
            stop: ends the run early; deliveries in progress are finished first.
            grace: seconds that these may take.

        Raises:
            Stopped: the spool could not be read or written; deliveries in progress are settled as far as
                possible.
        """
        stopping = asyncio.create_task(self._wake_on(stop))
        claimed_before = -1
        try:
            while not stop.is_set() and self._trouble is None:
                self._wake.clear()
                self._fill()
                if self._busy or self._looks_on:
                    await self._wake.wait()
                elif self._closing or self.tally.claimed == (self._limit or -1):
                    break  # The run is closing, or its limit is reached.
                elif 0 < self._closed_for() <= _BUDGET_WAIT and self._scan.is_something_new:
                    await self._wake.wait()  # A budget will have capacity within a minute.
                elif self.tally.claimed == claimed_before and not self._scan.missed:
                    break  # A complete pass found nothing.
                else:
                    claimed_before = self.tally.claimed
                    self._scan.begin_pass()
        finally:
            stopping.cancel()
            await self._drain(grace)
        if self._trouble is not None:
            raise Stopped(self._trouble.errno, self._trouble.strerror) from self._trouble
        return self.tally

    def stop_claiming(self) -> None:
        """Claim nothing more, and end the run when the deliveries in progress are done.

        There is no time limit, because an interrupted delivery would leave its outcome uncertain.
        """
        self._closing = True
        self._wake.set()

    @property
    def troubled(self) -> bool:
        """Whether the last use of the spool failed, so that the runner is waiting."""
        return self._trouble is not None

    async def watch(self, stop: asyncio.Event, grace: float) -> Tally:
        """Work until `stop` is set, and claim new mail as it arrives; the arguments are those of `once`."""
        stopping = asyncio.create_task(self._wake_on(stop))
        self._skipped.for_good = False
        arrivals = self._listen()
        loop = asyncio.get_running_loop()
        look_again = 0.0
        try:
            while not stop.is_set() and (self._busy or not self._closing):
                self._wake.clear()
                if self._scan.exhausted and (self._scan.missed or loop.time() >= look_again):
                    look_again = loop.time() + (self._until_minute() if arrivals else SCAN_INTERVAL)
                    self._scan.begin_pass()
                self._fill()
                if self._trouble is not None:
                    await self._pause(self._trouble, stop)
                else:
                    await self._rest(self._patience(look_again))
        finally:
            stopping.cancel()
            if arrivals:
                loop.remove_reader(arrivals.fd)
                arrivals.close()
            await self._drain(grace)
        return self.tally

    @property
    def _busy(self) -> bool:
        return bool(self._active or self._suspect)

    def _fill(self) -> bool:
        """Start attempts while there is a free place and a message is ready; tell whether one was started."""
        started = False
        try:
            if self._spool.lease:
                self._spool.lease.check()
            if self._suspect and not self._must_wait(self._suspect):
                suspect, self._suspect = self._suspect, None
                self._start(suspect, "")
                started = True
            put_back = 0
            while self._has_room() and (claim := self._next()):
                destination = self._queues.destination_of(claim)
                if self._queues.puts_back(claim, destination):
                    put_back += 1
                    if put_back < MAX_PUT_BACK:
                        continue
                    asyncio.get_running_loop().call_soon(self._wake.set)
                    break
                self.tally.claimed += 1
                if self._must_wait(claim):
                    self._suspect = claim
                else:
                    self._start(claim, destination)
                    started = True
        except OSError as error:
            self._trouble = error
        if self._looks_on:
            asyncio.get_running_loop().call_soon(self._wake.set)
        for name, pause in self._scan.locked():
            asyncio.get_running_loop().call_later(pause, self._hear, [name])
        return started

    def _hear(self, names: list[str] | None) -> None:
        self._scan.add_arrivals(names)
        self._wake.set()

    def _has_room(self) -> bool:
        if self._active.places >= self._concurrency or self.tally.claimed == (self._limit or -1):
            return False
        return not (self._suspect or self._alone or self._trouble or self._closing or self._is_paused())

    def _next(self) -> Claim | None:
        """Return the next message; while all budgets are used up, only one that may need none."""
        return self._scan.next_without_budget() if self._closed_for() else self._scan.next()

    @property
    def _looks_on(self) -> bool:
        """Whether the scan for mail that needs no budget goes on in the next iteration of the event loop."""
        return self._scan.is_looking and self._has_room() and self._closed_for() > 0

    def _closed_for(self) -> float:
        """Return the seconds until some route has budget left, and schedule a wake-up for then.

        Messages that are not claimed stay in `new/` and `retry/`, and take no place in the run.
        """
        if not self._shares:
            return 0.0
        seconds = min(share.closed_for for share in self._shares)
        if seconds and self._opens is None:
            self._opens = asyncio.get_running_loop().call_later(min(seconds, _BUDGET_POLL), self._opened)
        return seconds

    def _opened(self) -> None:
        self._opens = None
        self._wake.set()

    def _is_paused(self) -> bool:
        """Tell whether the operator has paused sending; looks at the spool once a second at most."""
        now = monotonic()
        if now >= self._look_for_pause:
            self._look_for_pause = now + PAUSE_POLL
            before, self._paused = self._paused, is_paused(self._spool)
            if self._paused != before:
                self._context.log.notice("paused: nothing is claimed" if self._paused else "resumed")
        return self._paused

    def _start(self, claim: Claim, destination: str) -> None:
        alone = claim.suspect and not self._active
        if alone:
            self._alone = claim
            asyncio.get_running_loop().call_later(ALONE_LIMIT, self._accompany, claim)
        self._active.start(self._worker.work(claim, alone=alone), destination)

    def _must_wait(self, claim: Claim) -> bool:
        """Tell whether a claim is a suspect that must wait until it can be tried alone.

        It does not wait for a message that has been active for `ALONE_LIMIT` seconds: that one may hang.
        """
        return claim.suspect and bool(self._active) and self._active.longest < ALONE_LIMIT

    def _accompany(self, claim: Claim) -> None:
        """Let other messages start while a suspect is active.

        That the event loop got here shows that the suspect has not killed the runner, but waits for a server
        or the disk.
        """
        if self._alone is not claim:
            return
        if self._worker.accompany():
            self._alone = None
            self._wake.set()
        else:
            asyncio.get_running_loop().call_later(ALONE_LIMIT, self._accompany, claim)

    def _ended(self, task: LazyTask) -> None:
        """Start the next message in place of one that is done; the run is woken only if there is none."""
        if released := self._active.end(task):
            self._scan.add_arrivals(released)
        self._scan.missed |= self._queues.missed
        self._queues.missed = False
        self._alone = None
        started = False
        try:
            started = not self._draining and self._fill()
        finally:
            if not started:
                self._wake.set()

    def _troubled_by(self, name: str, error: OSError) -> None:
        if error.errno not in SPOOL_WIDE:
            self._scan.give_up(name, error)
        if error.errno in SPOOL_WIDE or self._skipped.full:
            self._trouble = error

    async def _drain(self, grace: float) -> None:
        """Let the deliveries in progress finish; interrupt those that take longer than `grace` seconds."""
        if self._suspect:
            self._settler.put_back(self._suspect)
            self._suspect.locked.release()
            self._suspect = None
        self._draining = True
        if self._context.budgets:
            self._context.budgets.end_waits()
        if active := len(self._active):
            self._context.log.notice("finishing deliveries in progress", messages=active, seconds=grace)
            await self._active.empty(grace)
        # In the next iteration of the loop, so that a task whose final reply has just arrived still reads it.
        asyncio.get_running_loop().call_soon(self._worker.interrupt)
        await self._active.empty()

    def _listen(self) -> Arrivals | None:
        try:
            arrivals = Arrivals(self._spool)
        except OSError as error:
            self._context.log.warning(
                "cannot watch new/ with inotify; scanning it instead", error=error.strerror
            )
            return None
        asyncio.get_running_loop().add_reader(arrivals.fd, lambda: self._hear(arrivals.read()))
        return arrivals

    def _until_minute(self) -> float:
        """Return the seconds until the next retry bucket may be due; buckets are named by the minute."""
        return 60.0 - self._context.clock() % 60 + 0.05

    def _patience(self, look_again: float) -> float | None:
        """Return the seconds to wait for a wake-up; None means until one comes."""
        if self._paused:
            return PAUSE_POLL
        if not self._scan.exhausted:
            return None
        return look_again - monotonic()

    async def _rest(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _pause(self, trouble: OSError, stop: asyncio.Event) -> None:
        self._context.log.error(
            "the spool cannot be read or written; waiting",
            error=trouble.strerror,
            seconds=ERROR_PAUSE,
            to_do="see mailer doctor --offline",
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ERROR_PAUSE):
                await stop.wait()
        self._trouble = None
        self._scan.missed = True

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()
