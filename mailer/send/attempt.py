"""One attempt at one message: walk the routes, and record each outcome as soon as it is known."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.send import defects
from mailer.send.batches import Batches, is_unasked, smaller
from mailer.send.dkim.signer import SigningError
from mailer.send.outgoing import Outgoing
from mailer.send.presenter import Presenter
from mailer.send.record import Record
from mailer.send.routes.directions import Way, unreachable
from mailer.send.routes.route import Route
from mailer.send.together import together
from mailer.send.trouble import (
    Action,
    Hardness,
    HopTrouble,
    Resting,
    decide,
    may_be_about_a_recipient,
)
from mailer.spool.message_state import Standing

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mailer.send.budgets import BudgetShare, Permit

_SENT, _UNCERTAIN = Status.SENT, Status.UNCERTAIN

_address = attrgetter("address")

_MAX_PARALLEL = 20
"""The most destinations of one message to try at the same time."""


class Attempt:
    """Tries a claimed message's due recipients once."""

    def __init__(self, record: Record, pause: Callable[[float], Awaitable[None]]) -> None:
        """Prepare.

        Args:
            record: takes the outcomes of the message; its `state` has the status of each recipient.
            pause: sleeps for some seconds between two batches.
        """
        self._record = record
        self._context = record.context
        self._pause = pause
        self._presenter = Presenter(record.claim, record.context.signer, record.throttled)
        self._room: asyncio.Semaphore | None = None
        """Limits the number of destinations at a time; None while there is only one."""
        self._tried: set[str] = set()
        """The recipients for whom some hop was tried. A hop that was skipped because it is paused does not
        count."""
        self._limits: dict[str, int] = {}
        """How many recipients the next transaction may have, by those at one of whom a session broke."""
        self._rest = math.inf
        """When the first of the paused hops may be tried again, in seconds since the epoch."""

    async def run(self, due: Sequence[Standing]) -> None:
        """Try recipients.

        Args:
            due: the recipients to try; at least one.

        Raises:
            OSError: as `Record` does.
        """
        record = self._record
        plan, kept = self._plan(due)
        if len(plan) == 1:
            await self._walk(*plan[0])
        else:
            self._room = asyncio.Semaphore(_MAX_PARALLEL)
            await together([self._walk(*part) for part in plan])
        if kept:
            self._keep_back(kept)
        if record.handed_over:
            record.hold_doubt(record.handed_over)

    def _plan(
        self, due: Sequence[Standing]
    ) -> tuple[list[tuple[tuple[Route, ...], list[Recipient]]], dict[Way, list[Recipient]]]:
        """Group the recipients by route; the second result has those not to be sent now, by their way.

        A recipient that is uncertain at a hop is tried only at that hop, whatever the rules say now, because
        only a hop that may have taken the message could recognise a duplicate. If no route leads there any
        more, the operator decides. The direct route has many hops, so recipients that are uncertain at one of
        them are sent separately from all others.
        """
        table = self._context.routes
        plan: dict[tuple[tuple[Route, ...], str], list[Recipient]] = {}
        kept: dict[Way, list[Recipient]] = {}
        gone: dict[str, Way] = {}
        for way, standings in table.divide(self._record.claim, due).items():
            every = table.next(way)
            for standing in standings:
                routes, hop = every, ""
                if standing.status is _UNCERTAIN:
                    hop = standing.hop
                    known = table.leading_to(hop)
                    if known is None and not standing.let_go:
                        away = gone.setdefault(hop, unreachable(hop))
                        kept.setdefault(away, []).append(standing.recipient)
                        continue
                    routes = (known,) if known else every
                if routes:
                    plan.setdefault((routes, hop), []).append(standing.recipient)
                else:
                    kept.setdefault(way, []).append(standing.recipient)
        return [(routes, recipients) for (routes, _), recipients in plan.items()], kept

    def _keep_back(self, kept: Mapping[Way, Sequence[Recipient]]) -> None:
        """Record that recipients are not tried; hold the message if no other recipient is left to try."""
        held = {recipient.address for way, some in kept.items() if way.hold for recipient in some}
        if held and all(standing.address in held for standing in self._record.state.open):
            self._record.hold(next(way.hold for way in kept if way.hold))
            return
        for way, some in kept.items():
            reason = way.waits or f"{way.hold} (held once the other recipients are done)"
            self._wait(some, reason, gives_up=False)

    async def _walk(self, routes: Sequence[Route], recipients: Sequence[Recipient]) -> None:
        for position, route in enumerate(routes, start=1):
            recipients = await self._try_groups(
                route, route.groups(recipients), hops_left=position < len(routes)
            )
            if not recipients:
                return

    def _try_groups(
        self, route: Route, groups: Sequence[Sequence[Recipient]], *, hops_left: bool
    ) -> Awaitable[list[Recipient]]:
        """Send to several destinations in parallel, so that a slow one does not delay the others."""
        budgets = self._context.budgets
        if len(groups) == 1 and self._room is None and not budgets:
            return self._try(route, groups[0], None, hops_left=hops_left)
        divided = budgets.split(groups) if budgets else [(group, None) for group in groups]
        if len(divided) == 1 and self._room is None:
            return self._try(route, *divided[0], hops_left=hops_left)
        return self._try_at_once(route, divided, hops_left=hops_left)

    async def _try_at_once(
        self,
        route: Route,
        divided: "Sequence[tuple[Sequence[Recipient], BudgetShare | None]]",
        *,
        hops_left: bool,
    ) -> list[Recipient]:
        room = self._room = self._room or asyncio.Semaphore(_MAX_PARALLEL)

        async def one(group: Sequence[Recipient], budget: "BudgetShare | None") -> list[Recipient]:
            async with room:
                return await self._try(route, group, budget, hops_left=hops_left)

        results = await together([one(*part) for part in divided])
        return [recipient for passed_on in results for recipient in passed_on]

    async def _try(
        self, route: Route, recipients: Sequence[Recipient], budget: "BudgetShare | None", *, hops_left: bool
    ) -> list[Recipient]:
        """Send to one destination's recipients, in batches; return those to pass on to the next route."""
        try:
            outgoing = await self._presenter.outgoing(route.presentation)
        except SigningError as error:
            self._wait(recipients, error.reason)  # Never unsigned by accident.
            return []
        shares = tuple(filter(None, (budget, route.budget)))
        passed_on: list[Recipient] = []
        patient = self._record.attempt < route.attempts
        batches = Batches(recipients, self._batch_size(route, recipients))
        while batch := batches.next():
            if batches.pause:
                await self._pause(route.batch_delay)
            try:
                if shares:
                    with await self._permit(shares, len(batch), hops_left=hops_left) as permit:
                        batch = batches.keep(batch, permit.recipients)
                        outcomes = await self._deliver(route, outgoing, batch)
                        permit.unasked = sum(map(is_unasked, outcomes))
                else:
                    outcomes = await self._deliver(route, outgoing, batch)
            except HopTrouble as trouble:
                on = hops_left and _is_passed_on(trouble, patient=patient)
                broke = may_be_about_a_recipient(trouble)
                if broke:
                    self._limits.update(dict.fromkeys(map(_address, batch), smaller(batch)))
                if on or not broke or not batches.lose():
                    # The trouble would affect the remaining batches too.
                    batch, batches.left = [*batch, *batches.left], []
                passed_on += self._after_trouble(trouble, batch, hops_left=on)
                continue
            except OSError:
                raise  # A disk error: what cannot be recorded must not be sent.
            except Exception as error:  # noqa: BLE001 - a defect at one destination must not stop the others
                reason = defects.report(self._context.log, self._record.claim.id, error)
                self._record.fail_internally(reason, {r.address for r in [*batch, *batches.left]})
                return passed_on
            twice = route.retries_unclear_refusals and not hops_left
            settled, theirs = batches.settle(batch, outcomes)
            passed_on += self._judge(settled, theirs, hops_left=hops_left, patient=patient, twice=twice)
        return passed_on

    def _batch_size(self, route: Route, recipients: Sequence[Recipient]) -> int:
        """Return the most recipients of a transaction: fewer than the route's if sessions broke at some."""
        if len(recipients) == 1:
            return 1
        standings = self._record.state.by_address
        limits = [standings[recipient.address].batch for recipient in recipients]
        return min([route.batch_size, *[limit for limit in limits if limit > 0]])

    def _deliver(
        self, route: Route, outgoing: Outgoing, batch: Sequence[Recipient]
    ) -> Awaitable[list[Outcome]]:
        return route.deliver(outgoing, batch, self._record.commit, self._record.go_on)

    async def _permit(
        self, shares: "Sequence[BudgetShare]", want: int, *, hops_left: bool
    ) -> "AbstractContextManager[Permit]":
        """Take what one transaction needs from each budget, after a short wait if the mail is to wait.

        Raises:
            Spent: a budget is used up for longer, or the mail is to go to the next provider.
        """
        from mailer.send.budgets import LOOK, Spent, permit  # noqa: PLC0415 - most runs have no budgets

        while True:
            try:
                return await permit(shares, want)
            except Spent as spent:
                if not spent.short or (hops_left and not spent.waits):
                    raise
                self._record.waits(spent.hop, spent.seconds, spent.reason)
                with spent.share.waiting():
                    # Not the whole time: other runs may give back what they have reserved.
                    await self._pause(min(spent.seconds, LOOK))

    def _wait(self, recipients: Sequence[Recipient], reason: str, *, gives_up: bool = True) -> None:
        """Defer recipients for a reason that is local, rather than the mail's or a hop's."""
        self._tried.update(recipient.address for recipient in recipients)
        waiting = [Outcome(r.address, Status.DEFERRED, "local", reason, Scope.LOCAL) for r in recipients]
        self._record.outcomes(waiting, gives_up=gives_up)

    def _after_trouble(
        self, trouble: HopTrouble, recipients: Sequence[Recipient], *, hops_left: bool
    ) -> Sequence[Recipient]:
        """Record that a hop failed; return the recipients if another hop is to be tried for them."""
        if isinstance(trouble, Resting):
            self._rest = min(trouble.until, self._rest)
        else:
            self._tried.update(recipient.address for recipient in recipients)
        if decide(trouble.scope, trouble.hardness, hops_left=hops_left) is Action.NEXT_HOP:
            self._record.trouble(trouble.hop, trouble.text, trouble.scope, recipients)
            return recipients
        hop, text, whose, limits = trouble.hop, trouble.text, trouble.scope, self._limits
        deferred = [
            Outcome(address, Status.DEFERRED, hop, text, whose, batch=limits.get(address, 0))
            for address in map(_address, recipients)
        ]
        self._record.outcomes([outcome for outcome in deferred if outcome.address in self._tried])
        resting = [outcome for outcome in deferred if outcome.address not in self._tried]
        self._record.outcomes(resting, resting_until=self._rest)
        return []

    def _second_opinion(self, outcome: Outcome) -> Outcome:
        """Defer a recipient that was refused permanently for the first time, if the reason is unclear."""
        if outcome.status is not Status.BOUNCED:
            return outcome
        if self._record.state.by_address[outcome.address].unclear:
            return outcome
        if decide(outcome.scope, Hardness.of(outcome), hops_left=False) is not Action.SECOND_OPINION:
            return outcome
        return replace(outcome, status=Status.DEFERRED, unclear=True)

    def _judge(
        self,
        batch: Sequence[Recipient],
        outcomes: Sequence[Outcome],
        *,
        hops_left: bool,
        patient: bool,
        twice: bool,
    ) -> list[Recipient]:
        """Record the outcomes of a transaction; return the recipients that another hop may still take.

        Args:
            batch: the recipients.
            outcomes: theirs, in the same order.
            hops_left: whether there is another hop.
            patient: whether it waits for more attempts with this one.
            twice: whether an unclear permanent refusal is only believed the second time.
        """
        passed_on: dict[Outcome, list[Recipient]] = {}
        decided: list[Outcome] = []
        for recipient, first in zip(batch, outcomes, strict=True):
            self._tried.add(recipient.address)
            if first.status is _SENT:
                decided.append(first)
                continue
            outcome = self._second_opinion(first) if twice else first
            # A temporary refusal is given the route's attempts; a permanent one (5yz) is not.
            waits = outcome.status is Status.DEFERRED and not outcome.reply.startswith("5")
            on = hops_left and not (patient and waits)
            if decide(outcome.scope, Hardness.of(outcome), hops_left=on) is Action.NEXT_HOP:
                passed_on.setdefault(replace(outcome, address=""), []).append(recipient)
            else:
                decided.append(outcome)
        # First the outcomes that may say "sent": the disk may have no room for the others.
        self._record.outcomes(decided)
        if not passed_on:
            return []
        for outcome, recipients in passed_on.items():
            self._record.trouble(outcome.hop, outcome.reply, outcome.scope, recipients)
        return [recipient for recipients in passed_on.values() for recipient in recipients]


def _is_passed_on(trouble: HopTrouble, *, patient: bool) -> bool:
    """Tell whether the next route is tried now; for a paused hop its route's `attempts` do not matter."""
    return not trouble.waits if isinstance(trouble, Resting) else not patient
