"""Send budgets of a run: capacity is reserved in small batches, used, and given back; see `mail/budget`.

Mail that no budget applies to does not use this module, and costs no access to the disk.
"""

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from mailer.config.hops import Provider
from mailer.config.model import Config
from mailer.mail.budget import Allowance, Counted, Room, WhenUsedUp
from mailer.mail.clock import Clocks
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Scope
from mailer.send.phase import Phase
from mailer.send.trouble import HopTrouble, Resting, SessionLost
from mailer.spool.directory import Spool
from mailer.spool.state.budgets import BudgetFile, Holder, Unavailable

PATIENCE = 61.0
"""The most seconds that a claimed message waits for its budget: a one-minute window, rounded up."""
_MAX_WAITING = 50
"""The most claimed messages of a run that wait for one budget: each keeps its file open."""
LOOK = 1.0
"""Seconds between reads of a budget that is used up: other runs may give back what they did not need."""
_FLUSH_DELAY = 2.0
"""Seconds until used and unneeded capacity is written to the file, if no reservation does so before."""


class Spent(Resting):
    """A budget is used up; no hop was tried."""

    def __init__(
        self, share: "BudgetShare", reason: str, *, until: float, seconds: float, waits: bool, short: bool
    ) -> None:
        """Keep what the attempt needs.

        Args:
            share: the share of the budget.
            reason: why nothing is left, for the operator.
            until: when to ask again, in seconds since the epoch.
            seconds: the same, in seconds from now.
            waits: the mail must wait, even if another provider could take it.
            short: the wait is so short that the message may stay claimed.
        """
        when = datetime.fromtimestamp(until, UTC)
        text = f"not tried before {when:%Y-%m-%d %H:%M:%SZ}, since {reason}"
        super().__init__(share.hop, Phase.CONNECT, text, scope=Scope.PROVIDER, until=until)
        self.share = share
        self.reason = reason
        self.seconds = seconds
        self.waits = waits
        self.short = short


