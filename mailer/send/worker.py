"""The work on one message, from claim to settlement.

A failure of one message does not stop the others, except for a disk error: what cannot be recorded must not
be sent.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from mailer.ground.lazy_task import LazyTask, current
from mailer.mail.outcome import Status
from mailer.send import defects
from mailer.send.attempt import Attempt
from mailer.send.context import RunContext
from mailer.send.record import Record
from mailer.send.settle import Settler
from mailer.spool.directory import SPOOL_WIDE
from mailer.spool.layout import Place
from mailer.spool.message_state import Disposition, Standing
from mailer.spool.run.claim import POISON_AFTER, Claim, Claims

if TYPE_CHECKING:
    from mailer.send.unknown_recipients import Unknown


@dataclass(slots=True)
class Tally:
    """Counts of what a run did, in messages."""

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


class Worker:
    """Works on any number of messages concurrently, each in its own `LazyTask`."""

    def __init__(  # noqa: PLR0913 - its caller names each
        self,
        claims: Claims,
        context: RunContext,
        settler: Settler,
        tally: Tally,
        *,
        pause: Callable[[str, float], Awaitable[None]],
        on_end: Callable[[LazyTask], None],
        on_trouble: Callable[[str, OSError], None],
    ) -> None:
        """Prepare.

        Args:
            claims: the claims of this runner.
            context: how to try a message.
            settler: moves a message after its attempt.
            tally: counts the disposition of each message.
            pause: called with a message's name to sleep for some seconds between two of its batches.
            on_end: called with the task of a message when the work on it is done.
            on_trouble: called with a message's name when it cannot be written or moved; if the error is in
                SPOOL_WIDE, no message can.
        """
        self._claims = claims
        self._context = context
        self._settler = settler
        self._tally = tally
        self._pause = pause
        self._on_end = on_end
        self._on_trouble = on_trouble
        self._alone: Claim | None = None
        """The message whose journal says that it is the only active one."""
        self._attempts: set[LazyTask] = set()
        """The tasks that `interrupt` cancels."""
        self._interrupted = False

    async def work(self, claim: Claim, *, alone: bool) -> None:
        """Take one message from claim to settlement; never raises.

        Args:
            claim: the message.
            alone: the message is a suspect, and no other one is active (until `accompany`).
        """
        task = current()
        journals = self._context.journals
        try:
            record = Record(claim, self._context)
            if journals:
                journals.taken(claim.locked)
            try:
                await self._interruptibly(task, claim, record, alone=alone)
                record.end_attempt()
                if journals:
                    journals.leaving(claim.locked)
                disposition = await self._settler.settle(claim, record.state, self._context.clock())
                self._tally.dispositions[disposition] += 1
            except OSError as error:
                self._note(error, claim, record)
        finally:
            claim.locked.release()
            self._on_end(task)

    def interrupt(self) -> None:
        """Cancel every attempt; each records which outcomes it leaves open."""
        self._interrupted = True
        for attempt in self._attempts:
            attempt.cancel()

    def accompany(self) -> bool:
        """Record that the suspect will no longer be alone; return False if that could not be written."""
        claim, self._alone = self._alone, None
        if claim is None:
            return True
        try:
            self._claims.mark_accompanied(claim)
        except OSError:
            self._alone = claim
        return self._alone is None

    async def _interruptibly(self, task: LazyTask, claim: Claim, record: Record, *, alone: bool) -> None:
        self._attempts.add(task)
        try:
            await self._try(claim, record, alone=alone)
        except asyncio.CancelledError:
            if not self._interrupted or task.uncancel():
                raise
            record.abandon("interrupted before the final reply")
            if self._alone is claim:
                self._claims.give_back(claim)
        finally:
            self._attempts.discard(task)
            if self._alone is claim:
                self._alone = None

    async def _try(self, claim: Claim, record: Record, *, alone: bool) -> None:
        if claim.died:
            record.report_again()
        if claim.poison:
            record.hold(f"{POISON_AFTER} runners died while this was their only active message")
        elif not (due := record.due):
            return
        elif objection := self._objection(claim):
            record.hold(objection)
        elif record.is_late:
            record.expire()
        else:
            record.date()
            self._begin(claim, alone=alone)
            try:
                if left := self._left_to_try(record, due):
                    await Attempt(record, partial(self._pause, claim.id)).run(left)
                    if self._context.unknown:
                        await self._learn(record, self._context.unknown)
            except (OSError, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001 - a defect of ours must cost neither the mail nor the run
                record.fail_internally(defects.report(self._context.log, claim.id, error))

    async def _learn(self, record: Record, unknown: "Unknown") -> None:
        """Update the suppression list with recipients that do not exist, or turned out to exist."""
        from mailer.send.unknown_recipients import says_unknown  # noqa: PLC0415 - few runs feed the list

        ended = (each for each in record.state.by_address.values() if each.attempt == record.attempt)
        sent = [standing.address for standing in ended if standing.status is Status.SENT]
        alone = len(record.state.by_address) == 1
        refused = [outcome for outcome in record.refused if says_unknown(outcome, alone=alone)]
        if sent or refused:
            dated = self._context.trusts_clock()
            await asyncio.to_thread(unknown.learn, refused, sent, dated=dated)

    def _objection(self, claim: Claim) -> str:
        staging = self._context.staging
        return staging.objection(claim.entry.envelope) if staging else ""

    def _left_to_try(self, record: Record, due: tuple[Standing, ...]) -> tuple[Standing, ...]:
        """Return the recipients that are due and not on the suppression list.

        The list does not apply to our own notifications.
        """
        # The runner died before the final reply: the operator decides before the list does.
        if record.doubted and record.hold_doubt(record.doubted):
            return ()
        listed = self._context.suppressed
        if not listed or record.state.about:
            return due
        if given_up := listed.outcomes(standing.address for standing in due):
            record.outcomes(given_up)
            return record.due
        return due

    def _begin(self, claim: Claim, *, alone: bool) -> None:
        """Write what the next runner must know if this one dies: whether the message was active alone."""
        if alone:
            self._claims.mark_alone(claim)
            self._alone = claim
        elif claim.returned:
            self._claims.mark_accompanied(claim)

    def _note(self, error: OSError, claim: Claim, record: Record) -> None:
        """Report a disk error, and leave the message so that the next run continues from its journal."""
        if self._context.journals:
            self._context.journals.leaving(claim.locked)
        if error.errno not in SPOOL_WIDE:
            self._claims.give_back(claim)
            self._on_trouble(claim.id, error)
            return
        self._context.log.error(
            "the spool cannot be written", id=claim.id, error=error.strerror or str(error)
        )
        self._on_trouble(claim.id, error)
        if claim.suspect:
            self._claims.give_back(claim)
        if record.untried:
            self._settler.put_back(claim)
        if claim.locked.spot.place is Place.CUR:
            self._claims.give_back(claim)
