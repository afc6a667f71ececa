"""The runner: as many attempts at once as it may, until nothing is ready or it is told to stop.

A message is in one task from claim to settlement. Nothing that goes wrong with one of them stops the others,
save trouble with the disk: what cannot be recorded must not be sent.
"""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from mailer.send.attempt import Attempt, Policy
from mailer.send.feed import Feed
from mailer.send.hands import Hands
from mailer.send.lanes import Lanes
from mailer.send.settle import Settler
from mailer.spool.arrivals import Arrivals
from mailer.spool.claim import POISON_AFTER, Claim, Claims
from mailer.spool.journal import Disposition
from mailer.spool.layout import SPOOL_WIDE, Spool
from mailer.spool.pause import is_paused

PAUSE = 30.0
"""Seconds that a runner that stays waits after trouble with the disk."""
AT_ONCE = 50
"""Messages put back for full destinations before others get their turn."""
POLL = 0.1
"""Seconds between looks where the kernel does not tell of arrivals."""
PAUSE_SEEN = 1.0
"""Seconds until a runner sees that the operator has paused, or resumed."""


@dataclass(slots=True)
class Tally:
    """What a run did, in messages."""

    claimed: int = 0
    dispositions: Counter[Disposition] = field(default_factory=Counter)

    @property
    def finished(self) -> int:
        return self.dispositions[Disposition.FINISH]

    @property
    def deferred(self) -> int:
        return self.dispositions[Disposition.WAIT]

    @property
    def failed(self) -> int:
        return self.dispositions[Disposition.FAIL]

    @property
    def held(self) -> int:
        return self.dispositions[Disposition.HOLD]


class Stopped(OSError):
    """The run ended before its work was done, because the spool could not be worked with."""