class BudgetShare:
    """This run's share of one budget."""

    def __init__(
        self, file: BudgetFile, hop: str, name: str, holder: Callable[[], str], clocks: Clocks
    ) -> None:
        """Prepare; reads nothing yet.

        Args:
            file: the budget's file in the spool.
            hop: the name of the hop in outcomes.
            name: the operator's name for the budget.
            holder: returns the name of this run, see `spool.state.budgets.Holder`.
            clocks: the sources of time.
        """
        self._file = file
        self.hop = hop
        self._name = name
        self._holder = holder
        self._clocks = clocks
        self._turn = asyncio.Lock()
        self._unused = 0
        """Units that are reserved and not taken by a message."""
        self._out = 0
        """Units that transactions in progress have taken."""
        self._used: list[tuple[float, int]] = []
        """Units used but not written to the file yet, each with its time."""
        self._room: Room | None = None
        """The state of the budget when it was last read, if nothing was left; otherwise None."""
        self._why = ""
        """Why nothing was left, if for another reason than that the budget is used up."""
        self._look_at = -math.inf
        """When to read the file again."""
        self._booked = -math.inf
        """The latest turn given to a message that goes back to the queue; the next one gets a later turn."""
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._waiting = 0
        self.ends = False
        """Whether the run is ending, so that no claimed message may wait any more."""

    @property
    def allowance(self) -> Allowance:
        return self._file.allowance

    @property
    def closed_for(self) -> float:
        """The seconds until something may be taken; 0 means now. Reads the file once a second at most."""
        if self._unused:
            return 0.0
        if (now := self._clocks.uptime()) >= self._look_at:
            room = self._file.look()
            # Read after it: a room that says "ask again now" must not lie in the future, however little.
            now = self._clocks.uptime()
            self._saw(room, now)
        if self._room is None:
            return LOOK if self._waiting else 0.0
        return max(0.0, self._room.at - now)

    async def acquire(self, want: int) -> int:
        """Take budget for as many of `want` recipients as may be sent now, at least one; return how many.

        Raises:
            Spent: none may be sent.
            OSError: the reservation cannot be written.
        """
        if self.allowance.counted is Counted.MESSAGES:
            await self._acquire(1)
            return want
        return await self._acquire(want)

    async def _acquire(self, want: int) -> int:
        async with self._turn:
            if not self._unused:
                await self._reserve(want)
            count = min(want, self._unused)
            self._unused -= count
            self._out += count
            return count

    def give_back(self, recipients: int) -> None:
        """Return what was taken for some recipients whose transaction did not begin."""
        count = self._counts(recipients)
        self._out -= count
        self._unused += count
        self._write_soon()

    def settle(self, recipients: int) -> None:
        """Count what was taken for some recipients as used: their transaction has ended."""
        count = self._counts(recipients)
        self._out -= count
        self._used.append((self._clocks.uptime(), count))
        self._write_soon()

    def _counts(self, recipients: int) -> int:
        return 1 if self.allowance.counted is Counted.MESSAGES else recipients

    async def _reserve(self, want: int) -> None:
        now = self._clocks.uptime()
        if self._room and now < self._look_at:
            raise self._spent(now)
        used, self._used = self._used, []
        try:
            count, room = await asyncio.to_thread(
                self._file.reserve, self._holder(), max(want, self.allowance.reserve), used, self._out
            )
        except Unavailable as unavailable:
            self._used += used
            self._saw(Room(0, now + LOOK, None), now, str(unavailable))
            raise self._spent(now) from unavailable
        except BaseException:
            self._used += used  # It may be on the disk already; counting twice is better than not at all.
            raise
        self._unused += count
        now = self._clocks.uptime()
        self._saw(None if count else room, now)
        if not count:
            raise self._spent(now)

    def _saw(self, room: Room | None, now: float, why: str = "") -> None:
        self._why = why
        self._room = room if room and not room.free else None
        self._look_at = min(self._room.at, now + LOOK) if self._room else now + LOOK

    def _spent(self, now: float) -> Spent:
        room = self._room or Room(0, now + LOOK, None)
        wait = max(0.0, room.at - now)
        short = wait <= PATIENCE and self._waiting < _MAX_WAITING and not self.ends
        if not short and self.allowance.when_used_up is WhenUsedUp.WAIT:
            self._booked = max(self._booked, room.at) + self.allowance.pause
            wait = self._booked - now
        reason = (
            self._why or f"the allowance of {self._name} ({room.limit}, {self.allowance.counted}) is used up"
        )
        until = self._clocks.wall() + wait
        waits = self.allowance.when_used_up is WhenUsedUp.WAIT
        return Spent(self, reason, until=until, seconds=wait, waits=waits, short=short)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a claimed message as waiting for this budget."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _write_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_DELAY, self._flush)

    def _flush(self) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        """Write what was used, and give back the reserved rest; keep both for later if the write fails."""
        async with self._turn:
            if not self._used and not self._unused:
                return
            used, self._used = self._used, []
            unused, self._unused = self._unused, 0
            try:
                await asyncio.to_thread(self._file.put, self._holder(), used, self._out)
            except OSError:
                self._used += used
                self._unused += unused
                self._write_soon()
            except BaseException:
                self._used += used
                raise

    async def close(self) -> None:
        """Give back the reserved rest, if that can be written."""
        if self._timer:
            self._timer.cancel()
        if self._writing:
            await self._writing
        await self._write()
        if self._timer:
            self._timer.cancel()