class Runner:
    """One run over one spool. Any number of runners may work on the same spool at once."""

    def __init__(
        self,
        spool: Spool,
        claims: Claims,
        policy: Policy,
        settler: Settler,
        *,
        concurrency: int,
        limit: int = 0,
    ) -> None:
        """Prepare a run.

        Args:
            spool: what to work on.
            claims: this runner's claims.
            policy: how to try a message.
            settler: how to move it on.
            concurrency: messages in flight at once, at most.
            limit: messages to claim in this run, at most; 0: all.
        """
        self._spool = spool
        self._claims = claims
        self._policy = policy
        self._settler = settler
        self._concurrency = concurrency
        self._limit = limit
        self._feed = Feed(spool, claims, policy)
        self._lanes = Lanes(policy.traffic, concurrency)
        self._feed.leave_alone = self._lanes
        self._attempts: set[asyncio.Task[None]] = set()
        """Those that are cut off when the run's grace is over."""
        self._interrupted = False
        self._suspect: Claim | None = None
        """Waits until nothing else is in hand, to be tried alone."""
        self._alone = False
        self._trouble: OSError | None = None
        self._closing = False
        self._paused = False
        self._look_for_pause = float("-inf")
        self._wake = asyncio.Event()
        self._hands = Hands(self._lanes, self._wake.set)
        self.tally = Tally()
        self.leap = policy.leap

    async def once(self, stop: asyncio.Event, grace: float) -> Tally:
        """Work until nothing is ready, or `stop` is set.

        Args:
            stop: ends the run early; what is in flight is finished.
            grace: seconds that it may take to finish.

        Raises:
            Stopped: the spool could not be worked with; what was in flight is settled as far as it can be.
        """
        stopping = asyncio.create_task(self._wake_on(stop))
        claimed_before = -1
        try:
            while not stop.is_set() and self._trouble is None:
                self._wake.clear()
                self._fill()
                if self._busy:
                    await self._wake.wait()
                elif self._closing or self.tally.claimed == (self._limit or -1):
                    break  # No more is wanted.
                elif self.tally.claimed == claimed_before and not self._feed.missed:
                    break  # A whole pass found nothing.
                else:
                    claimed_before = self.tally.claimed
                    self._feed.begin_pass()
        finally:
            stopping.cancel()
            await self._drain(grace)
        if self._trouble is not None:
            raise Stopped(self._trouble.errno, self._trouble.strerror) from self._trouble
        return self.tally

    def begin_nothing_more(self) -> None:
        """End `once` when what is in hand is done, however long that takes: cut off, it is uncertain."""
        self._closing = True
        self._wake.set()

    @property
    def troubled(self) -> bool:
        """The spool cannot be worked with just now."""
        return self._trouble is not None

    async def watch(self, stop: asyncio.Event, grace: float) -> Tally:
        """Work until `stop` is set, taking new mail up as it arrives; arguments as `once`."""
        stopping = asyncio.create_task(self._wake_on(stop))
        arrivals = self._listen()
        loop = asyncio.get_running_loop()
        look_again = 0.0
        try:
            while not stop.is_set():
                self._wake.clear()
                if self._feed.exhausted and (self._feed.missed or loop.time() >= look_again):
                    look_again = loop.time() + (self._until_minute() if arrivals else POLL)
                    self._feed.begin_pass()
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
        return bool(self._hands or self._suspect)

    def _fill(self) -> None:
        """Start attempts while there is room and something is ready."""
        try:
            if self._suspect and not self._hands:
                suspect, self._suspect = self._suspect, None
                self._start(suspect, "")
            put_back = 0
            while self._has_room() and (claim := self._feed.next()):
                destination = self._lanes.destination_of(claim)
                if self._lanes.puts_back(claim, destination):
                    put_back += 1
                    if put_back < AT_ONCE:
                        continue
                    asyncio.get_running_loop().call_soon(self._wake.set)
                    break
                self.tally.claimed += 1
                if claim.suspect and self._hands:
                    self._suspect = claim
                else:
                    self._start(claim, destination)
        except OSError as error:
            self._trouble = error
        for name, pause in self._feed.locked():
            asyncio.get_running_loop().call_later(pause, self._hear, [name])

    def _hear(self, names: list[str] | None) -> None:
        self._feed.heard(names)
        self._wake.set()

    def _has_room(self) -> bool:
        if self._suspect or self._alone or self._trouble or self._closing or self._is_paused():
            return False
        return self._hands.places < self._concurrency and self.tally.claimed != (self._limit or -1)

    def _is_paused(self) -> bool:
        """Tell whether the operator wants nothing claimed; looked up once a second, not for each message."""
        now = asyncio.get_running_loop().time()
        if now >= self._look_for_pause:
            self._look_for_pause = now + PAUSE_SEEN
            before, self._paused = self._paused, is_paused(self._spool)
            if self._paused != before:
                self._policy.log.notice("paused: nothing is claimed" if self._paused else "resumed")
        return self._paused

    def _start(self, claim: Claim, destination: str) -> None:
        self._alone = claim.suspect
        self._hands.take(self._work(claim), destination, self._done)

    def _done(self, released: list[str]) -> None:
        self._feed.heard(released)
        self._feed.missed |= self._lanes.missed
        self._lanes.missed = False
        self._alone = False
        self._wake.set()

    async def _work(self, claim: Claim) -> None:
        """Take one message from claim to settlement; never raises."""
        attempt = Attempt(claim, self._policy, partial(self._hands.pause, claim.id))
        try:
            await self._interruptibly(claim, attempt)
            disposition = await self._settler.settle(claim, attempt.state, self._policy.clock())
            self.tally.dispositions[disposition] += 1
        except OSError as error:
            self._note(error, claim, attempt)
        finally:
            claim.held.release()

    async def _interruptibly(self, claim: Claim, attempt: Attempt) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._attempts.add(task)
        try:
            await self._try(claim, attempt)
        except asyncio.CancelledError:
            if not self._interrupted or task.uncancel():
                raise
            attempt.abandon("interrupted before the final reply")
        finally:
            self._attempts.discard(task)

    async def _try(self, claim: Claim, attempt: Attempt) -> None:
        if claim.recovered:
            attempt.report_again()
        if claim.poison:
            attempt.hold(f"{POISON_AFTER} runners died while this message was the only one they had in hand")
        elif attempt.due:
            if claim.suspect:
                self._claims.mark_alone(claim)
            try:
                await attempt.run()
            except (OSError, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001 - a defect of ours must cost neither the mail nor the run
                # Its type and place only: its words may hold a secret.
                kind = type(error).__name__
                self._policy.log.error("defect", id=claim.id, error=kind, at=_place(error))
                attempt.fail_internally(f"internal error: {kind}")

    def _note(self, error: OSError, claim: Claim, attempt: Attempt) -> None:
        """Leave the message where its journal, which says how far it got, lets the next run go on."""
        self._policy.log.error("the spool cannot be written", id=claim.id, error=error.strerror or str(error))
        if error.errno in SPOOL_WIDE:
            self._trouble = error
            if attempt.untried:
                self._settler.put_back(claim)

    async def _drain(self, grace: float) -> None:
        """Let what is in flight finish; interrupt what takes longer than `grace` seconds."""
        if self._suspect:
            self._settler.put_back(self._suspect)
            self._suspect.held.release()
            self._suspect = None
        tasks = self._hands.tasks
        if tasks:
            self._policy.log.notice("finishing what is in flight", messages=len(tasks), seconds=grace)
            await asyncio.wait(tasks, timeout=grace)
        # In the next turn of the loop: whose final reply has just come in shall see it.
        asyncio.get_running_loop().call_soon(self._interrupt)
        if tasks:
            await asyncio.wait(tasks)

    def _interrupt(self) -> None:
        self._interrupted = True
        for attempt in self._attempts:
            attempt.cancel()

    def _listen(self) -> Arrivals | None:
        try:
            arrivals = Arrivals(self._spool)
        except OSError as error:
            self._policy.log.warning(
                "cannot listen for new mail and looks for it instead", error=error.strerror
            )
            return None
        asyncio.get_running_loop().add_reader(arrivals.fd, lambda: self._hear(arrivals.read()))
        return arrivals

    def _until_minute(self) -> float:
        """Seconds until the next bucket may be due: they are named by the minute."""
        return 60.0 - self._policy.clock() % 60 + 0.05

    def _patience(self, look_again: float) -> float | None:
        """Seconds to rest unless something happens; None: only what is in flight can change anything."""
        if self._paused:
            return PAUSE_SEEN
        if not self._feed.exhausted:
            return None
        return look_again - asyncio.get_running_loop().time()

    async def _rest(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _pause(self, trouble: OSError, stop: asyncio.Event) -> None:
        self._policy.log.error(
            "the spool cannot be worked with; waiting", error=trouble.strerror, seconds=PAUSE
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PAUSE):
                await stop.wait()
        self._trouble = None
        self._feed.missed = True

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()


def _place(error: BaseException) -> str:
    """Name the file and line where an exception was raised; not its frames, whose values may be secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