class Permit:
    """What one transaction has taken from each of its budgets; a context manager that settles it."""

    def __init__(self, shares: Sequence[BudgetShare], recipients: int) -> None:
        """Keep what was taken: budget for `recipients` recipients, from each share."""
        self._shares = shares
        self.recipients = recipients
        self.unasked = 0
        """How many of these recipients the server was not asked about in the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A provider does not count a session that broke before MAIL. It may count a request over HTTP that it
        # refused because of our account (429 among others), but then it asks for a pause, which is kept. If
        # such requests were counted here too, a few would use up a day's budget although nothing was sent.
        unheard = isinstance(error, HopTrouble) and not isinstance(error, SessionLost)
        for share in self._shares:
            if unheard:
                share.give_back(self.recipients)
                continue
            share.settle(self.recipients - self.unasked)
            if self.unasked and share.allowance.counted is Counted.RECIPIENTS:
                share.give_back(self.unasked)


async def permit(shares: Sequence[BudgetShare], want: int) -> Permit:
    """Take budget for as many recipients as all the shares allow.

    Raises:
        Spent: one of them allows none; nothing is taken.
        OSError: as `BudgetShare.acquire`.
    """
    taken: list[tuple[BudgetShare, int]] = []
    count = want
    try:
        for share in shares:
            count = await share.acquire(count)
            taken.append((share, count))
    except BaseException:
        for share, some in taken:
            share.give_back(some)
        raise
    for share, some in taken:
        if some > count and share.allowance.counted is Counted.RECIPIENTS:
            share.give_back(some - count)
    return Permit(shares, count)


class Budgets:
    """The budgets of a run, as an async context manager: on exit it gives back what is reserved."""

    def __init__(self, config: Config, spool: Spool, clocks: Clocks, trusts: Callable[[], bool]) -> None:
        """Prepare; opens nothing yet."""
        self._spool = spool
        self._clocks = clocks
        self._trusts = trusts
        self._holder: Holder | None = None
        self._shares: dict[str, BudgetShare] = {}
        self._domains = [budget for budget in config.domain_budgets if budget.allowance]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for share in self._shares.values():
            await share.close()
        if self._holder:
            self._holder.close()

    def share(self, of: str, allowance: Allowance, hop: str, name: str) -> BudgetShare | None:
        """Return the share of a budget; None if the terms set no limit.

        Args:
            of: the key of the budget's file.
            allowance: the limits.
            hop: the name of the hop in outcomes.
            name: the operator's name for the budget.
        """
        if not allowance:
            return None
        if of not in self._shares:
            file = BudgetFile(self._spool, of, allowance, self._clocks.read, self._trusts)
            self._shares[of] = BudgetShare(file, hop, name, self._name, self._clocks)
        return self._shares[of]

    def of_provider(self, provider: Provider, hop: str) -> BudgetShare | None:
        """Return a provider's share; `hop` is its name in outcomes."""
        return self.share(provider.account, provider.allowance, hop, provider.label)

    def of_domain(self, domain: str) -> BudgetShare | None:
        """Return the share of the first budget that covers a recipient domain."""
        for budget in self._domains:
            if budget.covers(domain):
                return self.share(budget.record, budget.allowance, budget.domains[0], budget.label)
        return None

    def split(
        self, groups: Sequence[Sequence[Recipient]]
    ) -> list[tuple[Sequence[Recipient], BudgetShare | None]]:
        """Divide groups of recipients so that each has one domain budget, or none."""
        if not self._domains:
            return [(group, None) for group in groups]
        divided: list[tuple[Sequence[Recipient], BudgetShare | None]] = []
        for group in groups:
            parts: dict[BudgetShare | None, list[Recipient]] = {}
            for recipient in group:
                domain = recipient.address.rpartition("@")[2].lower()
                parts.setdefault(self.of_domain(domain), []).append(recipient)
            divided += [(part, share) for share, part in parts.items()]
        return divided

    def end_waits(self) -> None:
        """End the run's waits: claimed messages that wait for budget go to `retry/` within a second."""
        for share in self._shares.values():
            share.ends = True

    def _name(self) -> str:
        if self._holder is None:
            self._holder = Holder(self._spool)
        return self._holder.name
